//! The tail's reads.
//!
//! A tail that has been paused does not know that a chain without it has begun. So it takes the value first,
//! and then asks one other member whether it serves this epoch. Its yes says that no later epoch had begun
//! when the value was taken: every later one has a member of these two. A member that passes a read on has said so
//! already.
//!
//! One question serves all reads that came before it was sent, and no later one.

use super::member::{Member, Request};
use super::waits::Waits;
use super::{Answer, Context, LogPlace, Question};
use crate::protocol::Outcome;
use crate::protocol::ring::NodeId;
use crate::testing::rules::{self, Rule};

use super::epoch::Epoch;

/// A read whose value the tail has taken.
#[derive(Debug)]
pub struct Read<H> {
    pub(super) request: Request<H>,
    outcome: Outcome,
    /// Where the log makes the value durable.
    place: LogPlace,
}

impl<H> Member<H> {
    /// The tail takes a value. A member that has passed the read on has said which epoch it serves: that is
    /// the yes of another member, said after the client asked.
    pub(super) fn read(
        &mut self,
        request: Request<H>,
        vouched: Option<Epoch>,
        context: &mut Context<'_, H>,
    ) {
        let (record, place) = context.replica.record(&request.key);
        let state = record.accepted.as_ref().map(|own| own.state.as_ref());
        let outcome = Outcome::of_read(state);
        let place = if rules::holds(Rule::DurableBeforeRead) {
            place
        } else {
            0
        };
        let is_confirmed = vouched == Some(self.adopted.epoch);
        if is_confirmed || !rules::holds(Rule::ReadsConfirmed) {
            return context.answer(request.handle, outcome, place);
        }
        let read = Read {
            request,
            outcome,
            place,
        };
        if self.confirming && !rules::holds(Rule::LateReadsWait) {
            let mut all = self.asked.values_mut();
            if let Some(Waits::Confirmed { reads, .. }) = all.find_map(|asked| match &asked.waits {
                Waits::Confirmed { .. } => Some(&mut asked.waits),
                _ => None,
            }) {
                return reads.push(read);
            }
        }
        self.reads.push(read);
        if !self.confirming {
            let reads = std::mem::take(&mut self.reads);
            self.confirm(reads, Vec::new(), context);
        }
    }

    /// Asks one member that was not tried yet, suspects last.
    fn confirm(
        &mut self,
        reads: Vec<Read<H>>,
        mut tried: Vec<NodeId>,
        context: &mut Context<'_, H>,
    ) {
        let mut others = self.other_members();
        others.retain(|member| !tried.contains(member));
        others.sort_by_key(|member| context.suspects.contains(member));
        let Some(&member) = others.first() else {
            return context.answer_all(reads); // A chain of one, which only a test has.
        };
        tried.push(member);
        self.confirming = true;
        let question = Question::Confirm(self.adopted.epoch);
        let waits = Waits::Confirmed { reads, tried };
        self.ask(member, question, 0, waits, context);
    }

    /// The member that was asked has answered, or is silent. If so, another one may confirm the reads.
    pub(super) fn confirmed(
        &mut self,
        reads: Vec<Read<H>>,
        tried: Vec<NodeId>,
        answer: Option<Answer>,
        context: &mut Context<'_, H>,
    ) {
        if answer.is_none() && tried.len() < self.other_members().len() {
            return self.confirm(reads, tried, context);
        }
        match answer {
            Some(Answer::Done) => context.answer_all(reads),
            Some(_) => {
                // That one serves this epoch no more. If there is another chain, its tail can be asked at once.
                self.stop(context);
                for read in reads {
                    Self::fail(read.request, context.effects);
                }
            }
            None => {
                self.trouble_with_silence();
                self.undo(Waits::Confirmed { reads, tried }, context);
            }
        }
        self.confirming = false;
        if self.serves() && !self.reads.is_empty() {
            let reads = std::mem::take(&mut self.reads);
            self.confirm(reads, Vec::new(), context);
        }
    }
}

impl<H> Context<'_, H> {
    fn answer_all(&mut self, reads: Vec<Read<H>>) {
        for read in reads {
            self.answer(read.request.handle, read.outcome, read.place);
        }
    }
}
