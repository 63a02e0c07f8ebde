//! The first strategy: a register per key, which its replicas agree on by quorums.
//!
//! [`acceptor`] is a replica's vote. [`proposer`] gets one change chosen, and [`reader`] finds out what
//! is chosen; both count replies with [`tally`]. [`coordinator`] drives all requests of a node's keys
//! through them.

pub mod acceptor;
pub mod coordinator;
pub mod proposer;
pub mod reader;
pub mod tally;

/// N, R and W of the assignment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quorums {
    /// N: how many nodes hold a key.
    pub replicas: usize,
    /// R: promises needed before a state is proposed. For reads see [`Quorums::agreeing`].
    pub read: usize,
    /// W: replicas that must accept a state before it is chosen.
    pub write: usize,
}

impl Quorums {
    /// How many replicas must report the same accepted ballot before a read believes it: W of
    /// them make it chosen, and R of them meet every state that was chosen before.
    pub fn agreeing(&self) -> usize {
        self.read.max(self.write)
    }
}
