//! Ballots: the order of the proposals for one key.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::protocol::ring::NodeId;

/// The name of one proposal for one key, ordered by round, then node, then step.
///
/// - No ballot is ever used for two states.
/// - A node uses only ballots with its own id.
/// - Between two steps of one round there is no ballot of another node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(into = "(u64, NodeId, u64)", from = "(u64, NodeId, u64)")]
pub struct Ballot {
    /// Starts at 1. A proposer picks one above any that it has seen.
    pub round: u64,
    /// The proposer's node.
    pub node: NodeId,
    /// Counts the writes that follow each other under one round, without a prepare between them.
    pub step: u64,
}

impl Default for Ballot {
    fn default() -> Ballot {
        Ballot::ZERO
    }
}

impl Ballot {
    /// Below every ballot that is ever proposed.
    pub const ZERO: Ballot = Ballot {
        round: 0,
        node: NodeId(0),
        step: 0,
    };

    /// The first ballot of `round`.
    pub fn first(round: u64, node: NodeId) -> Ballot {
        Ballot {
            round,
            node,
            step: 0,
        }
    }

    /// The ballot right after this one, of the same owner.
    pub fn next_step(self) -> Ballot {
        Ballot {
            step: self.step + 1,
            ..self
        }
    }
}

impl From<(u64, NodeId, u64)> for Ballot {
    fn from((round, node, step): (u64, NodeId, u64)) -> Ballot {
        Ballot { round, node, step }
    }
}

impl From<Ballot> for (u64, NodeId, u64) {
    fn from(ballot: Ballot) -> (u64, NodeId, u64) {
        (ballot.round, ballot.node, ballot.step)
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.round, self.node, self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_ballot_of_another_node_lies_between_two_steps() {
        let (low, high) = (NodeId(1), NodeId(2));
        let first = Ballot::first(3, low);
        let second = first.next_step();
        assert!(first < second);
        assert!(second < Ballot::first(3, high));
        assert!(
            Ballot {
                round: 2,
                node: high,
                step: 99
            } < first
        );
        assert!(Ballot::ZERO < Ballot::first(1, NodeId(0)));
    }
}
