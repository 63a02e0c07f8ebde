//! The coordinator's proposals: carries out what a [`Proposer`] wants, one per key at a time.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use super::{Coordinator, Effect, Task};
use crate::protocol::quorum::proposer::{Proposer, Step};
use crate::protocol::{Outcome, Why};

/// How often a proposal is tried that is outrun each time, before it is given up.
const MOST_ATTEMPTS: u32 = 10;

impl<H> Coordinator<H> {
    pub(super) fn proposal_step(&mut self, id: u64, step: Step, effects: &mut Vec<Effect<H>>) {
        match step {
            Step::Wait => {}
            Step::Ask(question) => self.ask(id, None, None, question, effects),
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
                    Task::Propose(proposer) if proposer.refreshes() => {
                        Outcome::of_read(Some(&accepted.state))
                    }
                    _ => Outcome::Decided(verdict),
                };
                self.memory.put(request.key.clone(), accepted);
                self.end_proposal(id, outcome, effects);
            }
            Step::Superseded => self.end_proposal(id, Outcome::Superseded, effects),
            Step::NoQuorum { needed, got } => {
                self.fail_proposal(id, Why::NoQuorum { needed, got }, effects);
            }
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
        let Some(next) = queue.pop_front() else {
            self.proposing.remove(&request.key);
            return;
        };
        if let (Some(next), Task::Propose(ended)) = (self.requests.get_mut(&next), &request.task) {
            // The ballots of the one that ended are used up.
            next.promised = next.promised.max(ended.ballot());
        }
        self.propose(next, effects);
    }

    /// At most one proposal per key is in flight: starts this one, or lets it wait its turn. For each
    /// origin one write of a key waits, and for all reads together one full round.
    pub(super) fn queue(&mut self, id: u64, effects: &mut Vec<Effect<H>>) {
        let request = &self.requests[&id];
        let key = request.key.clone();
        let dot = request.task.queued_dot();
        let waiting = match self.proposing.entry(key) {
            Entry::Occupied(waiting) => waiting.into_mut(),
            Entry::Vacant(free) => {
                free.insert(VecDeque::new());
                return self.propose(id, effects);
            }
        };
        if request.task.waits_to_refresh() {
            let same = |old: &&u64| self.requests[*old].task.waits_to_refresh();
            match waiting.iter().find(same).copied() {
                Some(same) => self.share(id, same),
                None => waiting.push_back(id),
            }
            return;
        }
        // An origin has one write of a key in flight at a time: of two that wait here of the same
        // origin the one with the lower number is given up, or an earlier try of the other.
        let requests = &self.requests;
        let rival = dot.and_then(|new| {
            waiting.iter().find_map(|&old| {
                let queued = requests[&old].task.queued_dot()?;
                (queued.origin == new.origin).then_some((old, queued.sequence > new.sequence))
            })
        });
        let outdated = rival.map(|(old, is_newer)| if is_newer { id } else { old });
        if outdated != Some(id) {
            waiting.push_back(id);
        }
        if let Some(outdated) = outdated {
            waiting.retain(|waiting| *waiting != outdated);
            self.answer(outdated, Outcome::Superseded, effects);
            self.requests.remove(&outdated);
        }
    }

    /// Lets a request that has not begun be answered with another one.
    fn share(&mut self, id: u64, with: u64) {
        let shared = self.requests.remove(&id);
        if let (Some(mut shared), Some(with)) = (shared, self.requests.get_mut(&with)) {
            with.sharing.extend(shared.take_handles());
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
    use crate::protocol::quorum::coordinator::Ticket;
    use crate::protocol::ring::{NodeId, Ring};
    use crate::protocol::version::Dot;
    use crate::protocol::{Ballot, Change, Operation, Promise, Quorums, VoteReply, VoteRequest};

    fn coordinator<H>() -> Coordinator<H> {
        let ring = Arc::new(Ring::new([1, 2, 3].map(NodeId), 3));
        let quorums = Quorums {
            replicas: 3,
            read: 2,
            write: 2,
        };
        Coordinator::new(NodeId(1), ring, quorums, 9)
    }

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

    #[test]
    fn of_two_writes_of_an_origin_that_wait_the_one_with_the_higher_number_stays() {
        for (first, second) in [(5, 6), (6, 5), (6, 6)] {
            let (mut coordinator, mut effects) = (coordinator(), Vec::new());
            let mut write = |handle, origin, sequence| {
                let dot = Dot {
                    origin: NodeId(origin),
                    sequence,
                };
                let change = Change::Put("x".into());
                let operation = Operation::Write { dot, change };
                let zero = Ballot::ZERO;
                coordinator.request(handle, "k".into(), operation, zero, None, &mut effects);
            };
            write("in flight", 2, 1);
            write("first", 3, first);
            write("second", 3, second);
            let dropped: Vec<_> = effects
                .into_iter()
                .filter_map(|effect| match effect {
                    Effect::Answer { handle, outcome } => Some((handle, outcome)),
                    _ => None,
                })
                .collect();
            let lower = if first <= second { "first" } else { "second" };
            assert_eq!(dropped, [(lower, Outcome::Superseded)]);
        }
    }

    #[test]
    fn reads_that_wait_for_a_full_round_share_one() {
        let mut coordinator = coordinator();
        let (mut asked, mut answered) = (Vec::new(), Vec::new());
        let mut sort = |effects: Vec<Effect<u32>>| {
            let mut last = None;
            for effect in effects {
                match effect {
                    Effect::Ask {
                        ticket, request, ..
                    } => last = Some((ticket, request)),
                    Effect::Answer { handle, outcome } => answered.push((handle, outcome)),
                    _ => panic!("{effect:?}"),
                }
            }
            asked.extend(last.clone());
            last
        };
        let mut begun = None;
        for handle in 1..=4 {
            let mut effects = Vec::new();
            let (restore, zero) = (Operation::Refresh, Ballot::ZERO);
            coordinator.request(handle, "k".into(), restore, zero, None, &mut effects);
            begun = begun.or(sort(effects));
        }
        // The first goes through both its phases, and then the next.
        while let Some((ticket, request)) = begun {
            let reply = match request {
                VoteRequest::Prepare(_) => VoteReply::Promised(Promise::default()),
                _ => VoteReply::Taken,
            };
            let mut effects = Vec::new();
            for from in [1, 2] {
                coordinator.reply(ticket, NodeId(from), Some(reply.clone()), &mut effects);
            }
            begun = sort(effects);
        }
        let missing = [1, 2, 3, 4].map(|handle| (handle, Outcome::Missing));
        assert_eq!(answered, missing);
        assert_eq!(asked.len(), 3, "{asked:?}");
    }

    /// A replica with a higher fence refuses every new key: it must not be left behind with each
    /// of them, or cost each of them another round.
    #[test]
    fn a_refusal_tells_where_the_proposals_for_all_keys_start() {
        let mut coordinator = coordinator();
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
