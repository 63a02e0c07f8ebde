//! What a replica waits for after it has asked another one, and what it does once it hears, or does not.

use std::time::Duration;

use super::member::{Member, Request};
use super::reads::Read;
use super::requests::undecided;
use super::{Answer, Context, Effect, LogPlace, Question, Ticket};
use crate::protocol::ring::NodeId;
use crate::protocol::{Verdict, origin};

/// What this replica waits for after a question.
#[derive(Debug)]
pub(super) enum Waits<H> {
    /// The head has a state that all members behind it shall hold.
    Passed {
        request: Request<H>,
        verdict: Verdict,
    },
    /// Another member has passed a state on, and answers the one before it.
    Relayed(H),
    /// A request is at the member whose part it is.
    PassedOn {
        handle: H,
        /// Whether a state has absorbed it here.
        absorbed: bool,
    },
    /// The tail has the values of these reads.
    Confirmed {
        reads: Vec<Read<H>>,
        tried: Vec<NodeId>,
    },
    Status,
    /// The proposer.
    Adopted,
    Given,
    Begun,
}

#[derive(Debug)]
pub(super) struct Asked<H> {
    pub to: NodeId,
    pub at: Duration,
    pub waits: Waits<H>,
}

impl<H> Member<H> {
    /// Asks another replica, and notes what for.
    pub(super) fn ask(
        &mut self,
        to: NodeId,
        question: Question,
        after: LogPlace,
        waits: Waits<H>,
        context: &mut Context<'_, H>,
    ) {
        let ticket = self.ticket(to, waits, context);
        context.effects.push(Effect::Ask {
            to,
            ticket,
            question,
            after,
        });
    }

    pub(super) fn ticket(
        &mut self,
        to: NodeId,
        waits: Waits<H>,
        context: &Context<'_, H>,
    ) -> Ticket {
        self.last_number += 1;
        let (at, number) = (context.now, self.last_number);
        self.asked.insert(number, Asked { to, at, waits });
        Ticket {
            range: self.range,
            number,
        }
    }

    /// An answer, or none.
    pub(super) fn heard(
        &mut self,
        number: u64,
        answer: Option<Answer>,
        context: &mut Context<'_, H>,
    ) {
        let Some(asked) = self.asked.remove(&number) else {
            return; // It was given up, or belongs to an epoch that has ended here.
        };
        let done = answer == Some(Answer::Done);
        match asked.waits {
            waits @ (Waits::Passed { .. } | Waits::Relayed(_)) if done => {
                self.held_by_all(waits, 0, context);
            }
            waits @ (Waits::Passed { .. } | Waits::Relayed(_)) => {
                self.trouble(answer.is_some(), context);
                match waits {
                    Waits::Relayed(handle) if self.broken => self.stalled.push(handle),
                    waits => self.undo(waits, context),
                }
            }
            Waits::Confirmed { reads, tried } => self.confirmed(reads, tried, answer, context),
            Waits::Status => self.heard_status(asked.to, answer, context),
            Waits::Adopted => self.heard_adopted(asked.to, answer, context),
            Waits::Given => self.heard_given(asked.to, asked.at, answer, context),
            Waits::Begun | Waits::PassedOn { .. } => {}
        }
    }

    /// Takes back what waits for an answer that will not come, or not in this epoch. What clients asked of this
    /// replica waits for the next one; what was done for others ends.
    pub(super) fn undo(&mut self, waits: Waits<H>, context: &mut Context<'_, H>) {
        match waits {
            Waits::Passed { request, .. } => self.waiting.push(request),
            Waits::Confirmed { reads, .. } => {
                self.waiting
                    .extend(reads.into_iter().map(|read| read.request));
            }
            Waits::Relayed(handle) => context.tell(handle, Answer::Refused, 0),
            Waits::PassedOn { handle, .. } => context.answer(handle, undecided(), 0),
            Waits::Status | Waits::Adopted | Waits::Given | Waits::Begun => {}
        }
    }

    /// Gives up what was asked too long ago, and what has waited too long.
    pub(super) fn give_up_overdue(&mut self, context: &mut Context<'_, H>) {
        let (now, time_out) = (context.now, self.times.time_out);
        let is_overdue = |asked: &Asked<H>| match asked.waits {
            Waits::Status => asked.at + time_out < now,
            _ => asked.at + self.times.deadline < now,
        };
        let overdue = self.asked.iter().filter(|(_, asked)| is_overdue(asked));
        let overdue: Vec<u64> = overdue.map(|(number, _)| *number).collect();
        for number in overdue {
            match self.asked.get(&number).map(|asked| &asked.waits) {
                Some(Waits::PassedOn { .. }) => {
                    self.outcome(number, origin::Answer::Silent, context.effects);
                }
                _ => self.heard(number, None, context),
            }
        }
        let late: Vec<_> = self.waiting.extract_if(.., |it| it.ends <= now).collect();
        for request in late {
            Self::fail(request, context.effects);
        }
    }
}
