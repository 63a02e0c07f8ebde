//! Carries out the effects of the origin's and the coordinator's rules.

use std::sync::Arc;
use std::time::Duration;

use super::Node;
use super::chaining::outcome_of;
use super::drive::{Event, Events, OnResult, ReplyTo};
use super::replica::Cast;
use crate::bytes::Key;
use crate::protocol::quorum::coordinator;
use crate::protocol::ring::NodeId;
use crate::protocol::{Operation, Outcome, VoteReply, VoteRequest, origin};
use crate::testing::faults::{self, Point};
use crate::testing::messages::{self, Kind, Passage};
use crate::transport::link::Answer;
use crate::transport::{Reply, Request};

/// The longest wait before a refused proposal starts again, in milliseconds. The wait doubles with each
/// attempt up to this.
const LONGEST_BACKOFF: u64 = 64;
/// How long an origin waits before it tries all replicas once more, in milliseconds.
const NEXT_PASS: std::ops::Range<u64> = 10..30;

impl Node {
    /// Carries out one effect. If this node has an answer at once, it is added to `events`.
    pub(super) fn carry_out_for_origin(
        self: &Arc<Node>,
        effect: origin::Effect<OnResult>,
        events: &mut Events,
    ) {
        match effect {
            origin::Effect::Forward {
                to,
                ticket,
                key,
                operation,
            } => {
                if to != self.id {
                    self.stats.forwarded.add(1);
                    return self.forward(to, ticket, key, operation);
                }
                events.push_back(Event::Coordinate {
                    reply_to: ReplyTo::Origin(ticket),
                    key,
                    operation,
                    seen: None,
                    vouched: None,
                });
            }
            origin::Effect::Answer { handle, result } => handle(result),
            origin::Effect::WakeLater { request } => {
                let delay = Duration::from_millis(fastrand::u64(NEXT_PASS));
                self.later(delay, Event::OriginWoken { request });
            }
        }
    }

    pub(super) fn carry_out_for_coordinator(
        self: &Arc<Node>,
        effect: coordinator::Effect<ReplyTo>,
        events: &mut Events,
    ) {
        match effect {
            coordinator::Effect::Ask {
                to,
                ticket,
                key,
                request,
            } => {
                for replica in to {
                    let vote = match self.ask_replica(replica, ticket, &key, &request) {
                        Cast::Now(vote) => Some(vote),
                        Cast::Abstained => None,
                        Cast::Later => continue,
                    };
                    let from = replica;
                    events.push_back(Event::Voted { ticket, from, vote });
                }
            }
            coordinator::Effect::Repair { to, key, accepted } => {
                self.stats.read_repairs.add(1);
                let vote = VoteRequest::Accept(accepted);
                if to == self.id {
                    // Nobody waits for this vote.
                    self.cast_vote(self.id, &key, &vote, drop);
                } else {
                    self.peers[to].tell(Request::Vote { key, vote });
                }
            }
            coordinator::Effect::Answer { handle, outcome } => {
                self.answer(handle, outcome, events);
            }
            coordinator::Effect::WakeLater { request, attempt } => {
                let most = (1u64 << attempt.min(16)).min(LONGEST_BACKOFF);
                let delay = Duration::from_micros(fastrand::u64(500..=1000 * most));
                self.later(delay, Event::CoordinatorWoken { request });
            }
        }
    }

    /// Answers a request that this node has coordinated.
    pub(super) fn answer(&self, reply_to: ReplyTo, outcome: Outcome, events: &mut Events) {
        if let Outcome::Decided(_) = outcome {
            faults::pass(Point::Decided);
        }
        match reply_to {
            ReplyTo::Peer(respond) => {
                self.pass(Kind::Reply, move || respond.reply(Reply::Outcome(outcome)));
            }
            ReplyTo::AntiEntropy(sender) => drop(sender.send(())),
            ReplyTo::Origin(ticket) => events.push_back(Event::Answered {
                ticket,
                from: self.id,
                answer: origin::Answer::Outcome(outcome),
            }),
        }
    }

    /// Sends a request to its coordinator. With a read goes this node's own vote, so that the coordinator need
    /// not ask for it.
    fn forward(
        self: &Arc<Node>,
        to: NodeId,
        ticket: origin::Ticket,
        key: Key,
        operation: Operation,
    ) {
        let seen = match operation {
            Operation::Get if self.strategy.chain().is_none() => self.seen(&key),
            _ => None,
        };
        let request = Request::Coordinate {
            key,
            operation,
            seen,
            vouched: None,
        };
        let node = self.clone();
        self.peers[to].ask(request, move |answer| {
            let answer = outcome_of(answer);
            node.run(Event::Answered {
                ticket,
                from: to,
                answer,
            });
        });
    }

    /// Asks a replica for its vote, which may be this node's own.
    ///
    /// A suspect is not waited for: its failure has cost a time-out once, and must not cost one on every
    /// request. It is still sent each state to accept, so that it keeps up if it is alive.
    fn ask_replica(
        self: &Arc<Node>,
        from: NodeId,
        ticket: coordinator::Ticket,
        key: &Key,
        vote: &VoteRequest,
    ) -> Cast {
        let node = self.clone();
        let voted = move |vote: Option<VoteReply>| node.run(Event::Voted { ticket, from, vote });
        if from == self.id {
            let vote = vote.of_own_replica();
            return self.cast_vote(from, key, &vote, move |vote| voted(Some(vote)));
        }
        let link = &self.peers[from];
        let request = Request::Vote {
            key: key.clone(),
            vote: vote.clone(),
        };
        if link.suspect() {
            if matches!(vote, VoteRequest::Accept(_)) {
                link.tell(request);
            }
            return Cast::Abstained;
        }
        link.ask(request, move |answer| match answer {
            Answer::Reply(Reply::Vote(vote)) => voted(Some(vote)),
            _ => voted(None),
        });
        Cast::Later
    }

    /// Does at once what a message brings about, unless a test loses messages of its kind or holds them up.
    pub(super) fn pass(&self, kind: Kind, job: impl FnOnce() + Send + 'static) {
        match messages::passage(kind) {
            Passage::InTime => job(),
            Passage::Late(delay) => self.after(delay, job),
            Passage::Lost => {}
        }
    }

    /// Runs the loop with an event after a while, on the timer's thread.
    fn later(self: &Arc<Node>, delay: Duration, event: Event) {
        let node = self.clone();
        self.after(delay, move || node.run(event));
    }
}
