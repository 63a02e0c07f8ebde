//! The ring: where nodes and keys stand, and which nodes hold a key.
//!
//! Placement is the assignment's. A node stands at the SHA-1 of its id written in decimal, a key
//! at the SHA-1 of its bytes. A key's coordinator is its *successor*: the first node whose
//! position is greater than or equal to the key's, wrapping at the end. The key lives on the
//! successor and the next nodes after it, N in all: its *preference list*. The list depends only on
//! which nodes the cluster file names. It does not change while a node is down, since two quorums
//! of different lists need not meet.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::bytes::Key;

/// A node's name: a number, as in the course (5554, 5556, ...).
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize,
)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for NodeId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<NodeId, Self::Err> {
        let id = text.parse();
        id.map(NodeId).map_err(|_| "an id is a number such as 5554")
    }
}

/// A place on the ring: 160 bits, ordered as a big-endian number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position([u8; 20]);

impl Position {
    /// The position of a key: that of its bytes. A key that begins with `#` has the position of its part
    /// before the first `/`, so that the pages of a group are where the group is.
    pub fn of_key(key: &Key) -> Position {
        let bytes = key.as_slice();
        let end = bytes.iter().position(|byte| *byte == b'/');
        match (bytes.first(), end) {
            (Some(b'#'), Some(end)) => Position::of(&bytes[..end]),
            _ => Position::of(bytes),
        }
    }

    /// The SHA-1 of these bytes as a position.
    pub fn of(bytes: &[u8]) -> Position {
        Position(Sha1::digest(bytes).into())
    }

    /// The position of a node.
    pub fn of_node(node: NodeId) -> Position {
        Position::of(node.to_string().as_bytes())
    }

    /// The last bits of the position: spread evenly over the keys of any range.
    pub fn low_bits(&self) -> u16 {
        u16::from_be_bytes([self.0[18], self.0[19]])
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// All nodes in ring order, and the preference list of each range.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Ascending by position.
    members: Vec<(Position, NodeId)>,
    /// `lists[i]` is the preference list of the keys whose successor is `members[i]`.
    lists: Vec<Vec<NodeId>>,
}

impl Ring {
    /// A ring of `nodes`, each key held by `replicas` of them (N of the assignment).
    ///
    /// # Panics
    /// With fewer nodes than replicas, or without replicas: the configuration refuses both.
    pub fn new(nodes: impl IntoIterator<Item = NodeId>, replicas: usize) -> Ring {
        let mut members: Vec<_> = nodes
            .into_iter()
            .map(|node| (Position::of_node(node), node))
            .collect();
        members.sort_unstable();
        assert!(
            replicas > 0 && members.len() >= replicas,
            "fewer nodes than replicas"
        );
        let lists = (0..members.len())
            .map(|first| {
                (first..first + replicas)
                    .map(|place| members[place % members.len()].1)
                    .collect()
            })
            .collect();
        Ring { members, lists }
    }

    /// The nodes in ring order, with their positions.
    pub fn members(&self) -> &[(Position, NodeId)] {
        &self.members
    }

    /// The range that `position` falls into, as the index of its successor in [`Ring::members`].
    pub fn range_at(&self, position: Position) -> usize {
        let place = self
            .members
            .partition_point(|(member, _)| *member < position);
        place % self.members.len()
    }

    /// The nodes that hold the keys of a range: its successor first.
    pub fn replicas_of_range(&self, range: usize) -> &[NodeId] {
        &self.lists[range]
    }

    /// The nodes beside `node` that hold the keys of a range.
    pub fn other_replicas(&self, range: usize, node: NodeId) -> impl Iterator<Item = NodeId> {
        let replicas = self.replicas_of_range(range).iter().copied();
        replicas.filter(move |replica| *replica != node)
    }

    /// The nodes that hold `key`: the coordinator first, then who takes over, in order.
    pub fn preference_list(&self, key: &Key) -> &[NodeId] {
        self.replicas_of_range(self.range_at(Position::of_key(key)))
    }

    /// The ranges that `node` holds, in ring order.
    pub fn ranges_of(&self, node: NodeId) -> Vec<usize> {
        (0..self.members.len())
            .filter(|&range| self.lists[range].contains(&node))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COURSE: [u32; 5] = [5554, 5556, 5558, 5560, 5562];

    fn course() -> Ring {
        Ring::new(COURSE.map(NodeId), 3)
    }

    fn list(ring: &Ring, key: &str) -> Vec<u32> {
        ring.preference_list(&key.into())
            .iter()
            .map(|node| node.0)
            .collect()
    }

    #[test]
    fn the_five_nodes_of_the_course_stand_where_the_course_puts_them() {
        let expected = [
            ("177ccecaec32c54b82d5aaafc18a2dadb753e3b1", 5562),
            ("208f7f72b198dadd244e61801abe1ec3a4857bc9", 5556),
            ("33d6357cfaaf0f72991b0ecd8c56da066613c089", 5554),
            ("abf0fd8db03e5ecb199a9b82929e9db79b909643", 5558),
            ("c25ddd596aa7c81fa12378fa725f706d54325d12", 5560),
        ];
        let actual: Vec<_> = course()
            .members()
            .iter()
            .map(|(position, node)| (position.to_string(), node.0))
            .collect();
        assert_eq!(
            actual,
            expected.map(|(position, node)| (position.to_owned(), node))
        );
    }

    #[test]
    fn keys_live_on_their_successor_and_the_two_nodes_after_it() {
        let ring = course();
        for key in ["key1", "foo", "apple"] {
            assert_eq!(list(&ring, key), [5562, 5556, 5554], "{key}");
        }
        assert_eq!(list(&ring, "key38"), [5556, 5554, 5558]);
        assert_eq!(list(&ring, "key15"), [5554, 5558, 5560]);
        for key in ["hello", "alice"] {
            assert_eq!(list(&ring, key), [5558, 5560, 5562], "{key}");
        }
        for key in ["key0", "user:1"] {
            assert_eq!(list(&ring, key), [5560, 5562, 5556], "{key}");
        }
    }

    #[test]
    fn a_key_at_the_very_position_of_a_node_belongs_to_it() {
        let ring = course();
        for node in COURSE {
            assert_eq!(list(&ring, &node.to_string())[0], node);
        }
    }

    #[test]
    fn each_node_also_replicates_for_its_two_predecessors() {
        let ring = course();
        let predecessors = [
            (5562, [5560, 5558]),
            (5556, [5562, 5560]),
            (5554, [5556, 5562]),
            (5558, [5554, 5556]),
            (5560, [5558, 5554]),
        ];
        for (node, [first, second]) in predecessors {
            let mut owners: Vec<_> = ring
                .ranges_of(NodeId(node))
                .into_iter()
                .map(|range| ring.replicas_of_range(range)[0].0)
                .collect();
            owners.sort_unstable();
            let mut expected = [node, first, second];
            expected.sort_unstable();
            assert_eq!(owners, expected);
        }
    }

    #[test]
    fn with_as_many_nodes_as_replicas_every_node_holds_everything() {
        let ring = Ring::new([1, 2, 3].map(NodeId), 3);
        for node in [1, 2, 3] {
            assert_eq!(ring.ranges_of(NodeId(node)).len(), 3);
        }
    }
}
