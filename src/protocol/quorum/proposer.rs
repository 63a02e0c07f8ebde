//! The proposer: gets one change of one key chosen. Replies in, next step out.

use std::sync::Arc;

use super::Quorums;
use super::acceptor::ballot_of;
use crate::protocol::ring::NodeId;
use crate::protocol::state::Absorbed;
use crate::protocol::version::VectorClock;
use crate::protocol::{Accepted, Ballot, Operation, State, Verdict, VoteReply, VoteRequest};
use crate::testing::rules::{self, Rule};

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Wait for more replies.
    Wait,
    /// Ask every replica.
    Ask(VoteRequest),
    /// Another proposer was faster: wait a jittered moment, then [`Proposer::retry`].
    Backoff,
    /// Enough replicas hold this state. It is chosen and may be told.
    Chosen(Accepted, Verdict),
    /// The request has been superseded, and was perhaps done before: see [`Absorbed::Superseded`].
    Superseded,
    /// Too few replicas answered.
    NoQuorum { needed: usize, got: usize },
}

/// One attempt after another to get the new state of a key chosen.
///
/// - No ballot is used twice: each retry takes a round above all that was seen.
/// - Nothing is chosen before enough replicas have accepted it at one ballot.
#[derive(Debug)]
pub struct Proposer {
    node: NodeId,
    quorums: Quorums,
    operation: Operation,
    ballot: Ballot,
    phase: Phase,
    /// The highest round that any reply told of.
    highest_round: u64,
    accept_sent: bool,
    heard: Vec<NodeId>,
    rejections: usize,
}

#[derive(Debug)]
enum Phase {
    Preparing {
        promises: usize,
        highest: Option<Accepted>,
        /// If there is none, which requests the new state refuses: see [`State::floor`].
        floor: VectorClock,
    },
    Accepting {
        proposal: Accepted,
        verdict: Verdict,
        taken: usize,
    },
    /// It is chosen: further replies change nothing.
    Over,
}

impl Proposer {
    /// Starts a proposal. With a `memory` of what this node got chosen last for the key it goes
    /// straight to the next step of that round; otherwise it prepares a round above `promised`,
    /// the highest promise that the caller knows of.
    pub fn start(
        node: NodeId,
        quorums: Quorums,
        operation: Operation,
        memory: Option<Accepted>,
        promised: Ballot,
    ) -> (Proposer, Step) {
        let mut proposer = Proposer {
            node,
            quorums,
            operation,
            ballot: Ballot::ZERO,
            phase: Phase::preparing(),
            highest_round: promised.round,
            accept_sent: false,
            heard: Vec::with_capacity(quorums.replicas),
            rejections: 0,
        };
        let step = match memory {
            Some(chosen) => proposer.propose(chosen.ballot.next_step(), &chosen.state),
            None => proposer.retry(),
        };
        (proposer, step)
    }

    /// Starts a new round, above any that was seen.
    pub fn retry(&mut self) -> Step {
        let round = self.highest_round.max(self.ballot.round) + 1;
        self.ballot = Ballot::first(round, self.node);
        self.phase = Phase::preparing();
        self.expect_replies();
        Step::Ask(VoteRequest::Prepare(self.ballot))
    }

    /// Whether any replica may have accepted something of this proposer: if so, the outcome of a
    /// request that was not decided is unknown.
    pub fn accept_sent(&self) -> bool {
        self.accept_sent
    }

    /// The ballot that it proposed or prepared last.
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Whether it gets the state chosen again as it is.
    pub fn refreshes(&self) -> bool {
        self.operation == Operation::Refresh
    }

    /// Takes the answer of one replica to the last question; `None` is its silence. A second
    /// answer of the same replica to one question changes nothing.
    pub fn reply(&mut self, from: NodeId, reply: Option<VoteReply>) -> Step {
        if self.heard.contains(&from) {
            return Step::Wait;
        }
        self.heard.push(from);
        match (&mut self.phase, reply) {
            (
                Phase::Preparing {
                    promises,
                    highest,
                    floor,
                },
                Some(VoteReply::Promised(promise)),
            ) => {
                *promises += 1;
                floor.merge(&promise.floor);
                let newer = ballot_of(&promise.accepted) > ballot_of(highest);
                if newer == rules::holds(Rule::HighestAccepted) {
                    *highest = promise.accepted;
                }
            }
            (Phase::Accepting { taken, .. }, Some(VoteReply::Taken)) => *taken += 1,
            (_, Some(VoteReply::Rejected(promised))) => {
                self.rejections += 1;
                self.highest_round = self.highest_round.max(promised.round);
            }
            _ => {}
        }
        self.advance()
    }

    fn advance(&mut self) -> Step {
        match &mut self.phase {
            Phase::Preparing {
                promises,
                highest,
                floor,
            } => {
                if *promises >= self.quorums.read {
                    let state = match highest.take() {
                        Some(accepted) => accepted.state,
                        None => Arc::new(State {
                            floor: std::mem::take(floor),
                            ..State::default()
                        }),
                    };
                    return self.propose(self.ballot, &state);
                }
                let got = *promises;
                self.unless_possible(got, self.quorums.read)
            }
            Phase::Accepting { taken, .. } => {
                let got = *taken;
                if got < self.quorums.write {
                    return self.unless_possible(got, self.quorums.write);
                }
                match std::mem::replace(&mut self.phase, Phase::Over) {
                    Phase::Accepting {
                        proposal, verdict, ..
                    } => Step::Chosen(proposal, verdict),
                    _ => Step::Wait,
                }
            }
            Phase::Over => Step::Wait,
        }
    }

    /// Waits while those that are still to be heard could make up the number.
    fn unless_possible(&self, got: usize, needed: usize) -> Step {
        let outstanding = self.quorums.replicas - self.heard.len();
        match self.rejections {
            _ if got + outstanding >= needed => Step::Wait,
            0 => Step::NoQuorum { needed, got },
            _ => Step::Backoff,
        }
    }

    fn propose(&mut self, ballot: Ballot, current: &State) -> Step {
        let (state, verdict) = match &self.operation {
            Operation::Get => unreachable!("a read proposes nothing"),
            Operation::Refresh => (current.clone(), Verdict::Applied(current.version())),
            Operation::Write { dot, change } => match current.absorb(*dot, change) {
                Absorbed::Into(state, verdict) => (state, verdict),
                Absorbed::Superseded => return Step::Superseded,
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
        let proposal = Accepted {
            ballot,
            state: Arc::new(state),
        };
        self.ballot = ballot;
        self.phase = Phase::Accepting {
            proposal: proposal.clone(),
            verdict,
            taken: 0,
        };
        self.accept_sent = true;
        self.expect_replies();
        Step::Ask(VoteRequest::Accept(proposal))
    }

    fn expect_replies(&mut self) {
        self.heard.clear();
        self.rejections = 0;
    }
}

impl Phase {
    fn preparing() -> Phase {
        Phase::Preparing {
            promises: 0,
            highest: None,
            floor: VectorClock::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::version::Dot;
    use crate::protocol::{Change, Promise};

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

    fn start(intent: Operation, memory: Option<Accepted>) -> (Proposer, Step) {
        Proposer::start(A, QUORUMS, intent, memory, Ballot::ZERO)
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

    fn proposal(step: Step) -> Accepted {
        match step {
            Step::Ask(VoteRequest::Accept(proposal)) => proposal,
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
        assert_eq!(step, Step::Ask(VoteRequest::Prepare(Ballot::first(1, A))));
        assert_eq!(proposer.reply(A, promised(None)), Step::Wait);
        assert!(!proposer.accept_sent());
        let proposal = proposal(proposer.reply(B, promised(None)));
        assert!(proposer.accept_sent());
        assert_eq!(proposer.reply(A, Some(VoteReply::Taken)), Step::Wait);
        assert_eq!(
            proposer.reply(A, Some(VoteReply::Taken)),
            Step::Wait,
            "one vote each"
        );
        let version: VectorClock = "1:1".parse().unwrap();
        assert_eq!(
            proposer.reply(C, Some(VoteReply::Taken)),
            Step::Chosen(proposal, Verdict::Applied(Some(version)))
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
    fn a_new_life_of_a_key_knows_which_requests_are_over() {
        let dropped = |before: &str| {
            Some(VoteReply::Promised(Promise {
                accepted: None,
                floor: before.parse().unwrap(),
            }))
        };
        let (mut late, _) = start(write(5, "late"), None);
        late.reply(A, dropped("1:5"));
        assert_eq!(late.reply(B, promised(None)), Step::Superseded);
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
        assert!(matches!(chosen, Step::Chosen(..)));
    }

    #[test]
    fn a_rejected_proposal_starts_again_above_the_ballot_that_fenced_it() {
        let (mut proposer, _) = start(write(1, "x"), Some(accepted(4, A, "x")));
        let rejected = Some(VoteReply::Rejected(Ballot::first(7, C)));
        assert_eq!(proposer.reply(B, rejected.clone()), Step::Wait);
        assert_eq!(proposer.reply(C, rejected), Step::Backoff);
        assert_eq!(
            proposer.retry(),
            Step::Ask(VoteRequest::Prepare(Ballot::first(8, A)))
        );
    }

    #[test]
    fn silence_of_two_replicas_ends_a_proposal() {
        let (mut proposer, _) = start(write(1, "x"), None);
        assert_eq!(proposer.reply(B, None), Step::Wait);
        let (needed, got) = (2, 0);
        assert_eq!(proposer.reply(C, None), Step::NoQuorum { needed, got });
    }

    #[test]
    fn a_request_that_its_origin_gave_up_is_dropped() {
        let (mut newer, _) = start(write(9, "x"), None);
        newer.reply(A, promised(None));
        let current = proposal(newer.reply(B, promised(None)));
        let (mut older, _) = start(write(8, "y"), None);
        older.reply(A, promised(Some(current)));
        assert_eq!(older.reply(B, promised(None)), Step::Superseded);
    }
}
