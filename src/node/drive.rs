//! The loop that drives all requests of a node.
//!
//! The loop takes an [`Event`] and lets the rules of the origin or of the coordinator make one step. Then it
//! carries out the effects of that step. If this node has the answer to an effect itself, that answer is the
//! next event. The answer of another node is an event, too, and the thread that receives it runs the
//! loop.
//!
//! So no thread waits here for another node. A part is locked for the time of one step, and no effect is
//! carried out from inside another, but for one case: a link that cannot send a question says so at once,
//! and the loop runs for that with no lock held.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::Node;
use super::chaining::ChainEvent;
use super::strategy::Strategy;
use crate::bytes::Key;
use crate::error::Failure;
use crate::lock;
use crate::protocol::chain::epoch::Epoch;
use crate::protocol::origin::{self, Origin};
use crate::protocol::quorum::coordinator::{self, Coordinator};
use crate::protocol::ring::NodeId;
use crate::protocol::{Ballot, Change, Operation, Outcome, Seen, VoteReply, Why};
use crate::testing::faults::{self, Point};
use crate::transport::{self, Respond};

/// Gets a client's result. It runs exactly once, on any thread.
pub type OnResult = Box<dyn FnOnce(Result<Outcome, Failure>) + Send>;

/// Where a coordinator's answer goes.
pub enum ReplyTo {
    /// To the node that forwarded the request.
    Peer(Respond),
    /// To this node's own origin.
    Origin(origin::Ticket),
    /// To anti-entropy, which asked for a refresh.
    AntiEntropy(Sender<()>),
}

/// The events that follow from the present one, in order.
pub(super) type Events = VecDeque<Event>;

/// Something that happens to a request.
pub(super) enum Event {
    /// A client wants to change a key, or to read it. The deadline counts from when it `came`.
    Submitted {
        came: Duration,
        key: Key,
        change: Option<Change>,
        on_result: OnResult,
    },
    /// A coordinator has answered this node's origin, or has not answered in time.
    Answered {
        ticket: origin::Ticket,
        from: NodeId,
        answer: origin::Answer,
    },
    /// The time of an [`origin::Effect::WakeLater`] has come.
    OriginWoken { request: u64 },
    /// Time has passed, and with it perhaps deadlines.
    Ticked,
    /// This node is asked to coordinate. `seen` is the vote of a replica that forwarded a read.
    Coordinate {
        reply_to: ReplyTo,
        key: Key,
        operation: Operation,
        seen: Option<(NodeId, Seen)>,
        vouched: Option<Epoch>,
    },
    /// A replica has answered this node's coordinator. There is no vote if it abstained or did not answer in
    /// time.
    Voted {
        ticket: coordinator::Ticket,
        from: NodeId,
        vote: Option<VoteReply>,
    },
    /// The time of a [`coordinator::Effect::WakeLater`] has come.
    CoordinatorWoken { request: u64 },
    /// A replica has lost its votes, and none of them may be counted any more.
    VotesLost,
    /// This node has the outcome of a request that it carried out for somebody.
    Outcome { reply_to: ReplyTo, outcome: Outcome },
    /// Something happens to a chain.
    Chain(ChainEvent),
}

impl Node {
    /// Starts a client's request for one key, which is a write if it has a `change` and a read otherwise.
    /// `on_result` runs exactly once, on any thread. A large value waits here for its turn, for at most
    /// half of the request deadline.
    pub fn submit(self: &Arc<Node>, key: Key, change: Option<Change>, on_result: OnResult) {
        let came = self.began.elapsed();
        if let Some(on_result) = self.admit(change.as_ref(), on_result) {
            self.run(Event::Submitted {
                came,
                key,
                change,
                on_result,
            });
        }
    }

    /// Starts a request of this node itself. [`await_outcome`] waits for its end.
    pub(super) fn begin(
        self: &Arc<Node>,
        key: Key,
        change: Option<Change>,
    ) -> Receiver<Result<Outcome, Failure>> {
        let (sender, result) = bounded(1);
        let on_result = move |result| drop(sender.send(result));
        self.submit(key, change, Box::new(on_result));
        result
    }

    /// Handles an event and all events that follow from it on this node. All messages go out in one batch.
    pub(super) fn run(self: &Arc<Node>, first: Event) {
        transport::batch(|| {
            let mut events = Events::from([first]);
            while let Some(event) = events.pop_front() {
                self.step(event, &mut events);
            }
        });
    }

    /// Makes one step of the rules that the event concerns, and carries out what it wants done. Answers that
    /// this node has at once are added to `events`.
    fn step(self: &Arc<Node>, event: Event, events: &mut Events) {
        let (now, suspects) = (self.began.elapsed(), || self.peers.suspects());
        match event {
            Event::Submitted {
                came,
                key,
                change,
                on_result,
            } => {
                self.step_origin(events, |origin, effects| {
                    origin.submit(on_result, key, change, came, &suspects(), effects);
                });
                self.reserve_more_numbers();
            }
            Event::Answered {
                ticket,
                from,
                answer,
            } => self.step_origin(events, |origin, effects| {
                origin.answer(ticket, from, answer, &suspects(), effects);
            }),
            Event::OriginWoken { request } => self.step_origin(events, |origin, effects| {
                origin.wake(request, &suspects(), effects);
            }),
            Event::Ticked => self.step_origin(events, |origin, effects| {
                origin.expire(now, &suspects(), effects);
            }),
            Event::Coordinate {
                reply_to,
                key,
                operation,
                seen,
                vouched,
            } => self.coordinate(reply_to, key, operation, (seen, vouched), events),
            Event::Outcome { reply_to, outcome } => self.answer(reply_to, outcome, events),
            Event::Chain(event) => self.step_chain(event, events),
            Event::Voted { ticket, from, vote } => {
                match vote {
                    Some(VoteReply::Promised(_)) => faults::pass(Point::PromiseHeard),
                    Some(VoteReply::Taken) => faults::pass(Point::AcceptHeard),
                    _ => {}
                }
                self.step_coordinator(events, |coordinator, effects| {
                    coordinator.reply(ticket, from, vote, effects);
                });
            }
            Event::CoordinatorWoken { request } => {
                self.step_coordinator(events, |coordinator, effects| {
                    coordinator.wake(request, effects);
                });
            }
            Event::VotesLost => self.step_coordinator(events, Coordinator::abandon),
        }
    }

    fn step_origin(
        self: &Arc<Node>,
        events: &mut Events,
        step: impl FnOnce(&mut Origin<OnResult>, &mut Vec<origin::Effect<OnResult>>),
    ) {
        let mut effects = Vec::new();
        step(&mut lock(&self.origin), &mut effects);
        for effect in effects {
            self.carry_out_for_origin(effect, events);
        }
    }

    fn step_coordinator(
        self: &Arc<Node>,
        events: &mut Events,
        step: impl FnOnce(&mut Coordinator<ReplyTo>, &mut Vec<coordinator::Effect<ReplyTo>>),
    ) {
        let Strategy::Quorum(coordinator) = &self.strategy else {
            return;
        };
        let mut effects = Vec::new();
        step(&mut lock(coordinator), &mut effects);
        for effect in effects {
            self.carry_out_for_coordinator(effect, events);
        }
    }

    /// Starts a request as its coordinator, unless this node may not vote or a replica has no capacity
    /// for it.
    fn coordinate(
        self: &Arc<Node>,
        reply_to: ReplyTo,
        key: Key,
        operation: Operation,
        (seen, vouched): (Option<(NodeId, Seen)>, Option<Epoch>),
        events: &mut Events,
    ) {
        let why_not = if self.votes() {
            self.full_replica(&key, &operation).map(Why::Full)
        } else {
            Some(Why::Recovering)
        };
        if let Some(why) = why_not {
            return self.answer(reply_to, Outcome::not_done(why), events);
        }
        if self.strategy.chain().is_some() {
            let requested = ChainEvent::Requested {
                reply_to,
                key,
                operation,
                vouched,
            };
            return self.step_chain(requested, events);
        }
        let promised = match operation {
            Operation::Get => Ballot::ZERO,
            Operation::Write { .. } | Operation::Refresh => self.store.promised(&key),
        };
        // A forwarded vote that differs from this node's own decides nothing, so all replicas are asked.
        let agrees = |seen: &Seen| seen.ballot == self.store.accepted(&key);
        let seen = seen.filter(|(_, seen)| agrees(seen));
        self.step_coordinator(events, |coordinator, effects| {
            coordinator.request(reply_to, key, operation, promised, seen, effects);
        });
    }
}

/// Waits for the end of a request that [`Node::begin`] started.
pub(super) fn await_outcome(
    result: &Receiver<Result<Outcome, Failure>>,
) -> Result<Outcome, Failure> {
    let ended = |_| Failure::Unavailable("the node is ending".to_owned());
    result.recv().map_err(ended)?
}
