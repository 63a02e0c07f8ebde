//! The reader: finds the chosen state of one key. Replies in, next step out.

use std::sync::Arc;

use super::Quorums;
use super::tally::{Count, Tally};
use crate::protocol::ring::NodeId;
use crate::protocol::{Accepted, Ballot, Seen, State, VoteReply};
use crate::testing::rules::{self, Rule};

/// What the coordinator has to do next for a read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadStep {
    /// Wait for more replies.
    Wait,
    /// Ask every replica again, this time for its state too.
    AskStates,
    /// Ask these replicas to accept this state at its old ballot.
    WriteBack(Accepted, Vec<NodeId>),
    /// Answer this state, which is chosen; `None` if nothing was ever written. Replies that come later
    /// still show which replicas lag.
    Answer(Option<Arc<State>>),
    /// Start a full round: a replica has promised a higher ballot, so nothing less tells what is chosen.
    Refresh,
    /// Give up: too few replicas answered.
    NoQuorum { needed: usize, got: usize },
}

/// One read, from the first question to the last repair.
#[derive(Debug)]
pub struct Reader {
    quorums: Quorums,
    phase: ReadPhase,
    /// The replicas that have answered the last question, and what each has accepted: `None` if it was
    /// silent, or if its repair has begun.
    heard: Vec<(NodeId, Option<Seen>)>,
}

#[derive(Debug)]
enum ReadPhase {
    /// The own replica is asked for its state, the others for their ballots alone.
    Ballots,
    /// Every replica is asked for its state.
    States,
    /// The laggards are asked to accept the highest state.
    WritingBack { highest: Accepted, tally: Tally },
    /// This is chosen.
    Answered(Option<Accepted>),
}

impl Reader {
    /// Starts a read. The caller asks every replica for its ballot, and its own for the state too.
    pub fn start(quorums: Quorums) -> Reader {
        Reader {
            quorums,
            phase: ReadPhase::Ballots,
            heard: Vec::with_capacity(quorums.replicas),
        }
    }

    /// Whether the read is answered. Then further replies only serve repairs.
    pub fn answered(&self) -> bool {
        matches!(self.phase, ReadPhase::Answered(_))
    }

    /// Whether the read is answered and every replica has been heard, so that nothing is left to do.
    pub fn finished(&self) -> bool {
        self.answered() && self.heard.len() == self.quorums.replicas
    }

    /// Takes the answer of one replica to the last question; `None` is its silence. A second answer of
    /// the same replica to one question changes nothing.
    pub fn reply(&mut self, from: NodeId, reply: Option<VoteReply>) -> ReadStep {
        if let ReadPhase::WritingBack { .. } = self.phase {
            return self.written_back(from, reply);
        }
        if self.heard.iter().any(|(node, _)| *node == from) {
            return ReadStep::Wait;
        }
        let seen = match reply {
            Some(VoteReply::Seen(seen)) => Some(seen),
            // Silence, or a reply that does not fit the question.
            _ => None,
        };
        self.heard.push((from, seen));
        if self.answered() {
            return ReadStep::Wait;
        }
        self.advance()
    }

    fn advance(&mut self) -> ReadStep {
        let needed = self.quorums.agreeing();
        let held_by_enough = |seen: &&Seen| self.holders(seen.ballot).count() >= needed;
        let agreed = self.replies().find(held_by_enough).map(|seen| seen.ballot);
        if let Some(ballot) = agreed {
            return self.agreed(ballot);
        }
        if self.heard.len() < self.quorums.replicas {
            return ReadStep::Wait;
        }
        let got = self.replies().count();
        match self.replies().map(|seen| seen.ballot).max() {
            Some(highest) if got >= needed => self.disagreed(highest),
            _ => ReadStep::NoQuorum { needed, got },
        }
    }

    /// Enough replicas report this ballot, so its state is chosen.
    fn agreed(&mut self, ballot: Ballot) -> ReadStep {
        if ballot == Ballot::ZERO {
            self.phase = ReadPhase::Answered(None);
            return ReadStep::Answer(None);
        }
        match self.state_of(ballot) {
            Some(state) => self.answer(Accepted { ballot, state }),
            None => self.ask_states(),
        }
    }

    /// All replicas are heard, and no ballot has enough holders. The highest state may be chosen or
    /// not, so it must not be answered yet: a later read could miss it. Once enough replicas hold it,
    /// it is chosen.
    fn disagreed(&mut self, ballot: Ballot) -> ReadStep {
        let Some(state) = self.state_of(ballot) else {
            return self.ask_states();
        };
        let highest = Accepted { ballot, state };
        if !rules::holds(Rule::WriteBackOnRead) {
            return self.answer(highest);
        }
        let mut tally = Tally::new(self.quorums);
        tally.granted = self.holders(ballot).count();
        let laggards = self.take_laggards(ballot);
        for (node, _) in &self.heard {
            if !laggards.contains(node) {
                tally.hear(*node); // It holds the state, or was silent.
            }
        }
        self.phase = ReadPhase::WritingBack {
            highest: highest.clone(),
            tally,
        };
        ReadStep::WriteBack(highest, laggards)
    }

    fn written_back(&mut self, from: NodeId, reply: Option<VoteReply>) -> ReadStep {
        let ReadPhase::WritingBack { highest, tally } = &mut self.phase else {
            unreachable!("only a write-back is answered so");
        };
        if !tally.hear(from) {
            return ReadStep::Wait;
        }
        match reply {
            Some(VoteReply::Taken) => tally.granted += 1,
            Some(VoteReply::Rejected(_)) => tally.rejected += 1,
            // Silence, or a reply that does not fit the question.
            _ => {}
        }
        match tally.count(self.quorums.agreeing()) {
            Count::Enough => {
                let highest = highest.clone();
                self.answer(highest)
            }
            Count::Open => ReadStep::Wait,
            Count::Outrun => ReadStep::Refresh,
            Count::NoQuorum { needed, got } => ReadStep::NoQuorum { needed, got },
        }
    }

    fn answer(&mut self, chosen: Accepted) -> ReadStep {
        let state = chosen.state.clone();
        self.phase = ReadPhase::Answered(Some(chosen));
        ReadStep::Answer(Some(state))
    }

    /// The replicas report a ballot whose state is not at hand.
    fn ask_states(&mut self) -> ReadStep {
        if let ReadPhase::States = self.phase {
            // A replica that was asked for its state sends it. A full round does without one that fails to.
            return ReadStep::Refresh;
        }
        self.phase = ReadPhase::States;
        self.heard.clear();
        ReadStep::AskStates
    }

    fn replies(&self) -> impl Iterator<Item = &Seen> {
        self.heard.iter().filter_map(|(_, seen)| seen.as_ref())
    }

    /// The replies of the replicas that hold the state of this ballot.
    fn holders(&self, ballot: Ballot) -> impl Iterator<Item = &Seen> {
        self.replies().filter(move |seen| seen.ballot == ballot)
    }

    /// The state of this ballot, if any replica has sent it.
    fn state_of(&self, ballot: Ballot) -> Option<Arc<State>> {
        self.holders(ballot).find_map(|seen| seen.state.clone())
    }

    /// Read repair: the answered state, for each replica that has been heard and lags behind it. Each
    /// replica is returned once.
    pub fn take_repairs(&mut self) -> Vec<(Accepted, NodeId)> {
        let ReadPhase::Answered(Some(chosen)) = &self.phase else {
            return Vec::new();
        };
        let chosen = chosen.clone();
        let laggards = self.take_laggards(chosen.ballot).into_iter();
        laggards.map(|node| (chosen.clone(), node)).collect()
    }

    /// The replicas below this ballot. Each is returned once, since its reply is taken out.
    fn take_laggards(&mut self, ballot: Ballot) -> Vec<NodeId> {
        let mut laggards = Vec::new();
        for (node, seen) in &mut self.heard {
            if seen.take_if(|seen| seen.ballot < ballot).is_some() {
                laggards.push(*node);
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

    fn answer(round: u64) -> ReadStep {
        ReadStep::Answer(Some(accepted(round).state))
    }

    #[test]
    fn two_equal_ballots_answer_a_read_and_the_third_replica_is_repaired() {
        let mut reader = Reader::start(QUORUMS);
        assert_eq!(reader.reply(A, seen(2, true)), ReadStep::Wait);
        assert_eq!(
            reader.reply(A, seen(2, true)),
            ReadStep::Wait,
            "one answer each"
        );
        assert_eq!(reader.reply(B, seen(2, false)), answer(2));
        assert!(!reader.finished());
        assert_eq!(reader.take_repairs(), []);
        assert_eq!(reader.reply(C, seen(1, false)), ReadStep::Wait);
        assert_eq!(reader.take_repairs(), [(accepted(2), C)]);
        assert_eq!(reader.take_repairs(), [], "once is enough");
        assert!(reader.finished());
    }

    #[test]
    fn not_found_needs_two_replicas_too() {
        let mut reader = Reader::start(QUORUMS);
        assert_eq!(reader.reply(A, seen(0, true)), ReadStep::Wait);
        assert_eq!(reader.reply(B, seen(1, false)), ReadStep::Wait);
        assert_eq!(reader.reply(C, seen(0, false)), ReadStep::Answer(None));
    }

    #[test]
    fn a_coordinator_that_lags_asks_for_the_state_and_is_repaired() {
        let mut reader = Reader::start(QUORUMS);
        reader.reply(A, seen(1, true));
        assert_eq!(reader.reply(B, seen(2, false)), ReadStep::Wait);
        assert_eq!(reader.reply(C, seen(2, false)), ReadStep::AskStates);
        reader.reply(A, seen(1, true));
        reader.reply(B, seen(2, true));
        assert_eq!(reader.reply(C, seen(2, true)), answer(2));
        assert_eq!(reader.take_repairs(), [(accepted(2), A)]);
    }

    #[test]
    fn where_no_two_agree_the_highest_is_written_back_before_it_is_answered() {
        let mut reader = Reader::start(QUORUMS);
        reader.reply(A, seen(3, true));
        reader.reply(B, seen(2, false));
        assert_eq!(
            reader.reply(C, seen(1, false)),
            ReadStep::WriteBack(accepted(3), vec![B, C])
        );
        assert_eq!(reader.reply(B, Some(VoteReply::Taken)), answer(3));
        assert!(reader.finished());
        assert_eq!(reader.take_repairs(), []);
    }

    #[test]
    fn one_replica_that_is_ahead_alone_is_not_believed() {
        let mut reader = Reader::start(QUORUMS);
        reader.reply(A, seen(3, true));
        reader.reply(B, seen(2, false));
        assert_eq!(
            reader.reply(C, None),
            ReadStep::WriteBack(accepted(3), vec![B])
        );
        assert_eq!(
            reader.reply(B, None),
            ReadStep::NoQuorum { needed: 2, got: 1 }
        );
    }

    #[test]
    fn a_write_back_that_is_fenced_needs_a_full_round() {
        let mut reader = Reader::start(QUORUMS);
        reader.reply(A, seen(3, true));
        reader.reply(B, seen(2, false));
        reader.reply(C, None);
        let rejected = Some(VoteReply::Rejected(Ballot::first(9, C)));
        assert_eq!(reader.reply(B, rejected), ReadStep::Refresh);
    }

    #[test]
    fn one_replica_alone_answers_nothing() {
        let mut reader = Reader::start(QUORUMS);
        reader.reply(A, seen(3, true));
        reader.reply(B, None);
        assert_eq!(
            reader.reply(C, None),
            ReadStep::NoQuorum { needed: 2, got: 1 }
        );
    }
}
