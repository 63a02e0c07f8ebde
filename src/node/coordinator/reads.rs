//! The coordinator's reads: carries out what a [`Reader`](crate::register::reader::Reader) wants.

use super::{Coordinator, Effect, Request, Task};
use crate::register::proposer::Intent;
use crate::register::reader::Step;
use crate::register::{Outcome, VoteRequest, Why};

impl<H> Coordinator<H> {
    /// Asks the others for digests and the own replica, where it costs nothing, for the state.
    pub(super) fn start_read(&mut self, id: u64, effects: &mut Vec<Effect<H>>) {
        let node = self.node;
        self.ask(
            id,
            None,
            |to| VoteRequest::Read { state: to == node },
            effects,
        );
    }

    pub(super) fn read_step(&mut self, id: u64, step: Step, effects: &mut Vec<Effect<H>>) {
        match step {
            Step::Wait => {}
            Step::AskStates => self.ask(id, None, |_| VoteRequest::Read { state: true }, effects),
            Step::WriteBack(accepted, laggards) => {
                let question = |_| VoteRequest::Accept(accepted.clone());
                self.ask(id, Some(&laggards), question, effects);
            }
            Step::Answer(state) => {
                self.answer(id, Outcome::of_read(state.as_deref()), effects);
                self.repair_laggards(id, effects);
            }
            Step::Repair(accepted, to) => {
                let key = self.requests[&id].key.clone();
                effects.push(Effect::Repair { to, key, accepted });
            }
            Step::FullRound => {
                let request = self
                    .requests
                    .get_mut(&id)
                    .expect("a read that steps is known");
                request.task = Task::Queued(Intent::WriteBack);
                return self.queue(id, effects);
            }
            Step::NoQuorum => {
                let outcome = Outcome::Failed {
                    accept_sent: false,
                    why: Why::NoQuorum,
                };
                self.answer(id, outcome, effects);
                self.requests.remove(&id);
            }
        }
        if let Some(Request {
            task: Task::Read(reader),
            ..
        }) = self.requests.get(&id)
            && reader.finished()
        {
            self.requests.remove(&id);
        }
    }

    fn repair_laggards(&self, id: u64, effects: &mut Vec<Effect<H>>) {
        let request = &self.requests[&id];
        if let Task::Read(reader) = &request.task {
            effects.extend(
                reader
                    .laggards()
                    .into_iter()
                    .map(|(accepted, to)| Effect::Repair {
                        to,
                        key: request.key.clone(),
                        accepted,
                    }),
            );
        }
    }
}
