//! What becomes of a request at a member: the head decides a write and passes it on, and others pass requests on.

use std::sync::Arc;

use super::epoch::Epoch;
use super::member::{Member, Part, Request};
use super::waits::Waits;
use super::{Answer, Context, Effect, LogPlace, Question};
use crate::bytes::Key;
use crate::protocol::ring::NodeId;
use crate::protocol::state::Absorbed;
use crate::protocol::{Accepted, Operation, Outcome, Record, State, Why, origin};

impl<H> Member<H> {
    /// Carries a request out, or passes it on to the member whose part that is: the head decides writes, the
    /// tail answers reads. What was passed on already is not passed on again.
    pub(super) fn request(
        &mut self,
        request: Request<H>,
        vouched: Option<Epoch>,
        context: &mut Context<'_, H>,
    ) {
        let has_begun = vouched == Some(self.adopted.epoch);
        if has_begun && self.part == Part::Adopted {
            self.begin(context);
        }
        let writes = matches!(request.operation, Operation::Write { .. });
        let role = if writes {
            self.adopted.head()
        } else {
            self.adopted.tail()
        };
        match role.filter(|_| self.serves()) {
            Some(role) if role == self.node && writes => self.write(request, context),
            Some(role) if role == self.node => self.read(request, vouched, context),
            Some(role) if !request.passed_on => self.pass_on(role, request, context),
            _ => Self::fail(request, context.effects),
        }
    }

    /// Ends a request that this replica could not carry out.
    pub(super) fn fail(request: Request<H>, effects: &mut Vec<Effect<H>>) {
        let outcome = Outcome::Failed {
            accept_sent: request.absorbed,
            why: Why::NoChain,
        };
        effects.push(Effect::Answer {
            handle: request.handle,
            outcome,
            after: 0,
        });
    }

    pub(super) fn pass_on(
        &mut self,
        to: NodeId,
        request: Request<H>,
        context: &mut Context<'_, H>,
    ) {
        let Request {
            handle,
            key,
            operation,
            absorbed,
            ..
        } = request;
        let ticket = self.ticket(to, Waits::PassedOn { handle, absorbed }, context);
        context.effects.push(Effect::PassOn {
            to,
            ticket,
            key,
            operation,
            epoch: self.adopted.epoch,
        });
    }

    /// The head decides a write, and has all members hold the result before it answers.
    pub(super) fn write(&mut self, mut request: Request<H>, context: &mut Context<'_, H>) {
        let Operation::Write { dot, change } = &request.operation else {
            unreachable!("only a write is written")
        };
        let (record, place) = context.replica.record(&request.key);
        let state = match &record.accepted {
            Some(own) => own.state.clone(),
            None => Arc::new(State {
                floor: context.replica.fence(self.range).floor,
                ..State::default()
            }),
        };
        let (next, verdict) = match state.absorb(*dot, change) {
            Absorbed::Into(next, verdict) => (next, verdict),
            Absorbed::Superseded => {
                return context.answer(request.handle, Outcome::Superseded, 0);
            }
        };
        request.absorbed = true;
        // What an earlier attempt has left here may be nowhere else: it is passed on once more.
        let (accepted, place) = match record.accepted {
            Some(own) if *own.state == next => (own, place),
            _ => self.take_next(&request.key, &record.accepted, next, context),
        };
        let key = request.key.clone();
        let waits = Waits::Passed { request, verdict };
        self.pass(key, accepted, place, waits, context);
    }

    /// Takes a new state at the next ballot of the epoch.
    pub(super) fn take_next(
        &mut self,
        key: &Key,
        before: &Option<Accepted>,
        state: State,
        context: &mut Context<'_, H>,
    ) -> (Accepted, LogPlace) {
        self.steps += 1;
        let ballot = self.adopted.epoch.ballot(self.steps);
        let is_higher = before.as_ref().is_none_or(|before| ballot > before.ballot);
        assert!(is_higher, "invariant 5: the head's ballots grow");
        let state = Arc::new(state);
        let accepted = Accepted { ballot, state };
        let place = context.replica.take(key, &accepted);
        (accepted, place)
    }

    /// Passes a state on to the next member once it is durable here. The tail has nobody behind it.
    pub(super) fn pass(
        &mut self,
        key: Key,
        accepted: Accepted,
        place: LogPlace,
        waits: Waits<H>,
        context: &mut Context<'_, H>,
    ) {
        let epoch = self.adopted.epoch;
        match self.adopted.after(self.node) {
            Some(next) => {
                let question = Question::Pass {
                    epoch,
                    key,
                    accepted,
                };
                self.ask(next, question, place, waits, context);
            }
            None => self.held_by_all(waits, place, context),
        }
    }

    /// This member and all behind it hold a state, once the own log is durable up to `place`.
    pub(super) fn held_by_all(
        &mut self,
        waits: Waits<H>,
        place: LogPlace,
        context: &mut Context<'_, H>,
    ) {
        match waits {
            Waits::Passed { request, verdict } => {
                context.answer(request.handle, Outcome::Decided(verdict), place);
            }
            Waits::Relayed(handle) => context.tell(handle, Answer::Done, place),
            other => unreachable!("nothing was passed: {}", std::any::type_name_of_val(&other)),
        }
    }

    /// The member before this one has passed a state on.
    pub(super) fn passed(
        &mut self,
        handle: H,
        key: Key,
        accepted: Accepted,
        context: &mut Context<'_, H>,
    ) {
        let (record, mut place) = context.replica.record(&key);
        if is_fenced(&record, &accepted) {
            // The next epoch will have the state here, since its proposer moves it.
            return context.tell(handle, Answer::Refused, 0);
        }
        if accepted.ballot > record.accepted_ballot() {
            place = context.replica.take(&key, &accepted);
        }
        self.pass(key, accepted, place, Waits::Relayed(handle), context);
    }

    /// What came of a request that was passed on.
    pub(super) fn outcome(
        &mut self,
        number: u64,
        answer: origin::Answer,
        effects: &mut Vec<Effect<H>>,
    ) {
        let Some(asked) = self.asked.remove(&number) else {
            return;
        };
        let Waits::PassedOn { handle, absorbed } = asked.waits else {
            unreachable!("only a request has an outcome")
        };
        let carried_out = |outcome: &Outcome| {
            let why = Why::NoChain;
            !matches!(outcome, Outcome::Failed { why: other, .. } if *other == why)
        };
        if !matches!(&answer, origin::Answer::Outcome(outcome) if carried_out(outcome)) {
            self.trouble_with_silence();
        }
        let outcome = match answer {
            // What was absorbed here may take effect, though it was not done there.
            origin::Answer::Outcome(Outcome::Failed { accept_sent, why }) => Outcome::Failed {
                accept_sent: accept_sent || absorbed,
                why,
            },
            origin::Answer::Outcome(outcome) => outcome,
            origin::Answer::Unreached if !absorbed => Outcome::not_done(Why::NoChain),
            origin::Answer::Unreached | origin::Answer::Silent => undecided(),
        };
        effects.push(Effect::Answer {
            handle,
            outcome,
            after: 0,
        });
    }
}

/// What was passed on, and nobody has said what became of it.
pub(super) fn undecided() -> Outcome {
    Outcome::Failed {
        accept_sent: true,
        why: Why::NoChain,
    }
}

/// Whether a tombstone that was dropped here forbids a state of a key without a record.
pub(super) fn is_fenced(record: &Record, accepted: &Accepted) -> bool {
    record.accepted.is_none() && accepted.ballot <= record.promised
}
