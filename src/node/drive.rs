//! The loop: all that happens to a request goes through here.
//!
//! Something happens: an [`Event`]. The origin's or the coordinator's rules take a step. Carrying out an
//! effect of that step may be the next event at once, if this node has the answer itself. What another
//! node answers is an event of its own, and runs the loop on the thread that brings it.
//!
//! So no thread waits for another node here, each part is locked for one step alone, and no effect is
//! carried out from inside another.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::Node;
use crate::bytes::Key;
use crate::error::Failure;
use crate::lock;
use crate::protocol::origin::{self, Origin};
use crate::protocol::quorum::coordinator::{self, Coordinator};
use crate::protocol::ring::NodeId;
use crate::protocol::{Ballot, Change, Operation, Outcome, Seen, VoteReply, Why};
use crate::testing::faults::{self, Point};
use crate::transport::{self, Respond};

/// Gets a client's result; runs exactly once, on any thread.
pub type Ended = Box<dyn FnOnce(Result<Outcome, Failure>) + Send>;

/// Where a coordinator's answer goes.
pub enum ReplyTo {
    /// To another node, which forwarded the request.
    Peer(Respond),
    /// To this node's own origin.
    Origin(origin::Ticket),
    /// To anti-entropy, which wants the state chosen again.
    AntiEntropy(Sender<()>),
}

/// What happens to requests.
pub(super) enum Event {
    /// A client wants something of a key: to change it, or to read it.
    Submitted {
        key: Key,
        change: Option<Change>,
        ended: Ended,
    },
    /// A coordinator has answered this node's origin, or has not.
    Answered {
        ticket: origin::Ticket,
        from: NodeId,
        answer: origin::Answer,
    },
    /// The moment of an [`origin::Effect::WakeLater`] has passed.
    OriginWoken { request: u64 },
    /// Time has passed: deadlines may have.
    Ticked,
    /// This node is asked to coordinate. `seen` is the vote of a replica that forwards a read.
    Forwarded {
        reply_to: ReplyTo,
        key: Key,
        operation: Operation,
        seen: Option<(NodeId, Seen)>,
    },
    /// A replica has answered a question of the coordinator; none if it has not.
    Voted {
        ticket: coordinator::Ticket,
        from: NodeId,
        vote: Option<VoteReply>,
    },
    /// The moment of a [`coordinator::Effect::WakeLater`] has passed.
    CoordinatorWoken { request: u64 },
    /// A replica has lost its votes: what was counted on them is void.
    VotesLost,
}

/// What a step wants done.
pub(super) enum Effect {
    Origin(origin::Effect<Ended>),
    Coordinator(coordinator::Effect<ReplyTo>),
}

impl Node {
    /// Starts a client's request for one key: a write if it has a `change`, else a read. `ended` runs
    /// exactly once, on any thread. A large value waits here for its turn, for half of the time that a
    /// request may take.
    pub fn submit(self: &Arc<Node>, key: Key, change: Option<Change>, ended: Ended) {
        if let Some(ended) = self.admit(change.as_ref(), ended) {
            self.run(Event::Submitted { key, change, ended });
        }
    }

    /// Starts a request of this node itself; [`outcome`] waits for its end.
    pub(super) fn begin(
        self: &Arc<Node>,
        key: Key,
        change: Option<Change>,
    ) -> Receiver<Result<Outcome, Failure>> {
        let (sender, result) = bounded(1);
        let ended = move |result| drop(sender.send(result));
        self.submit(key, change, Box::new(ended));
        result
    }

    /// Takes an event, and all that follows from it here, to its end. What is sent meanwhile goes out in
    /// one batch.
    pub(super) fn run(self: &Arc<Node>, first: Event) {
        transport::batch(|| {
            let mut events = VecDeque::from([first]);
            while let Some(event) = events.pop_front() {
                for effect in self.step(event) {
                    self.carry_out(effect, &mut events);
                }
            }
        });
    }

    /// One step of the rules that the event concerns.
    fn step(self: &Arc<Node>, event: Event) -> Vec<Effect> {
        let (now, suspects) = (self.began.elapsed(), || self.peers.suspects());
        match event {
            Event::Submitted { key, change, ended } => {
                let submitted = self.origin(|origin, effects| {
                    origin.submit(ended, key, change, now, &suspects(), effects);
                });
                self.reserve_more_numbers();
                submitted
            }
            Event::Answered {
                ticket,
                from,
                answer,
            } => self.origin(|origin, effects| {
                origin.answer(ticket, from, answer, &suspects(), effects);
            }),
            Event::OriginWoken { request } => {
                self.origin(|origin, effects| origin.wake(request, &suspects(), effects))
            }
            Event::Ticked => {
                self.origin(|origin, effects| origin.expire(now, &suspects(), effects))
            }
            Event::Forwarded {
                reply_to,
                key,
                operation,
                seen,
            } => self.coordinate(reply_to, key, operation, seen),
            Event::Voted { ticket, from, vote } => {
                match vote {
                    Some(VoteReply::Promised(_)) => faults::pass(Point::PromiseHeard),
                    Some(VoteReply::Taken) => faults::pass(Point::AcceptHeard),
                    _ => {}
                }
                self.coordinator(|coordinator, effects| {
                    coordinator.reply(ticket, from, vote, effects);
                })
            }
            Event::CoordinatorWoken { request } => {
                self.coordinator(|coordinator, effects| coordinator.wake(request, effects))
            }
            Event::VotesLost => self.coordinator(Coordinator::abandon),
        }
    }

    fn origin(
        &self,
        step: impl FnOnce(&mut Origin<Ended>, &mut Vec<origin::Effect<Ended>>),
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        step(&mut lock(&self.origin), &mut effects);
        effects.into_iter().map(Effect::Origin).collect()
    }

    fn coordinator(
        &self,
        step: impl FnOnce(&mut Coordinator<ReplyTo>, &mut Vec<coordinator::Effect<ReplyTo>>),
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        step(&mut lock(&self.coordinator), &mut effects);
        effects.into_iter().map(Effect::Coordinator).collect()
    }

    /// Takes up a request as the coordinator of its key, unless this node must not or a replica has no
    /// room for it.
    fn coordinate(
        &self,
        reply_to: ReplyTo,
        key: Key,
        operation: Operation,
        seen: Option<(NodeId, Seen)>,
    ) -> Vec<Effect> {
        let refusal = if self.votes() {
            self.full_replica(&key, &operation).map(Why::Full)
        } else {
            Some(Why::Recovering)
        };
        if let Some(why) = refusal {
            return vec![Effect::Coordinator(coordinator::Effect::Answer {
                handle: reply_to,
                outcome: Outcome::not_done(why),
            })];
        }
        let promised = match operation {
            Operation::Get => Ballot::ZERO,
            Operation::Write { .. } | Operation::Refresh => self.store.promised(&key),
        };
        // One that disagrees with the own vote decides nothing: then all are asked as usual.
        let agrees = |seen: &Seen| seen.ballot == self.store.accepted(&key);
        let seen = seen.filter(|(_, seen)| agrees(seen));
        self.coordinator(|coordinator, effects| {
            coordinator.request(reply_to, key, operation, promised, seen, effects);
        })
    }
}

/// How a request ends that was [begun](Node::begin).
pub(super) fn outcome(result: &Receiver<Result<Outcome, Failure>>) -> Result<Outcome, Failure> {
    let ended = |_| Failure::Unavailable("the node is ending".to_owned());
    result.recv().map_err(ended)?
}
