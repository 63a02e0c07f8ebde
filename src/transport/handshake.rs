//! The handshake at the start of each connection: both nodes say which of their processes they are.
//!
//! The node that opened the connection sends a [`Hello`], and the other one answers with a [`Welcome`].

use serde::{Deserialize, Serialize};

use crate::protocol::ring::NodeId;
use crate::storage::{ClusterId, Start};

/// The version of the protocol between nodes, raised whenever two versions would misunderstand each
/// other.
pub const PROTOCOL: u32 = 9;

/// What a process says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Introduction {
    pub start: Start,
    /// The id of its cluster, if the nodes have agreed on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<ClusterId>,
}

/// The first line of a connection, from the node that opened it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: u32,
    /// The fingerprint of the cluster: its name, node ids and quorums.
    pub cluster: String,
    pub from: NodeId,
    /// The node that the sender looks for: the address in its cluster file may be wrong.
    pub to: NodeId,
    pub introduction: Introduction,
}

/// The answer to a [`Hello`], from the node that accepted the connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Welcome {
    /// The connection is accepted.
    Welcome(Introduction),
    /// The connection is closed, for this reason.
    Refused(String),
    /// The connection is closed, because a later process of the same node is known: the sender of the
    /// hello must not vote.
    Outdated(String),
}

impl Welcome {
    /// Why the connection is closed; empty if it is accepted.
    pub fn text(&self) -> &str {
        match self {
            Welcome::Welcome(_) => "",
            Welcome::Refused(why) | Welcome::Outdated(why) => why,
        }
    }
}

/// The node that links and inbound connections belong to.
pub trait LocalNode: Send + Sync {
    /// What this process says of itself.
    fn introduction(&self) -> Introduction;

    /// Checks whether a process may be this peer.
    ///
    /// # Errors
    /// What to answer it instead of a welcome.
    fn meet(&self, peer: NodeId, introduction: &Introduction) -> Result<(), Welcome>;

    /// A peer refused this process, because it knows a later one of this node or another one with the
    /// same number.
    fn outdated(&self, peer: NodeId, why: &str);

    /// A peer may have missed messages: it was connected to, was heard again after a silence, or some
    /// messages to it were dropped.
    fn returned(&self, peer: NodeId);
}
