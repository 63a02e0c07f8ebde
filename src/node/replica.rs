//! The replica's part: answers the questions of other nodes, and never waits for any.

use std::sync::Arc;
use std::time::Duration;

use log::error;

use super::recognition::Joining;
use super::{Node, ReplyTo};
use crate::bytes::Key;
use crate::protocol::ring::{NodeId, Position};
use crate::protocol::{Ballot, Seen, VoteReply, VoteRequest};
use crate::testing::rules::{self, Rule};
use crate::transport::{Reply, Request, Respond, Service};

/// What is accepted at all is accepted everywhere by then.
pub(super) const OTHERS_HAVE_IT: Duration = Duration::from_millis(50);

impl Service for Node {
    fn serve(self: Arc<Self>, from: NodeId, request: Request, respond: Respond) {
        match request {
            Request::Ping => respond.reply(Reply::Pong(self.store.positions().1)),
            Request::Join {
                storage,
                start,
                votes,
                resumed,
            } => {
                let joining = Joining {
                    peer: from,
                    storage,
                    start,
                    votes,
                    resumed,
                    respond,
                };
                // Where too many wait, who asks does so again.
                drop(self.joining.try_send(joining));
            }
            Request::Full(full) => self.capacity.heard(from, full),
            // What this node holds may not be all that it once held: it has no say in anything.
            _ if !self.votes() => respond.reply(Reply::Abstain),
            Request::Vote { key, vote } => self.vote(from, &key, &vote, respond),
            Request::Coordinate {
                key,
                operation,
                seen,
            } => {
                if let Some(outcome) = self.turn_away(&key, &operation) {
                    return respond.reply(Reply::Outcome(outcome));
                }
                let seen = seen.map(|seen| (from, seen));
                self.coordinate(ReplyTo::Peer(respond), key, operation, seen);
            }
            Request::Digests { range } if range < self.ring.members().len() => {
                respond.reply(Reply::Digests(self.store.digests(range)));
            }
            Request::Digests { .. } => respond.reply(Reply::Abstain),
            // Who asks does so again.
            Request::Tombstones(_) | Request::Scan(_) if !self.store.pages_may_wait() => {
                respond.reply(Reply::Abstain);
            }
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
    pub(super) fn disk_keeps_up(&self, key: &Key, vote: &VoteRequest) -> bool {
        let disk_keeps_up = match vote {
            VoteRequest::Read { .. } => self.store.may_wait() || self.store.seen(key).is_some(),
            VoteRequest::Prepare(_) | VoteRequest::Accept(_) => self.store.disk_keeps_up(),
        };
        if !disk_keeps_up && matches!(vote, VoteRequest::Accept(_)) {
            self.anti_entropy.doubt_all(&self.ring);
        }
        disk_keeps_up
    }

    /// Votes, if this node holds the key: a vote from elsewhere breaks the overlap of quorums.
    fn vote(self: &Arc<Node>, from: NodeId, key: &Key, vote: &VoteRequest, respond: Respond) {
        let range = self.ring.range_at(Position::of(key.as_slice()));
        let own = self.ring.replicas_of_range(range).contains(&self.id);
        if !own && rules::holds(Rule::OwnKeysOnly) {
            error!(
                "{}: {from} wants a vote on {key:?}, which is not held here",
                self.id
            );
            return respond.reply(Reply::Abstain);
        }
        if !self.disk_keeps_up(key, vote) {
            return respond.reply(Reply::Abstain);
        }
        let node = self.clone();
        let proposed = vote.proposed().map(|ballot| (key.clone(), ballot));
        self.store.vote(key, vote, move |reply| {
            node.look_after(proposed, &reply, range);
            respond.reply(Reply::Vote(reply));
        });
    }

    /// A replica that refused to accept what was proposed for a key, since it had promised a higher
    /// ballot, may have missed what the others chose: it compares, once they have had the time,
    /// unless what it promised that ballot to has come meanwhile.
    pub(super) fn look_after(
        self: &Arc<Node>,
        proposed: Option<(Key, Ballot)>,
        reply: &VoteReply,
        range: usize,
    ) {
        if let (Some((key, ballot)), VoteReply::Rejected(_)) = (proposed, reply) {
            let node = self.clone();
            self.later(OTHERS_HAVE_IT, move || {
                if node.store.accepted(&key) < ballot {
                    node.anti_entropy.refused(&node.ring, range);
                }
            });
        }
    }
}
