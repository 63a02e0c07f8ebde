//! The reader: finds the chosen state of one key. Replies in, next step out.

use std::sync::Arc;

use super::Quorums;
use crate::protocol::ring::NodeId;
use crate::protocol::{Accepted, Ballot, Seen, State, VoteReply};
use crate::testing::rules::{self, Rule};

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Wait for more replies.
    Wait,
    /// Ask every replica again, this time for whole states.
    AskStates,
    /// Send this state to these replicas, again as it was accepted, and tell of their votes.
    WriteBack(Accepted, Vec<NodeId>),
    /// This state is chosen; `None`: nothing was ever written. Further replies are still of use.
    Answer(Option<Arc<State>>),
    /// A replica promised a higher ballot: only a full round can tell what is chosen.
    Refresh,
    /// Too few replicas answered.
    NoQuorum { needed: usize, got: usize },
}

/// One read, from the first question to the last repair.
#[derive(Debug)]
pub struct Reader {
    quorums: Quorums,
    phase: Phase,
    /// Who answered the last question; `None` for silence.
    heard: Vec<(NodeId, Option<Seen>)>,
}

#[derive(Debug)]
enum Phase {
    /// The own replica is asked for its state, the others for the ballot alone.
    Ballots,
    /// Every replica is asked for its state.
    States,
    WritingBack {
        highest: Accepted,
        holders: usize,
        waiting: Vec<NodeId>,
        rejected: bool,
    },
    Answered(Option<Accepted>),
}

impl Reader {
    /// A new read. Ask every replica for its ballot, and for the state where that costs nothing.
    pub fn start(quorums: Quorums) -> Reader {
        Reader {
            quorums,
            phase: Phase::Ballots,
            heard: Vec::with_capacity(quorums.replicas),
        }
    }

    /// Whether what is chosen is known: further replies are of use for repairs alone.
    pub fn answered(&self) -> bool {
        matches!(self.phase, Phase::Answered(_))
    }

    /// Whether every replica has been heard and nothing is left to do.
    pub fn finished(&self) -> bool {
        self.answered() && self.heard.len() == self.quorums.replicas
    }

    /// Takes the answer of one replica to the last question; `None` is its silence. A second
    /// answer of the same replica to one question changes nothing.
    pub fn reply(&mut self, from: NodeId, reply: Option<VoteReply>) -> Step {
        if let Phase::WritingBack { .. } = self.phase {
            return self.written_back(from, reply);
        }
        if self.heard.iter().any(|(node, _)| *node == from) {
            return Step::Wait;
        }
        let seen = match reply {
            Some(VoteReply::Seen(seen)) => Some(seen),
            _ => None,
        };
        self.heard.push((from, seen));
        if self.answered() {
            return Step::Wait;
        }
        self.advance()
    }

    fn advance(&mut self) -> Step {
        let needed = self.quorums.agreeing();
        let held_by_enough = |seen: &&Seen| self.holders(seen.ballot) >= needed;
        let agreed = self.replies().find(held_by_enough).map(|seen| seen.ballot);
        if let Some(ballot) = agreed {
            return self.agreed(ballot);
        }
        if self.heard.len() < self.quorums.replicas {
            return Step::Wait;
        }
        let got = self.replies().count();
        match self.replies().map(|seen| seen.ballot).max() {
            Some(highest) if got >= needed => self.disagreed(highest),
            _ => Step::NoQuorum { needed, got },
        }
    }

    /// Enough replicas report the same ballot, so its state is chosen.
    fn agreed(&mut self, ballot: Ballot) -> Step {
        if ballot == Ballot::ZERO {
            self.phase = Phase::Answered(None);
            return Step::Answer(None);
        }
        match self.state_of(ballot) {
            Some(state) => self.answer(Accepted { ballot, state }),
            None => self.ask_states(),
        }
    }

    /// Nobody is left to hear, and no ballot has enough holders: the highest state may or may not
    /// be chosen. Held by enough replicas it is.
    fn disagreed(&mut self, ballot: Ballot) -> Step {
        let Some(state) = self.state_of(ballot) else {
            return self.ask_states();
        };
        let highest = Accepted { ballot, state };
        if !rules::holds(Rule::WriteBackOnRead) {
            return self.answer(highest);
        }
        let holders = self.holders(ballot);
        let mut laggards = Vec::new();
        for (node, seen) in &mut self.heard {
            if seen.take_if(|seen| seen.ballot != ballot).is_some() {
                laggards.push(*node);
            }
        }
        let waiting = laggards.clone();
        self.phase = Phase::WritingBack {
            highest: highest.clone(),
            holders,
            waiting,
            rejected: false,
        };
        Step::WriteBack(highest, laggards)
    }

    fn written_back(&mut self, from: NodeId, reply: Option<VoteReply>) -> Step {
        let Phase::WritingBack {
            highest,
            holders,
            waiting,
            rejected,
        } = &mut self.phase
        else {
            return Step::Wait;
        };
        let Some(place) = waiting.iter().position(|node| *node == from) else {
            return Step::Wait;
        };
        waiting.swap_remove(place);
        match reply {
            Some(VoteReply::Taken) => *holders += 1,
            Some(VoteReply::Rejected(_)) => *rejected = true,
            _ => {}
        }
        let (needed, got) = (self.quorums.agreeing(), *holders);
        if got >= needed {
            let highest = highest.clone();
            return self.answer(highest);
        }
        match (waiting.is_empty(), *rejected) {
            (false, _) => Step::Wait,
            (true, true) => Step::Refresh,
            (true, false) => Step::NoQuorum { needed, got },
        }
    }

    fn answer(&mut self, chosen: Accepted) -> Step {
        let state = chosen.state.clone();
        self.phase = Phase::Answered(Some(chosen));
        Step::Answer(Some(state))
    }

    /// The replies differ in a way that needs a state which is not at hand.
    fn ask_states(&mut self) -> Step {
        if let Phase::States = self.phase {
            // The replicas moved on between two questions of one round; only a write does that.
            return Step::Refresh;
        }
        self.phase = Phase::States;
        self.heard.clear();
        Step::AskStates
    }

    fn replies(&self) -> impl Iterator<Item = &Seen> {
        self.heard.iter().filter_map(|(_, seen)| seen.as_ref())
    }

    /// How many replicas hold the state of this ballot.
    fn holders(&self, ballot: Ballot) -> usize {
        self.replies().filter(|seen| seen.ballot == ballot).count()
    }

    /// The state of this ballot, if any replica has told it.
    fn state_of(&self, ballot: Ballot) -> Option<Arc<State>> {
        let mut holders = self.replies().filter(|seen| seen.ballot == ballot);
        holders.find_map(|seen| seen.state.clone())
    }

    /// Read repair: what was answered, for each replica that has been heard and lags behind it. Tells
    /// of each once.
    pub fn take_laggards(&mut self) -> Vec<(Accepted, NodeId)> {
        let Phase::Answered(Some(newest)) = &self.phase else {
            return Vec::new();
        };
        let mut laggards = Vec::new();
        for (node, seen) in &mut self.heard {
            if seen.take_if(|seen| seen.ballot < newest.ballot).is_some() {
                laggards.push((newest.clone(), *node));
            }
        }
        laggards
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUORUMS: Quorums = Quorums {
        replicas: 3,
        read: 2,
        write: 2,
    };
    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);

    fn accepted(round: u64) -> Accepted {
        let state = State {
            value: Some(round.to_string().into()),
            ..State::default()
        };
        Accepted {
            ballot: Ballot::first(round, A),
            state: Arc::new(state),
        }
    }

    /// A replica that accepted at `round`, 0 for never.
    fn seen(round: u64, state: bool) -> Option<VoteReply> {
        let own = (round > 0).then(|| accepted(round));
        Some(VoteReply::Seen(Seen {
            ballot: own.as_ref().map_or(Ballot::ZERO, |own| own.ballot),
            state: own.filter(|_| state).map(|own| own.state),
        }))
    }

    fn answer(round: u64) -> Step {
        Step::Answer(Some(accepted(round).state))
    }

    #[test]
    fn two_equal_ballots_answer_a_read_and_the_third_replica_is_repaired() {
        let mut reader = Reader::start(QUORUMS);
        assert_eq!(reader.reply(A, seen(2, true)), Step::Wait);
        assert_eq!(
            reader.reply(A, seen(2, true)),
            Step::Wait,
            "one answer each"
        );
        assert_eq!(reader.reply(B, seen(2, false)), answer(2));
        assert!(!reader.finished());
        assert_eq!(reader.take_laggards(), []);
        assert_eq!(reader.reply(C, seen(1, false)), Step::Wait);
        assert_eq!(reader.take_laggards(), [(accepted(2), C)]);
        assert_eq!(reader.take_laggards(), [], "once is enough");
        assert!(reader.finished());
    }

    #[test]
    fn not_found_needs_two_replicas_too() {
        let mut reader = Reader::start(QUORUMS);
        assert_eq!(reader.reply(A, seen(0, true)), Step::Wait);
        assert_eq!(reader.reply(B, seen(1, false)), Step::Wait);
        assert_eq!(reader.reply(C, seen(0, false)), Step::Answer(None));
    }

    #[test]
    fn a_coordinator_that_lags_asks_for_the_state_and_is_repaired() {
        let mut reader = Reader::start(QUORUMS);
        reader.reply(A, seen(1, true));
        assert_eq!(reader.reply(B, seen(2, false)), Step::Wait);
        assert_eq!(reader.reply(C, seen(2, false)), Step::AskStates);
        reader.reply(A, seen(1, true));
        reader.reply(B, seen(2, true));
        assert_eq!(reader.reply(C, seen(2, true)), answer(2));
        assert_eq!(reader.take_laggards(), [(accepted(2), A)]);
    }

    #[test]
    fn where_no_two_agree_the_highest_is_written_back_before_it_is_answered() {
        let mut reader = Reader::start(QUORUMS);
        reader.reply(A, seen(3, true));
        reader.reply(B, seen(2, false));
        assert_eq!(
            reader.reply(C, seen(1, false)),
            Step::WriteBack(accepted(3), vec![B, C])
        );
        assert_eq!(reader.reply(B, Some(VoteReply::Taken)), answer(3));
        assert!(reader.finished());
        assert_eq!(reader.take_laggards(), []);
    }

    #[test]
    fn one_replica_that_is_ahead_alone_is_not_believed() {
        let mut reader = Reader::start(QUORUMS);
        reader.reply(A, seen(3, true));
        reader.reply(B, seen(2, false));
        assert_eq!(reader.reply(C, None), Step::WriteBack(accepted(3), vec![B]));
        assert_eq!(reader.reply(B, None), Step::NoQuorum { needed: 2, got: 1 });
    }

    #[test]
    fn a_write_back_that_is_fenced_needs_a_full_round() {
        let mut reader = Reader::start(QUORUMS);
        reader.reply(A, seen(3, true));
        reader.reply(B, seen(2, false));
        reader.reply(C, None);
        let rejected = Some(VoteReply::Rejected(Ballot::first(9, C)));
        assert_eq!(reader.reply(B, rejected), Step::Refresh);
    }

    #[test]
    fn one_replica_alone_answers_nothing() {
        let mut reader = Reader::start(QUORUMS);
        reader.reply(A, seen(3, true));
        reader.reply(B, None);
        assert_eq!(reader.reply(C, None), Step::NoQuorum { needed: 2, got: 1 });
    }
}
