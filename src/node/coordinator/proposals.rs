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
            Step::Ask(question) => self.ask(id, None, None, |_| question.clone(), effects),
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
        let promised = request.promised.max(self.refused);
        let (proposer, step) = Proposer::start(self.node, self.quorums, intent, memory, promised);
        request.task = Task::Propose(proposer);
        self.proposal_step(id, step, effects);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Dot;
    use crate::node::coordinator::Ticket;
    use crate::register::{Ballot, Change, Operation, Promise, Quorums, VoteReply, VoteRequest};
    use crate::ring::{NodeId, Ring};

    /// The ballot that the write of a new key prepares.
    fn prepared(coordinator: &mut Coordinator<()>, key: &str) -> (Ballot, Ticket) {
        let dot = Dot {
            origin: NodeId(1),
            sequence: 1,
        };
        let change = Change::Put("x".into());
        let write = Operation::Write { dot, change };
        let mut effects = Vec::new();
        coordinator.request((), key.into(), write, Ballot::ZERO, None, &mut effects);
        match effects[..] {
            [
                Effect::Ask {
                    ticket,
                    request: VoteRequest::Prepare(ballot),
                    ..
                },
                ..,
            ] => (ballot, ticket),
            _ => panic!("{effects:?}"),
        }
    }

    /// A replica with a higher fence refuses every new key: it must not be left behind with each
    /// of them, or cost each of them another round.
    #[test]
    fn a_refusal_tells_where_the_proposals_for_all_keys_start() {
        let ring = Arc::new(Ring::new([1, 2, 3].map(NodeId), 3));
        let quorums = Quorums {
            replicas: 3,
            read: 2,
            write: 2,
        };
        let mut coordinator = Coordinator::new(NodeId(1), ring, quorums, 9);
        let (ballot, ticket) = prepared(&mut coordinator, "one");
        assert_eq!(ballot.round, 1);
        let fence = Ballot::first(7, NodeId(3));
        for (from, reply) in [
            (1, VoteReply::Promised(Promise::default())),
            (2, VoteReply::Promised(Promise::default())),
            // Too late for the question, which two have answered.
            (3, VoteReply::Rejected(fence)),
        ] {
            coordinator.reply(ticket, NodeId(from), Some(reply), &mut Vec::new());
        }
        assert_eq!(prepared(&mut coordinator, "other").0.round, 8);
    }
}
