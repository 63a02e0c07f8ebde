//! The replica's part: answers the questions of other nodes, and never waits for any.

use std::sync::Arc;
use std::time::Duration;

use log::error;

use super::Node;
use super::drive::{Event, ReplyTo};
use super::recognition::Joining;
use crate::bytes::Key;
use crate::protocol::ring::{NodeId, Position};
use crate::protocol::{Ballot, Seen, VoteReply, VoteRequest};
use crate::testing::rules::{self, Rule};
use crate::transport::{Reply, Request, Respond, Service};

/// What is accepted at all is accepted everywhere by then.
pub(super) const OTHERS_HAVE_IT: Duration = Duration::from_millis(50);

/// What becomes of a question for this node's vote.
pub(super) enum Cast {
    /// It is durable already.
    Now(VoteReply),
    /// It is told once it is durable.
    Later,
    /// There is none: this node may not vote now, or not on this key.
    Abstained,
}

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
                self.introductions.queue(joining);
            }
            Request::Full(full) => self.capacity.heard(from, full),
            // What this node holds may not be all that it once held: it has no say in anything.
            _ if !self.votes() => respond.reply(Reply::Abstain),
            Request::Vote { key, vote } => {
                let later = respond.clone();
                match self.cast_vote(from, &key, &vote, |vote| later.reply(Reply::Vote(vote))) {
                    Cast::Now(vote) => respond.reply(Reply::Vote(vote)),
                    Cast::Abstained => respond.reply(Reply::Abstain),
                    Cast::Later => {}
                }
            }
            Request::Coordinate {
                key,
                operation,
                seen,
            } => self.run(Event::Forwarded {
                reply_to: ReplyTo::Peer(respond),
                key,
                operation,
                seen: seen.map(|seen| (from, seen)),
            }),
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
    fn disk_keeps_up(&self, key: &Key, vote: &VoteRequest) -> bool {
        let disk_keeps_up = match vote {
            VoteRequest::Read { .. } => self.store.may_wait() || self.store.seen(key).is_some(),
            VoteRequest::Prepare(_) | VoteRequest::Accept(_) => self.store.disk_keeps_up(),
        };
        if !disk_keeps_up && matches!(vote, VoteRequest::Accept(_)) {
            self.anti_entropy.doubt_all(&self.ring);
        }
        disk_keeps_up
    }

    /// Votes on a key, which `from` asks for: the only door to the store's votes. Runs `later` with the
    /// vote once it is durable, unless it is so at once.
    pub(super) fn cast_vote(
        self: &Arc<Node>,
        from: NodeId,
        key: &Key,
        request: &VoteRequest,
        later: impl FnOnce(VoteReply) + Send + 'static,
    ) -> Cast {
        // What this node holds may not be all that it once held.
        if !self.votes() {
            return Cast::Abstained;
        }
        // A vote from elsewhere breaks the overlap of quorums.
        let own = self.ring.preference_list(key).contains(&self.id);
        if !own && rules::holds(Rule::OwnKeysOnly) {
            error!(
                "{}: {from} asks for a vote on {key:?}, which this node does not hold: the cluster files may differ",
                self.id
            );
            return Cast::Abstained;
        }
        if !self.disk_keeps_up(key, request) {
            return Cast::Abstained;
        }
        let vote = self.store.vote(key, request, later);
        if let Some(ballot) = request.proposed()
            && self.store.accepted(key) < ballot
        {
            self.look_after_refusal(key.clone(), ballot);
        }
        vote.map_or(Cast::Later, Cast::Now)
    }

    /// A replica that refused what was proposed for a key, since it had promised a higher ballot, may have
    /// missed what the others chose. It compares, once they have had the time, unless what it promised
    /// that ballot to has come meanwhile.
    fn look_after_refusal(self: &Arc<Node>, key: Key, ballot: Ballot) {
        let node = self.clone();
        self.after(OTHERS_HAVE_IT, move || {
            if node.store.accepted(&key) < ballot {
                let range = node.ring.range_at(Position::of(key.as_slice()));
                node.anti_entropy.refused(&node.ring, range);
            }
        });
    }
}
