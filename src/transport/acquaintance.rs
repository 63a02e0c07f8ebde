//! How two nodes make each other's acquaintance, at the start of each connection between them.

use super::message::{Introduction, Welcome};
use crate::protocol::ring::NodeId;

/// The node that links and inbound connections belong to.
pub trait Acquaintance: Send + Sync {
    /// What this node says of itself.
    fn introduction(&self) -> Introduction;

    /// Whether this process may be the peer.
    ///
    /// # Errors
    /// What to tell it instead of a welcome.
    fn meet(&self, peer: NodeId, introduction: &Introduction) -> Result<(), Welcome>;

    /// A peer knows of a later process of this node, or of another one of the same number.
    fn outdated(&self, peer: NodeId, why: &str);

    /// The peer was heard again after a silence, has been connected to, or was not sent some messages:
    /// it may have missed something.
    fn returned(&self, peer: NodeId);
}
