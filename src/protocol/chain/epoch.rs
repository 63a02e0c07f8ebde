//! Epochs: which chain of a range is the present one, and who is in it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::protocol::Ballot;
use crate::protocol::ring::NodeId;

/// How many rounds a lost folder may have proposed that no other replica has seen.
const UNSEEN_ROUNDS: u64 = 1000;

/// The name of one chain of a range, ordered by round and then by the node that proposed it.
///
/// Two chains of a range have a member in common, since each has two of the three replicas at least. So the
/// higher of two epochs wins wherever both come, and nobody has to agree on which chain is next.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize,
)]
#[serde(into = "(u64, NodeId)", from = "(u64, NodeId)")]
pub struct Epoch {
    /// Starts at 1. A proposer picks one above any that it has heard of.
    pub round: u64,
    /// The node that proposed it.
    pub node: NodeId,
}

/// No honest replica comes so far. Above it a round could not rise any more.
const MOST_ROUNDS: u64 = 1 << 60;

impl Epoch {
    /// Whether an honest replica may have proposed it.
    pub(super) fn is_credible(self) -> bool {
        self.round < MOST_ROUNDS
    }

    /// The ballot of a write of this epoch: the head's steps count its writes of all keys of the range.
    pub fn ballot(self, step: u64) -> Ballot {
        Ballot {
            round: self.round,
            node: self.node,
            step,
        }
    }
}

impl From<(u64, NodeId)> for Epoch {
    fn from((round, node): (u64, NodeId)) -> Epoch {
        Epoch { round, node }
    }
}

impl From<Epoch> for (u64, NodeId) {
    fn from(epoch: Epoch) -> (u64, NodeId) {
        (epoch.round, epoch.node)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.node)
    }
}

/// The highest epoch that a replica has adopted for a range. Durable, and it only rises.
///
/// The default has no members and is served by nobody.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Adopted {
    pub epoch: Epoch,
    /// The chain, in the order of the preference list.
    pub members: Vec<NodeId>,
    /// This replica may have proposed epochs up to this round in a folder that was lost.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub floor: u64,
    /// This replica has copied what it holds after it lost its folder, and has not served since. So it may hold a
    /// state of one other replica that no chain has chosen.
    #[serde(default, skip_serializing_if = "is_false")]
    pub copied: bool,
}

fn is_false(it: &bool) -> bool {
    !it
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Adopted {
    /// The member that decides writes.
    pub fn head(&self) -> Option<NodeId> {
        self.members.first().copied()
    }

    /// The member that answers reads.
    pub fn tail(&self) -> Option<NodeId> {
        self.members.last().copied()
    }

    /// The member that a node passes writes on to, or none at the tail.
    pub fn after(&self, node: NodeId) -> Option<NodeId> {
        let place = self.members.iter().position(|member| *member == node)?;
        self.members.get(place + 1).copied()
    }

    /// What a node that lost its folder takes over of another replica. It has forgotten which epochs it proposed.
    /// The number of its start sets apart folders that were lost one after the other.
    pub fn copied(self, start: u64) -> Adopted {
        let floor = self.epoch.round + start * UNSEEN_ROUNDS;
        let copied = true;
        Adopted {
            floor,
            copied,
            ..self
        }
    }

    pub fn has(&self, node: NodeId) -> bool {
        self.members.contains(&node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_member_is_the_head_and_each_passes_on_to_the_next() {
        let [head, middle, tail] = [9, 2, 5].map(NodeId);
        let chain = Adopted {
            epoch: Epoch::default(),
            members: vec![head, middle, tail],
            ..Adopted::default()
        };
        assert_eq!((chain.head(), chain.tail()), (Some(head), Some(tail)));
        assert_eq!(chain.after(head), Some(middle));
        assert_eq!(chain.after(middle), Some(tail));
        assert_eq!(chain.after(tail), None);
        assert_eq!(chain.after(NodeId(7)), None);
    }

    #[test]
    fn all_ballots_of_a_higher_epoch_are_above_those_of_a_lower_one() {
        let low = Epoch::from((4, NodeId(9)));
        for high in [(5, NodeId(1)), (4, NodeId(10))] {
            assert!(low.ballot(u64::MAX) < Epoch::from(high).ballot(1));
        }
    }
}
