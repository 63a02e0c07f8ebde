//! The coordinator's proposals: carries out what a [`Proposer`] wants, one per key at a time.

use std::collections::VecDeque;

use super::{Coordinator, Effect, Task};
use crate::protocol::quorum::proposer::{ProposalStep, Proposer};
use crate::protocol::{Operation, Outcome, Why};

/// How many rounds of a proposal may be outrun before it is given up.
const MOST_ATTEMPTS: u32 = 10;

impl<H> Coordinator<H> {
    pub(super) fn proposal_step(
        &mut self,
        id: u64,
        step: ProposalStep,
        effects: &mut Vec<Effect<H>>,
    ) {
        match step {
            ProposalStep::Wait => {}
            ProposalStep::Ask(question) => {
                let to = self.replicas(id);
                self.ask(id, to, question, effects);
            }
            ProposalStep::Backoff => self.back_off(id, effects),
            ProposalStep::Chosen(accepted, outcome) => {
                self.memory.put(self.requests[&id].key.clone(), accepted);
                self.end_proposal(id, outcome, effects);
            }
            ProposalStep::Superseded => self.end_proposal(id, Outcome::Superseded, effects),
            ProposalStep::NoQuorum { needed, got } => {
                self.fail_proposal(id, Why::NoQuorum { needed, got }, effects);
            }
        }
    }

    fn back_off(&mut self, id: u64, effects: &mut Vec<Effect<H>>) {
        let request = self.request_mut(id);
        request.attempt += 1;
        // Late replies to the question that failed must not be counted.
        request.question += 1;
        let attempt = request.attempt;
        if attempt < MOST_ATTEMPTS {
            let request = id;
            effects.push(Effect::WakeLater { request, attempt });
        } else {
            self.fail_proposal(id, Why::Contended, effects);
        }
    }

    fn fail_proposal(&mut self, id: u64, why: Why, effects: &mut Vec<Effect<H>>) {
        let accept_sent = self.request_mut(id).proposer().accept_sent();
        self.end_proposal(id, Outcome::Failed { accept_sent, why }, effects);
    }

    /// Ends the proposal in flight for a key, and starts the next one that waits.
    fn end_proposal(&mut self, id: u64, outcome: Outcome, effects: &mut Vec<Effect<H>>) {
        let mut ended = self.end(id, outcome, effects);
        let waiting = self.proposing.get_mut(&ended.key);
        let waiting = waiting.expect("its key has a proposal in flight");
        let Some(next) = waiting.pop_front() else {
            self.proposing.remove(&ended.key);
            return;
        };
        // The ballots of the proposal that has ended are used up.
        let used = ended.proposer().ballot();
        let request = self.request_mut(next);
        request.promised = request.promised.max(used);
        self.propose(next, effects);
    }

    /// Starts a proposal, or lets it wait while another one for its key is in flight.
    pub(super) fn queue(&mut self, id: u64, effects: &mut Vec<Effect<H>>) {
        let requests = &self.requests;
        let request = &requests[&id];
        let Some(waiting) = self.proposing.get_mut(&request.key) else {
            self.proposing.insert(request.key.clone(), VecDeque::new());
            return self.propose(id, effects);
        };
        let mut superseded = None;
        for &other in &*waiting {
            match (request.queued(), requests[&other].queued()) {
                (Operation::Refresh, Operation::Refresh) => return self.share(id, other),
                // An origin has one write of a key in flight at a time. So of two that wait, the one with
                // the lower number has ended. Equal numbers are two attempts of one write.
                (Operation::Write { dot: new, .. }, Operation::Write { dot: old, .. })
                    if new.origin == old.origin =>
                {
                    let is_older = new.sequence < old.sequence;
                    superseded = Some(if is_older { id } else { other });
                }
                _ => {}
            }
        }
        waiting.push_back(id);
        if let Some(superseded) = superseded {
            waiting.retain(|waiting| *waiting != superseded);
            self.end(superseded, Outcome::Superseded, effects);
        }
    }

    /// Lets the full round that waits already answer this request too.
    fn share(&mut self, id: u64, full_round: u64) {
        let request = self.requests.remove(&id).expect("it has not ended");
        self.request_mut(full_round).handles.extend(request.handles);
    }

    fn propose(&mut self, id: u64, effects: &mut Vec<Effect<H>>) {
        let request = &self.requests[&id];
        let operation = request.queued().clone();
        let memory = self.memory.take(&request.key);
        let promised = request.promised.max(self.rejected);
        let (proposer, step) =
            Proposer::start(self.node, self.quorums, operation, memory, promised);
        self.request_mut(id).task = Task::Propose(proposer);
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
    use crate::protocol::{Ballot, Change, Promise, Quorums, VoteReply, VoteRequest};

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
            let (refresh, zero) = (Operation::Refresh, Ballot::ZERO);
            coordinator.request(handle, "k".into(), refresh, zero, None, &mut effects);
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

    /// A replica with a higher fence rejects low ballots for every new key. Without this each new key
    /// would leave that replica behind, or cost another round.
    #[test]
    fn a_rejection_tells_where_the_proposals_for_all_keys_start() {
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
