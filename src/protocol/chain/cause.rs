//! What a node tells of an epoch that it has begun.

use std::fmt;
use std::time::Duration;

use super::epoch::Adopted;
use crate::protocol::ring::NodeId;

/// Why a replica has proposed an epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cause {
    pub adopted: Adopted,
    /// Who is left out.
    pub without: Vec<NodeId>,
    /// On how many keys the members differed.
    pub keys: usize,
    pub took: Duration,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |nodes: &[NodeId]| {
            let names: Vec<_> = nodes.iter().map(NodeId::to_string).collect();
            names.join(" -> ")
        };
        write!(
            f,
            "epoch {} of {} begins, proposed by this node ",
            self.adopted.epoch,
            names(&self.adopted.members)
        )?;
        match &self.without[..] {
            [] => write!(f, "since all are there")?,
            without => {
                let without: Vec<_> = without.iter().map(NodeId::to_string).collect();
                write!(f, "without {}", without.join(", "))?;
            }
        }
        let (keys, millis) = (self.keys, self.took.as_millis());
        write!(f, ": moved {keys} keys in {millis} ms")
    }
}
