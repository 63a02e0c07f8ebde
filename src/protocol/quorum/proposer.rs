//! The proposer: gets one change of one key chosen. Replies in, next step out.

use std::sync::Arc;

use super::Quorums;
use super::acceptor::ballot_of;
use super::tally::{Count, Tally};
use crate::protocol::ring::NodeId;
use crate::protocol::state::Absorbed;
use crate::protocol::{
    Accepted, Ballot, Operation, Outcome, Promise, State, VoteReply, VoteRequest,
};
use crate::testing::rules::{self, Rule};

/// What the coordinator has to do next for a proposal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProposalStep {
    /// Wait for more replies.
    Wait,
    /// Ask every replica.
    Ask(VoteRequest),
    /// Another proposer was faster: wait a jittered moment, then call [`Proposer::retry`].
    Backoff,
    /// Remember this state, which W replicas have accepted, and answer the request.
    Chosen(Accepted, Outcome),
    /// Answer that the request has ended already: see [`Absorbed::Superseded`].
    Superseded,
    /// Give up: too few replicas answered.
    NoQuorum { needed: usize, got: usize },
}

/// One round after another to get the new state of a key chosen.
///
/// - No ballot is used twice: each retry takes a round above all that was seen.
/// - Nothing is chosen before W replicas have accepted it at one ballot.
#[derive(Debug)]
pub struct Proposer {
    node: NodeId,
    quorums: Quorums,
    operation: Operation,
    ballot: Ballot,
    phase: ProposalPhase,
    /// The replies to the last question.
    tally: Tally,
    /// The highest round in any promise that the caller or a rejection reported.
    highest_round: u64,
    accept_sent: bool,
}

#[derive(Debug)]
enum ProposalPhase {
    /// Collects promises. They are merged into one: the highest accepted state and the highest floor that
    /// any of them reports.
    Preparing(Promise),
    /// Collects accepts.
    Accepting {
        proposal: Accepted,
        /// The answer once it is chosen.
        outcome: Outcome,
    },
}

impl Proposer {
    /// Starts a proposal. If `memory` has what this node got chosen last for the key, it goes straight
    /// to the next step of that round. Otherwise it prepares a round above `promised`, the highest
    /// promise that the caller knows of.
    pub fn start(
        node: NodeId,
        quorums: Quorums,
        operation: Operation,
        memory: Option<Accepted>,
        promised: Ballot,
    ) -> (Proposer, ProposalStep) {
        let mut proposer = Proposer {
            node,
            quorums,
            operation,
            ballot: Ballot::ZERO,
            phase: ProposalPhase::Preparing(Promise::default()),
            tally: Tally::new(quorums),
            highest_round: promised.round,
            accept_sent: false,
        };
        let step = match memory {
            Some(chosen) => proposer.propose(chosen.ballot.next_step(), &chosen.state),
            None => proposer.retry(),
        };
        (proposer, step)
    }

    /// Starts a new round, above any that was seen.
    pub fn retry(&mut self) -> ProposalStep {
        let round = self.highest_round.max(self.ballot.round) + 1;
        self.ballot = Ballot::first(round, self.node);
        self.phase = ProposalPhase::Preparing(Promise::default());
        self.ask(VoteRequest::Prepare(self.ballot))
    }

    /// Whether any replica may have accepted something of this proposer. If so, and nothing was
    /// chosen, the outcome of the request is unknown.
    pub fn accept_sent(&self) -> bool {
        self.accept_sent
    }

    /// The ballot that it prepared or proposed last.
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Takes the answer of one replica to the last question; `None` is its silence. A second answer of
    /// the same replica to one question changes nothing.
    pub fn reply(&mut self, from: NodeId, reply: Option<VoteReply>) -> ProposalStep {
        if !self.tally.hear(from) {
            return ProposalStep::Wait;
        }
        match (&mut self.phase, reply) {
            (ProposalPhase::Preparing(merged), Some(VoteReply::Promised(promise))) => {
                self.tally.granted += 1;
                merged.floor.merge(&promise.floor);
                let higher = ballot_of(&promise.accepted) > ballot_of(&merged.accepted);
                // A test that leaves the rule out goes on from the lowest.
                let goes_on_from = higher == rules::holds(Rule::HighestAccepted);
                if goes_on_from {
                    merged.accepted = promise.accepted;
                }
            }
            (ProposalPhase::Accepting { .. }, Some(VoteReply::Taken)) => self.tally.granted += 1,
            (_, Some(VoteReply::Rejected(promised))) => {
                self.tally.rejected += 1;
                self.highest_round = self.highest_round.max(promised.round);
            }
            // Silence, or a reply that does not fit the question: it grants nothing.
            _ => {}
        }
        self.advance()
    }

    fn advance(&mut self) -> ProposalStep {
        let needed = match self.phase {
            ProposalPhase::Preparing(_) => self.quorums.read,
            ProposalPhase::Accepting { .. } => self.quorums.write,
        };
        match self.tally.count(needed) {
            Count::Enough => self.granted(),
            Count::Open => ProposalStep::Wait,
            Count::Outrun => ProposalStep::Backoff,
            Count::NoQuorum { needed, got } => ProposalStep::NoQuorum { needed, got },
        }
    }

    /// Enough replicas have granted the last question.
    fn granted(&mut self) -> ProposalStep {
        match &mut self.phase {
            ProposalPhase::Preparing(merged) => {
                let Promise { accepted, floor } = std::mem::take(merged);
                let new = State {
                    floor,
                    ..State::default()
                };
                let current = accepted.map_or(Arc::new(new), |accepted| accepted.state);
                self.propose(self.ballot, &current)
            }
            ProposalPhase::Accepting { proposal, outcome } => {
                ProposalStep::Chosen(proposal.clone(), outcome.clone())
            }
        }
    }

    fn propose(&mut self, ballot: Ballot, current: &State) -> ProposalStep {
        let (state, outcome) = match &self.operation {
            Operation::Get => unreachable!("a read proposes nothing"),
            Operation::Refresh => (current.clone(), Outcome::of_read(Some(current))),
            Operation::Write { dot, change } => match current.absorb(*dot, change) {
                Absorbed::Into(state, verdict) => (state, Outcome::Decided(verdict)),
                Absorbed::Superseded => return ProposalStep::Superseded,
            },
        };
        assert!(
            state.clock.dominates(&current.clock),
            "a version never goes back"
        );
        assert!(
            state.value == current.value
                || state.clock != current.clock
                || !rules::holds(Rule::DotLookup),
            "a changed value has a new version"
        );
        let state = Arc::new(state);
        let proposal = Accepted { ballot, state };
        self.ballot = ballot;
        self.accept_sent = true;
        self.phase = ProposalPhase::Accepting {
            proposal: proposal.clone(),
            outcome,
        };
        self.ask(VoteRequest::Accept(proposal))
    }

    fn ask(&mut self, question: VoteRequest) -> ProposalStep {
        self.tally = Tally::new(self.quorums);
        ProposalStep::Ask(question)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::version::{Dot, VectorClock};
    use crate::protocol::{Change, Verdict};

    const QUORUMS: Quorums = Quorums {
        replicas: 3,
        read: 2,
        write: 2,
    };
    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);

    fn write(sequence: u64, value: &str) -> Operation {
        let dot = Dot {
            origin: A,
            sequence,
        };
        Operation::Write {
            dot,
            change: Change::Put(value.into()),
        }
    }

    fn start(operation: Operation, memory: Option<Accepted>) -> (Proposer, ProposalStep) {
        Proposer::start(A, QUORUMS, operation, memory, Ballot::ZERO)
    }

    fn accepted(round: u64, node: NodeId, value: &str) -> Accepted {
        let state = State {
            value: Some(value.into()),
            ..State::default()
        };
        Accepted {
            ballot: Ballot::first(round, node),
            state: Arc::new(state),
        }
    }

    fn proposal(step: ProposalStep) -> Accepted {
        match step {
            ProposalStep::Ask(VoteRequest::Accept(proposal)) => proposal,
            other => panic!("no proposal but {other:?}"),
        }
    }

    fn promised(accepted: Option<Accepted>) -> Option<VoteReply> {
        Some(VoteReply::Promised(Promise {
            accepted,
            ..Promise::default()
        }))
    }

    #[test]
    fn two_promises_and_two_votes_make_a_write_chosen() {
        let (mut proposer, step) = start(write(1, "x"), None);
        assert_eq!(
            step,
            ProposalStep::Ask(VoteRequest::Prepare(Ballot::first(1, A)))
        );
        assert_eq!(proposer.reply(A, promised(None)), ProposalStep::Wait);
        assert!(!proposer.accept_sent());
        let proposal = proposal(proposer.reply(B, promised(None)));
        assert!(proposer.accept_sent());
        assert_eq!(
            proposer.reply(A, Some(VoteReply::Taken)),
            ProposalStep::Wait
        );
        assert_eq!(
            proposer.reply(A, Some(VoteReply::Taken)),
            ProposalStep::Wait,
            "one vote each"
        );
        let version: VectorClock = "1:1".parse().unwrap();
        assert_eq!(
            proposer.reply(C, Some(VoteReply::Taken)),
            ProposalStep::Chosen(proposal, Outcome::Decided(Verdict::Applied(Some(version))))
        );
    }

    #[test]
    fn a_proposal_goes_on_from_the_highest_state_that_was_accepted() {
        let (mut proposer, _) = start(Operation::Refresh, None);
        proposer.reply(A, promised(Some(accepted(1, B, "old"))));
        let next = proposal(proposer.reply(B, promised(Some(accepted(2, B, "new")))));
        assert_eq!(next.state, accepted(2, B, "new").state);
    }

    #[test]
    fn the_new_state_of_a_dropped_key_refuses_requests_up_to_the_floor() {
        let dropped = |floor: &str| {
            Some(VoteReply::Promised(Promise {
                accepted: None,
                floor: floor.parse().unwrap(),
            }))
        };
        let (mut late, _) = start(write(5, "late"), None);
        late.reply(A, dropped("1:5"));
        assert_eq!(late.reply(B, promised(None)), ProposalStep::Superseded);
        let (mut next, _) = start(write(6, "next"), None);
        next.reply(A, dropped("1:5,2:2"));
        let next = proposal(next.reply(B, dropped("1:4,3:3")));
        assert_eq!(next.state.clock, "1:6".parse().unwrap());
        assert_eq!(next.state.floor, "2:2,3:3".parse().unwrap());
    }

    #[test]
    fn with_a_memory_the_next_write_takes_one_round_trip() {
        let memory = accepted(4, A, "x");
        let (mut proposer, step) = start(write(2, "y"), Some(memory.clone()));
        assert_eq!(proposal(step).ballot, memory.ballot.next_step());
        proposer.reply(A, Some(VoteReply::Taken));
        let chosen = proposer.reply(B, Some(VoteReply::Taken));
        assert!(matches!(chosen, ProposalStep::Chosen(..)));
    }

    #[test]
    fn a_rejected_proposal_starts_again_above_the_ballot_that_fenced_it() {
        let (mut proposer, _) = start(write(1, "x"), Some(accepted(4, A, "x")));
        let rejected = Some(VoteReply::Rejected(Ballot::first(7, C)));
        assert_eq!(proposer.reply(B, rejected.clone()), ProposalStep::Wait);
        assert_eq!(proposer.reply(C, rejected), ProposalStep::Backoff);
        assert_eq!(
            proposer.retry(),
            ProposalStep::Ask(VoteRequest::Prepare(Ballot::first(8, A)))
        );
    }

    #[test]
    fn silence_of_two_replicas_ends_a_proposal() {
        let (mut proposer, _) = start(write(1, "x"), None);
        assert_eq!(proposer.reply(B, None), ProposalStep::Wait);
        let (needed, got) = (2, 0);
        assert_eq!(
            proposer.reply(C, None),
            ProposalStep::NoQuorum { needed, got }
        );
    }

    #[test]
    fn a_request_that_its_origin_gave_up_is_dropped() {
        let (mut newer, _) = start(write(9, "x"), None);
        newer.reply(A, promised(None));
        let current = proposal(newer.reply(B, promised(None)));
        let (mut older, _) = start(write(8, "y"), None);
        older.reply(A, promised(Some(current)));
        assert_eq!(older.reply(B, promised(None)), ProposalStep::Superseded);
    }
}
