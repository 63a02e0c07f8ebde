//! The replica: answers the questions of other nodes without waiting for any of them. All votes of this node
//! go through [`Node::cast_vote`].

use std::sync::Arc;
use std::time::Duration;

use log::error;

use super::Node;
use super::chaining::ChainEvent;
use super::drive::{Event, ReplyTo};
use crate::bytes::Key;
use crate::lock;
use crate::protocol::chain::Chain;
use crate::protocol::chain::epoch::Epoch;
use crate::protocol::ring::{NodeId, Position};
use crate::protocol::{Accepted, Ballot, Seen, VoteReply, VoteRequest};
use crate::storage::{Page, Within};
use crate::testing::messages::Kind;
use crate::testing::rules::{self, Rule};
use crate::transport::{Reply, Request, Respond, Service};

/// How long after a proposal every replica that can be reached has usually accepted it.
pub(super) const OTHERS_HAVE_IT: Duration = Duration::from_millis(50);

/// What came of a question for a vote.
pub(super) enum Cast {
    /// The vote, which is durable already.
    Now(VoteReply),
    /// The vote comes later.
    Later,
    /// There is no vote.
    Abstained,
}

impl Service for Node {
    fn serve(self: Arc<Self>, from: NodeId, request: Request, respond: Respond) {
        match request {
            Request::Ping => respond.reply(Reply::Pong(self.store.positions().1)),
            Request::Join(join) => self.introductions.queue(from, join, respond),
            Request::Full(full) => self.capacity.heard(from, full),
            Request::Said { group, messages } => {
                let node = self.clone();
                self.pass(Kind::Push, move || node.hear(&group, messages));
            }
            Request::Members(group) => respond.reply(Reply::Members(self.groups.members(&group))),
            // This node may have forgotten votes, so nothing that it holds may count.
            _ if !self.votes() => respond.reply(Reply::Abstain),
            Request::Vote { key, vote } => self.answer_with_vote(from, &key, &vote, respond),
            Request::Coordinate {
                key,
                operation,
                seen,
                vouched,
            } => self.run(Event::Coordinate {
                reply_to: ReplyTo::Peer(respond),
                key,
                operation,
                seen: seen.map(|seen| (from, seen)),
                vouched,
            }),
            Request::Chain { range, question } => {
                self.run(Event::Chain(ChainEvent::Asked {
                    from,
                    range,
                    question,
                    respond,
                }));
            }
            Request::Digests { range, within } => {
                let chain = self.strategy.chain().map(lock);
                let reply = if self.is_within(chain.as_deref(), range, within) {
                    Reply::Digests(self.store.digests(range))
                } else {
                    Reply::Abstain
                };
                drop(chain);
                respond.reply(reply);
            }
            // The peer asks again later.
            Request::Tombstones { .. } | Request::Scan(_) | Request::States { .. }
                if !self.store.pages_may_wait() =>
            {
                respond.reply(Reply::Abstain);
            }
            Request::Tombstones { tombstones, epoch } => {
                let serves = epoch.is_none_or(|epoch| self.serves_whole(&tombstones, epoch));
                let reply = move |held: Vec<bool>| {
                    let held = held.into_iter().map(|held| held && serves).collect();
                    respond.reply(Reply::Held(held));
                };
                self.store.hold_tombstones(&tombstones, reply);
            }
            Request::Drop(dropped) => drop(self.drop_tombstones(dropped)),
            Request::Scan(scan) => {
                self.answer_with_page(scan.range, scan.within, respond, |reply| {
                    self.store.scan(&scan, reply);
                })
            }
            Request::States {
                range,
                keys,
                within,
            } => self.answer_with_page(range, Some(within), respond, |reply| {
                self.store.states(&keys, reply);
            }),
        }
    }
}

impl Node {
    fn answer_with_vote(
        self: &Arc<Node>,
        from: NodeId,
        key: &Key,
        request: &VoteRequest,
        respond: Respond,
    ) {
        let later = respond.clone();
        match self.cast_vote(from, key, request, move |vote| {
            later.reply(Reply::Vote(vote))
        }) {
            Cast::Now(vote) => respond.reply(Reply::Vote(vote)),
            Cast::Abstained => respond.reply(Reply::Abstain),
            Cast::Later => {}
        }
    }

    /// This node's vote on a read, if this node is a replica of the key and the vote is durable already.
    pub(super) fn seen(&self, key: &Key) -> Option<Seen> {
        let votes = self.votes() && self.ring.preference_list(key).contains(&self.id);
        votes.then(|| self.store.seen(key))?
    }

    /// Answers with a page, if this node may be compared with. The chain cannot change while the page is read.
    fn answer_with_page(
        &self,
        range: usize,
        within: Option<Within>,
        respond: Respond,
        read: impl FnOnce(Box<dyn FnOnce(Page) + Send>),
    ) {
        let chain = self.strategy.chain().map(lock);
        if !self.is_within(chain.as_deref(), range, within) {
            return respond.reply(Reply::Abstain);
        }
        read(Box::new(move |page| respond.reply(Reply::Page(page))));
    }

    /// Whether this node may be compared with: the range is one of the ring, and in a chain this node is what the
    /// other one needs.
    fn is_within(
        &self,
        chain: Option<&Chain<ReplyTo>>,
        range: usize,
        within: Option<Within>,
    ) -> bool {
        let takes_part = |within| {
            chain.is_some_and(|chain| match within {
                Within::Epoch(epoch) => chain.takes_part(range, epoch),
                Within::Serving => chain.status(range).is_some_and(|status| status.serves),
            })
        };
        range < self.ring.members().len() && within.is_none_or(takes_part)
    }

    /// Whether this node serves this epoch of all replicas, of the range of these tombstones.
    fn serves_whole(&self, tombstones: &[(Key, Accepted)], epoch: Epoch) -> bool {
        let Some(chain) = self.strategy.chain().map(lock) else {
            return false;
        };
        tombstones.iter().all(|(key, _)| {
            let range = self.ring.range_at(Position::of_key(key));
            chain.whole_epoch(range) == Some(epoch)
        })
    }

    /// Drops tombstones, but for those of a chain that is just beginning. Returns which it has dropped.
    pub(super) fn drop_tombstones(&self, mut dropped: Vec<(Key, Ballot)>) -> Vec<(Key, Ballot)> {
        let chain = self.strategy.chain().map(lock);
        if let Some(chain) = &chain {
            dropped.retain(|(key, _)| chain.may_drop(self.ring.range_at(Position::of_key(key))));
        }
        self.store.drop_tombstones(&dropped);
        dropped
    }

    /// Whether the disk can take one more vote. If it is slower than the disks of the other replicas, nothing
    /// else slows requests down: the two others decide, and this disk's backlog would grow without
    /// bound. A state that is not accepted here is missed, as if this node had been away.
    fn disk_keeps_up(&self, key: &Key, vote: &VoteRequest) -> bool {
        let disk_keeps_up = match vote {
            VoteRequest::Read { .. } => self.store.may_wait() || self.store.seen(key).is_some(),
            VoteRequest::Prepare(_) | VoteRequest::Accept(_) => self.store.disk_keeps_up(),
        };
        if !disk_keeps_up && matches!(vote, VoteRequest::Accept(_)) {
            self.anti_entropy.doubt_all();
        }
        disk_keeps_up
    }

    /// Votes on a key at the request of `from`. This is the only door to the store's votes. It checks that
    /// this node may vote, on this key, now. If the vote is not durable yet, `later` gets it once it is.
    pub(super) fn cast_vote(
        self: &Arc<Node>,
        from: NodeId,
        key: &Key,
        request: &VoteRequest,
        later: impl FnOnce(VoteReply) + Send + 'static,
    ) -> Cast {
        // Invariant 7: a node that may have forgotten votes does not vote.
        if !self.votes() {
            return Cast::Abstained;
        }
        // Invariant 7: a node outside of the preference list does not vote. Quorums would not overlap.
        let own = self.ring.preference_list(key).contains(&self.id);
        if !own && rules::holds(Rule::OwnKeysOnly) {
            error!(
                "{from} asks for a vote on {key:?}, which this node does not hold: the cluster files may differ"
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
            self.look_after_rejection(key.clone(), ballot);
        }
        vote.map_or(Cast::Later, Cast::Now)
    }

    /// Looks after a refusal. This replica refused a proposal because it had promised a higher ballot, and
    /// the others may have chosen it. If no state of at least this ballot arrives soon, the range is
    /// compared.
    fn look_after_rejection(self: &Arc<Node>, key: Key, ballot: Ballot) {
        let node = self.clone();
        self.after(OTHERS_HAVE_IT, move || {
            if node.store.accepted(&key) < ballot {
                let range = node.ring.range_at(Position::of_key(&key));
                node.anti_entropy.refused(range);
            }
        });
    }
}
