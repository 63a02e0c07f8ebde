//! Carries out what the rules of the origin and of the coordinator want done.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Node;
use super::drive::{Effect, Ended, Event, ReplyTo};
use super::replica::Cast;
use crate::bytes::Key;
use crate::protocol::quorum::coordinator;
use crate::protocol::ring::NodeId;
use crate::protocol::{Operation, Outcome, VoteRequest, Why, origin};
use crate::testing::faults::{self, Point};
use crate::transport::link::Answer;
use crate::transport::{Reply, Request};

/// The longest wait before a proposal that was outrun starts again, in milliseconds: attempt
/// after attempt it doubles up to this.
const LONGEST_BACKOFF: u64 = 64;
/// How long an origin waits before it tries all replicas once more, in milliseconds.
const NEXT_PASS: std::ops::Range<u64> = 10..30;

impl Node {
    /// Carries out one effect. What it leads to here at once is added to `events`.
    pub(super) fn carry_out(self: &Arc<Node>, effect: Effect, events: &mut VecDeque<Event>) {
        match effect {
            Effect::Origin(effect) => self.carry_out_for_origin(effect, events),
            Effect::Coordinator(effect) => self.carry_out_for_coordinator(effect, events),
        }
    }

    fn carry_out_for_origin(
        self: &Arc<Node>,
        effect: origin::Effect<Ended>,
        events: &mut VecDeque<Event>,
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
                events.push_back(Event::Forwarded {
                    reply_to: ReplyTo::Origin(ticket),
                    key,
                    operation,
                    seen: None,
                });
            }
            origin::Effect::Answer { handle, result } => handle(result),
            origin::Effect::WakeLater { request } => {
                let delay = Duration::from_millis(fastrand::u64(NEXT_PASS));
                self.later(delay, Event::OriginWoken { request });
            }
        }
    }

    fn carry_out_for_coordinator(
        self: &Arc<Node>,
        effect: coordinator::Effect<ReplyTo>,
        events: &mut VecDeque<Event>,
    ) {
        match effect {
            coordinator::Effect::Ask {
                to,
                ticket,
                key,
                request,
            } => {
                for from in to {
                    let cast = if from == self.id {
                        self.ask_own_replica(ticket, &key, &request.of_own_replica())
                    } else {
                        self.ask_replica(from, ticket, &key, &request)
                    };
                    let vote = match cast {
                        Cast::Now(vote) => Some(vote),
                        Cast::Abstained => None,
                        Cast::Later => continue,
                    };
                    events.push_back(Event::Voted { ticket, from, vote });
                }
            }
            coordinator::Effect::Repair { to, key, accepted } => {
                self.stats.read_repairs.add(1);
                let vote = VoteRequest::Accept(accepted);
                if to == self.id {
                    self.cast_vote(self.id, &key, &vote, drop);
                } else {
                    self.peers[to].tell(Request::Vote { key, vote });
                }
            }
            coordinator::Effect::Answer { handle, outcome } => {
                if let Outcome::Decided(_) = outcome {
                    faults::pass(Point::Decided);
                }
                match handle {
                    ReplyTo::Peer(respond) => respond.reply(Reply::Outcome(outcome)),
                    ReplyTo::AntiEntropy(sender) => drop(sender.send(())),
                    ReplyTo::Origin(ticket) => events.push_back(Event::Answered {
                        ticket,
                        from: self.id,
                        answer: origin::Answer::Outcome(outcome),
                    }),
                }
            }
            coordinator::Effect::WakeLater { request, attempt } => {
                let most = (1u64 << attempt.min(16)).min(LONGEST_BACKOFF);
                let delay = Duration::from_micros(fastrand::u64(500..=1000 * most));
                self.later(delay, Event::CoordinatorWoken { request });
            }
        }
    }

    /// Sends a request to its coordinator. A read takes along what this node would answer it itself.
    fn forward(
        self: &Arc<Node>,
        to: NodeId,
        ticket: origin::Ticket,
        key: Key,
        operation: Operation,
    ) {
        let seen = match operation {
            Operation::Get => self.seen(&key),
            Operation::Write { .. } | Operation::Refresh => None,
        };
        let request = Request::Coordinate {
            key,
            operation,
            seen,
        };
        let node = self.clone();
        self.peers[to].ask(request, move |answer| {
            let answer = match answer {
                Answer::Reply(Reply::Outcome(outcome)) => origin::Answer::Outcome(outcome),
                Answer::Reply(Reply::Abstain) => {
                    origin::Answer::Outcome(Outcome::not_done(Why::Recovering))
                }
                Answer::Reply(_) | Answer::Silent => origin::Answer::Silent,
                Answer::Unreached => origin::Answer::Unreached,
            };
            node.run(Event::Answered {
                ticket,
                from: to,
                answer,
            });
        });
    }

    fn ask_own_replica(
        self: &Arc<Node>,
        ticket: coordinator::Ticket,
        key: &Key,
        request: &VoteRequest,
    ) -> Cast {
        let node = self.clone();
        self.cast_vote(self.id, key, request, move |vote| {
            node.run(Event::Voted {
                ticket,
                from: node.id,
                vote: Some(vote),
            });
        })
    }

    /// Asks another replica. A suspect is told what it would have to take, so that it keeps up if it is
    /// there. It is not waited for: its failure has cost a time-out once, and does not again on every
    /// request.
    fn ask_replica(
        self: &Arc<Node>,
        to: NodeId,
        ticket: coordinator::Ticket,
        key: &Key,
        vote: &VoteRequest,
    ) -> Cast {
        let link = &self.peers[to];
        let request = Request::Vote {
            key: key.clone(),
            vote: vote.clone(),
        };
        if link.suspect() {
            if request.is_accept() {
                link.tell(request);
            }
            return Cast::Abstained;
        }
        let node = self.clone();
        link.ask(request, move |answer| {
            let vote = match answer {
                Answer::Reply(Reply::Vote(vote)) => Some(vote),
                _ => None,
            };
            node.run(Event::Voted {
                ticket,
                from: to,
                vote,
            });
        });
        Cast::Later
    }

    /// Runs the loop with an event after a while, on the timer's thread.
    fn later(self: &Arc<Node>, delay: Duration, event: Event) {
        let node = self.clone();
        self.after(delay, move || node.run(event));
    }
}
