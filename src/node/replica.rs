//! The replica's part: answers the questions of other nodes, and never waits for any.

use std::sync::Arc;

use log::error;

use super::{Node, Origin};
use crate::bytes::Key;
use crate::peer::{Reply, Request, Respond, Service};
use crate::register::{Seen, VoteRequest};
use crate::ring::NodeId;
use crate::rules::{self, Rule};
use crate::storage::Urgency;

impl Service for Node {
    fn serve(self: Arc<Self>, from: NodeId, request: Request, respond: Respond) {
        match request {
            Request::Ping => respond.reply(Reply::Pong),
            Request::Join { storage, votes } => self.joined(from, storage, votes, respond),
            Request::Full(full) => self.room.heard(from, full),
            // What this node holds may not be all that it once held: it has no say in anything.
            _ if !self.votes() => respond.reply(Reply::Abstain),
            Request::Vote { key, vote, spare } => {
                let urgency = if spare {
                    Urgency::Leisurely
                } else {
                    Urgency::Now
                };
                self.vote(from, &key, &vote, urgency, respond);
            }
            Request::Coordinate {
                key,
                operation,
                seen,
            } => {
                if let Some(outcome) = self.turn_away(&key, &operation) {
                    return respond.reply(Reply::Outcome(outcome));
                }
                let seen = seen.map(|seen| (from, seen));
                self.coordinate(Origin::Peer(respond), key, operation, seen);
            }
            Request::Digests { arc } if arc < self.ring.members().len() => {
                respond.reply(Reply::Digests(self.store.digests(arc)));
            }
            Request::Digests { .. } => respond.reply(Reply::Abstain),
            Request::Tombstones(tombstones) => {
                let reply = move |held| respond.reply(Reply::Held(held));
                self.store.hold_tombstones(&tombstones, reply);
            }
            Request::Drop(dropped) => self.store.drop_tombstones(dropped),
            Request::Scan(scan) => {
                self.store
                    .scan(&scan, move |page| respond.reply(Reply::Page(page)));
            }
        }
    }
}

impl Node {
    /// What this node would tell the coordinator of a read, if it is a replica of the key and
    /// may tell it at once.
    pub(super) fn seen(&self, key: &Key) -> Option<Seen> {
        let votes = self.votes() && self.ring.preference_list(key).contains(&self.id);
        votes.then(|| self.store.seen(key))?
    }

    /// Whether the disk keeps up with what votes ask of it. One that is slower than those of the
    /// other replicas stops nobody: two of them decide, and would leave it ever more to write. A
    /// state that is refused so is missed, as if this node had been away.
    pub(super) fn has_room(&self, key: &Key, vote: &VoteRequest) -> bool {
        let has_room = match vote {
            VoteRequest::Read { .. } => self.store.may_wait() || self.store.seen(key).is_some(),
            VoteRequest::Prepare(_) | VoteRequest::Accept(_) => self.store.has_room(),
        };
        if !has_room && matches!(vote, VoteRequest::Accept(_)) {
            self.anti_entropy.doubt_all(&self.ring);
        }
        has_room
    }

    /// Votes, if this node holds the key: a vote from elsewhere breaks the overlap of quorums.
    fn vote(
        &self,
        from: NodeId,
        key: &Key,
        vote: &VoteRequest,
        urgency: Urgency,
        respond: Respond,
    ) {
        let own = self.ring.preference_list(key).contains(&self.id);
        if !own && rules::holds(Rule::OwnKeysOnly) {
            error!(
                "{}: {from} wants a vote on {key:?}, which is not held here",
                self.id
            );
            return respond.reply(Reply::Abstain);
        }
        if !self.has_room(key, vote) {
            return respond.reply(Reply::Abstain);
        }
        self.store.vote(key, vote, urgency, move |reply| {
            respond.reply(Reply::Vote(reply))
        });
    }
}
