//! Carries out the effects of the chain's rules, beside those of the coordinator's.

use std::sync::Arc;

use log::{info, warn};

use super::Node;
use super::chain_comparison::Comparison;
use super::drive::{Event, Events, ReplyTo};
use crate::bytes::Key;
use crate::lock;
use crate::protocol::chain::epoch::Epoch;
use crate::protocol::chain::{Answer, Chain, Context, Effect, LogPlace, Question, Ticket};
use crate::protocol::ring::NodeId;
use crate::protocol::{Operation, Outcome, Why, origin};
use crate::testing::faults::{self, Point};
use crate::transport::link;
use crate::transport::{Reply, Request, Respond};

/// Something that happens to the chains of this node.
pub(super) enum ChainEvent {
    Requested {
        reply_to: ReplyTo,
        key: Key,
        operation: Operation,
        vouched: Option<Epoch>,
    },
    Asked {
        from: NodeId,
        range: usize,
        question: Question,
        respond: Respond,
    },
    /// A member has answered, or is silent.
    Answered {
        ticket: Ticket,
        answer: Option<Answer>,
    },
    /// The member whose part a request is has answered it, or not.
    Ended {
        ticket: Ticket,
        answer: origin::Answer,
    },
    /// All that other members hold is here, or not all of it could be had.
    Collected {
        range: usize,
        epoch: Epoch,
        whole: bool,
    },
    Ticked,
}

impl Node {
    /// Makes one step of the chain's rules, and carries out what it wants done.
    pub(super) fn step_chain(self: &Arc<Node>, event: ChainEvent, events: &mut Events) {
        let Some(chain) = self.strategy.chain() else {
            return; // With the other strategy there are none.
        };
        if let ChainEvent::Collected { .. } = event {
            faults::pass(Point::Collected);
        }
        let mut effects = Vec::new();
        let context = Context {
            replica: &mut &self.store,
            now: self.began.elapsed(),
            chance: fastrand::u64(..),
            suspects: &self.peers.suspects(),
            effects: &mut effects,
        };
        step(&mut lock(chain), event, context);
        for effect in effects {
            self.carry_out_for_chain(effect, events);
        }
    }

    fn carry_out_for_chain(self: &Arc<Node>, effect: Effect<ReplyTo>, events: &mut Events) {
        match effect {
            Effect::Ask {
                to,
                ticket,
                question,
                after,
            } => self.ask_once_durable(to, ticket, question, after),
            Effect::PassOn {
                to,
                ticket,
                key,
                operation,
                epoch,
            } => self.pass_on(to, ticket, key, operation, epoch),
            Effect::Tell {
                handle,
                answer,
                after,
            } => {
                let ReplyTo::Peer(respond) = handle else {
                    unreachable!("only peers ask about chains")
                };
                let tell = move || respond.reply(Reply::Chain(answer));
                self.store.when_durable_to(after, tell);
            }
            Effect::Answer {
                handle,
                outcome,
                after,
            } => self.answer_once_durable(handle, outcome, after, events),
            Effect::Collect {
                range,
                epoch,
                from,
                every_key,
            } => self.compare(Comparison::of_epoch(range, epoch, from, every_key)),
            Effect::CatchUp { range, since, from } => {
                self.compare(Comparison::to_catch_up(range, since, from));
            }
            Effect::Began { range, cause } => {
                self.stats.epochs.add(1);
                let owner = self.ring.replicas_of_range(range)[0];
                info!("range of {owner}: {cause}");
            }
            Effect::Disk { hangs: true } => {
                warn!("the disk hangs: this node serves no chain until it goes on");
            }
            Effect::Disk { hangs: false } => info!("the disk goes on"),
        }
    }

    fn answer_once_durable(
        self: &Arc<Node>,
        reply_to: ReplyTo,
        outcome: Outcome,
        after: LogPlace,
        events: &mut Events,
    ) {
        if self.store.is_durable(after) {
            return self.answer(reply_to, outcome, events);
        }
        let node = self.clone();
        let answer = move || node.run(Event::Outcome { reply_to, outcome });
        self.store.when_durable_to(after, answer);
    }

    fn ask_once_durable(
        self: &Arc<Node>,
        to: NodeId,
        ticket: Ticket,
        question: Question,
        after: LogPlace,
    ) {
        let node = self.clone();
        self.store.when_durable_to(after, move || {
            // The disk may have hung, and the chain gone on. A late question would stop it.
            if node.still_asks(ticket) {
                node.ask_member(to, ticket, question);
            }
        });
    }

    fn still_asks(&self, ticket: Ticket) -> bool {
        let chain = self.strategy.chain();
        chain.is_some_and(|chain| lock(chain).still_asks(ticket))
    }

    fn ask_member(self: &Arc<Node>, to: NodeId, ticket: Ticket, question: Question) {
        let (node, range) = (self.clone(), ticket.range);
        let point = point_of(&question);
        self.peers[to].ask(Request::Chain { range, question }, move |answer| {
            let answer = match answer {
                link::Answer::Reply(Reply::Chain(answer)) => Some(answer),
                _ => None,
            };
            if let (Some(point), Some(_)) = (point, &answer) {
                faults::pass(point);
            }
            node.run(Event::Chain(ChainEvent::Answered { ticket, answer }));
        });
    }

    fn pass_on(
        self: &Arc<Node>,
        to: NodeId,
        ticket: Ticket,
        key: Key,
        operation: Operation,
        epoch: Epoch,
    ) {
        let node = self.clone();
        let request = Request::Coordinate {
            key,
            operation,
            seen: None,
            vouched: Some(epoch),
        };
        self.peers[to].ask(request, move |answer| {
            let answer = match answer {
                // It is there and does nothing, so that the chain must go on without it.
                link::Answer::Reply(Reply::Abstain) => origin::Answer::Unreached,
                answer => outcome_of(answer),
            };
            node.run(Event::Chain(ChainEvent::Ended { ticket, answer }));
        });
    }
}

/// Where a process can be made to end once it has the answer to a question.
fn point_of(question: &Question) -> Option<Point> {
    match question {
        Question::Adopt(_) => Some(Point::AdoptHeard),
        Question::Give(_) => Some(Point::GiveHeard),
        Question::Pass { .. } => Some(Point::PassHeard),
        Question::Confirm(_) => Some(Point::ConfirmHeard),
        Question::Status | Question::Begin(_) | Question::Missed => None,
    }
}

/// What a node made of a request that was sent to it.
pub(super) fn outcome_of(answer: link::Answer) -> origin::Answer {
    match answer {
        link::Answer::Reply(Reply::Outcome(outcome)) => origin::Answer::Outcome(outcome),
        link::Answer::Reply(Reply::Abstain) => {
            origin::Answer::Outcome(Outcome::not_done(Why::Recovering))
        }
        link::Answer::Reply(_) | link::Answer::Silent => origin::Answer::Silent,
        link::Answer::Unreached => origin::Answer::Unreached,
    }
}

fn step(chain: &mut Chain<ReplyTo>, event: ChainEvent, mut context: Context<'_, ReplyTo>) {
    match event {
        ChainEvent::Requested {
            reply_to,
            key,
            operation,
            vouched,
        } => chain.request(reply_to, key, operation, vouched, context),
        ChainEvent::Asked {
            from,
            range,
            question,
            respond,
        } => chain.asked(ReplyTo::Peer(respond), from, range, question, context),
        ChainEvent::Answered { ticket, answer } => chain.reply(ticket, answer, context),
        ChainEvent::Ended { ticket, answer } => chain.outcome(ticket, answer, context),
        ChainEvent::Collected {
            range,
            epoch,
            whole,
        } => chain.collected(range, epoch, whole, context),
        ChainEvent::Ticked => chain.tick(&mut context),
    }
}
