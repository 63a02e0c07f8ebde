//! The coordinator's proposals: carries out what a [`Proposer`] wants, one per key at a time.

use super::{Coordinator, Effect, Task};
use crate::register::proposer::{Proposer, Step};
use crate::register::{Outcome, Why};

/// How often a proposal that was outrun starts again before it is given up.
const MOST_ATTEMPTS: u32 = 10;

impl<H> Coordinator<H> {
    pub(super) fn proposal_step(&mut self, id: u64, step: Step, effects: &mut Vec<Effect<H>>) {
        match step {
            Step::Wait => {}
            Step::Ask(question) => self.ask(id, None, |_| question.clone(), effects),
            Step::Backoff => {
                let request = self
                    .requests
                    .get_mut(&id)
                    .expect("a proposal that steps is known");
                request.attempt += 1;
                // Replies to the question that failed are of no use any more.
                request.question += 1;
                if request.attempt < MOST_ATTEMPTS {
                    let attempt = request.attempt;
                    effects.push(Effect::WakeLater {
                        request: id,
                        attempt,
                    });
                } else {
                    self.fail_proposal(id, Why::Contended, effects);
                }
            }
            Step::Chosen(accepted, verdict) => {
                let request = &self.requests[&id];
                let outcome = match &request.task {
                    Task::Propose(proposer) if proposer.writes_back() => {
                        Outcome::of_read(Some(&accepted.state))
                    }
                    _ => Outcome::Decided(verdict),
                };
                self.memory.put(request.key.clone(), accepted);
                self.end_proposal(id, outcome, effects);
            }
            Step::Superseded => self.end_proposal(id, Outcome::Superseded, effects),
            Step::NoQuorum => self.fail_proposal(id, Why::NoQuorum, effects),
        }
    }

    fn fail_proposal(&mut self, id: u64, why: Why, effects: &mut Vec<Effect<H>>) {
        let accept_sent = match &self.requests[&id].task {
            Task::Propose(proposer) => proposer.accept_sent(),
            _ => false,
        };
        self.end_proposal(id, Outcome::Failed { accept_sent, why }, effects);
    }

    fn end_proposal(&mut self, id: u64, outcome: Outcome, effects: &mut Vec<Effect<H>>) {
        self.answer(id, outcome, effects);
        let Some(request) = self.requests.remove(&id) else {
            return;
        };
        let Some(queue) = self.proposing.get_mut(&request.key) else {
            return;
        };
        queue.pop_front();
        let Some(&next) = queue.front() else {
            self.proposing.remove(&request.key);
            return;
        };
        if let (Some(next), Task::Propose(ended)) = (self.requests.get_mut(&next), &request.task) {
            // The ballots of the one that ended are used up.
            next.promised = next.promised.max(ended.ballot());
        }
        self.propose(next, effects);
    }

    /// At most one proposal per key is in flight: starts this one, or lets it wait its turn.
    pub(super) fn queue(&mut self, id: u64, effects: &mut Vec<Effect<H>>) {
        let request = &self.requests[&id];
        let key = request.key.clone();
        let origin = request.task.queued_dot().map(|dot| dot.origin);
        let waiting = self.proposing.entry(key).or_default();
        if waiting.is_empty() {
            waiting.push_back(id);
            return self.propose(id, effects);
        }
        // An origin has one write of a key in flight at a time: what waits here of the same
        // origin is an earlier try of it, or given up.
        let requests = &self.requests;
        let outdated = |waiting: &u64| {
            let queued = requests[waiting].task.queued_dot();
            origin.is_some() && queued.map(|dot| dot.origin) == origin
        };
        let dropped: Vec<u64> = waiting.iter().copied().filter(outdated).collect();
        waiting.retain(|waiting| !dropped.contains(waiting));
        waiting.push_back(id);
        for old in dropped {
            self.answer(old, Outcome::Superseded, effects);
            self.requests.remove(&old);
        }
    }

    fn propose(&mut self, id: u64, effects: &mut Vec<Effect<H>>) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let Task::Queued(intent) = &request.task else {
            return;
        };
        let memory = self.memory.take(&request.key);
        let intent = intent.clone();
        let (proposer, step) =
            Proposer::start(self.node, self.quorums, intent, memory, request.promised);
        request.task = Task::Propose(proposer);
        self.proposal_step(id, step, effects);
    }
}
