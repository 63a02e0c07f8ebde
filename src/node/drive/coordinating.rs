//! Carries out what the coordinator wants: asks replicas, and answers origins.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::bytes::Key;
use crate::lock;
use crate::node::{Node, ReplyTo};
use crate::protocol::origin;
use crate::protocol::quorum::coordinator::{Effect, Ticket};
use crate::protocol::ring::NodeId;
use crate::protocol::{Ballot, Operation, Outcome, Seen, VoteReply, VoteRequest, Why};
use crate::testing::faults::{self, Point};
use crate::transport::link::Answer;
use crate::transport::{Reply, Request};

/// The longest wait before a proposal that was outrun starts again, in milliseconds: attempt
/// after attempt it doubles up to this.
const LONGEST_BACKOFF: u64 = 64;

impl Node {
    /// Takes up a request as its coordinator; `seen` is what a replica that sent it has told. To be
    /// [turned away](Node::turn_away) first where there is no room for it.
    pub(in crate::node) fn coordinate(
        self: &Arc<Node>,
        origin: ReplyTo,
        key: Key,
        operation: Operation,
        seen: Option<(NodeId, Seen)>,
    ) {
        if !self.votes() {
            return self.tell(origin, Outcome::not_done(Why::Recovering));
        }
        let promised = match operation {
            Operation::Get => Ballot::ZERO,
            Operation::Write { .. } | Operation::Refresh => self.store.promised(&key),
        };
        // One that disagrees with the own vote decides nothing: then all are asked as usual.
        let agrees = |seen: &Seen| seen.ballot == self.store.accepted(&key);
        let seen = seen.filter(|(_, seen)| agrees(seen));
        let mut effects = Vec::new();
        lock(&self.coordinator).request(origin, key, operation, promised, seen, &mut effects);
        self.carry_out(effects);
    }

    /// Ends all that this node coordinates: a replica has lost what it voted.
    pub(in crate::node) fn abandon_coordinated(self: &Arc<Node>) {
        let mut effects = Vec::new();
        lock(&self.coordinator).abandon(&mut effects);
        self.carry_out(effects);
    }

    fn carry_out(self: &Arc<Node>, effects: Vec<Effect<ReplyTo>>) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Ask {
                    to,
                    ticket,
                    key,
                    range,
                    request: vote,
                } => {
                    let asked = if to == self.id {
                        self.ask_own_replica(ticket, &key, range, &vote)
                    } else {
                        self.ask_replica(to, ticket, Request::Vote { key, vote })
                    };
                    if !asked {
                        // With the request that ends so the next one of its key begins, which may
                        // end just so: one after the other, and not one within the other.
                        effects.extend(self.hear(ticket, to, None));
                    }
                }
                Effect::Repair { to, key, accepted } => {
                    self.stats.read_repairs.add(1);
                    let vote = VoteRequest::Accept(accepted);
                    if to != self.id {
                        self.links[&to].tell(Request::Vote { key, vote });
                    } else if self.disk_keeps_up(&key, &vote) {
                        self.store.vote(&key, &vote, |_| {});
                    }
                }
                Effect::Answer { handle, outcome } => self.tell(handle, outcome),
                Effect::WakeLater { request, attempt } => {
                    let most = (1u64 << attempt.min(16)).min(LONGEST_BACKOFF);
                    let delay = Duration::from_micros(fastrand::u64(500..=1000 * most));
                    let node = self.clone();
                    self.later(delay, move || {
                        let mut effects = Vec::new();
                        lock(&node.coordinator).wake(request, &mut effects);
                        node.carry_out(effects);
                    });
                }
            }
        }
    }

    fn tell(self: &Arc<Node>, origin: ReplyTo, outcome: Outcome) {
        if let Outcome::Decided(_) = outcome {
            faults::pass(Point::Decided);
        }
        match origin {
            ReplyTo::Peer(respond) => respond.reply(Reply::Outcome(outcome)),
            ReplyTo::Origin(ticket) => {
                self.answered(ticket, self.id, origin::Answer::Outcome(outcome));
            }
            ReplyTo::AntiEntropy(sender) => drop(sender.send(())),
        }
    }

    /// False if this node's own replica has no vote to give.
    fn ask_own_replica(
        self: &Arc<Node>,
        ticket: Ticket,
        key: &Key,
        range: usize,
        request: &VoteRequest,
    ) -> bool {
        if !self.disk_keeps_up(key, request) {
            return false;
        }
        let node = self.clone();
        let proposed = request.proposed().map(|ballot| (key.clone(), ballot));
        self.store.vote(key, request, move |vote| {
            node.look_after(proposed, &vote, range);
            node.voted(ticket, node.id, Some(vote));
        });
        true
    }

    /// Asks another replica; false if it is a suspect. It is told what it would have to take, so
    /// that it keeps up if it is there, but not waited for: its failure has cost a time-out once, and
    /// does not again on every request.
    fn ask_replica(self: &Arc<Node>, to: NodeId, ticket: Ticket, request: Request) -> bool {
        let link = &self.links[&to];
        if link.suspect() {
            if request.is_accept() {
                link.tell(request);
            }
            return false;
        }
        let node = self.clone();
        link.ask(request, move |answer| {
            let vote = match answer {
                Answer::Reply(Reply::Vote(vote)) => Some(vote),
                _ => None,
            };
            node.voted(ticket, to, vote);
        });
        true
    }

    fn voted(self: &Arc<Node>, ticket: Ticket, from: NodeId, vote: Option<VoteReply>) {
        let effects = self.hear(ticket, from, vote);
        self.carry_out(effects);
    }

    /// Lets the coordinator hear a vote, or that there is none.
    fn hear(&self, ticket: Ticket, from: NodeId, vote: Option<VoteReply>) -> Vec<Effect<ReplyTo>> {
        match vote {
            Some(VoteReply::Promised(_)) => faults::pass(Point::PromiseHeard),
            Some(VoteReply::Taken) => faults::pass(Point::AcceptHeard),
            _ => {}
        }
        let mut effects = Vec::new();
        lock(&self.coordinator).reply(ticket, from, vote, &mut effects);
        effects
    }
}
