//! The register: how the replicas of one key agree, without any I/O.
//!
//! `R = W = 2` of `N = 3` alone is not linearizable: see `report/hazards.md` for four ways in
//! which it breaks. So each key is a small consensus register after CASPaxos (Rystsov, "CASPaxos:
//! Replicated State Machines without logs", 2018): the same two votes of three, the same
//! coordinator, and a *ballot* that fences whoever fell behind.
//!
//! The story of one write, `f`: state -> new state:
//!
//! 1. The coordinator picks a [`Ballot`] above all that it has seen and asks every replica to
//!    *prepare* it. A replica grants a strictly higher ballot than any before, promises to take
//!    nothing lower from then on, and reports what it accepted last ([`acceptor`]).
//! 2. Of enough promises the coordinator takes the highest accepted state. That state has
//!    perhaps absorbed this very request already, in an earlier try: the request's dot tells
//!    ([`state`]). If not, the coordinator applies `f` ([`proposer`]).
//! 3. It asks every replica to *accept* the new state at its ballot. Accepted by enough of them
//!    the state is *chosen*, and the client is answered.
//!
//! The coordinator remembers what was chosen. Its next write of the key goes straight to step 3,
//! at the same round and the next step: nobody else can own a ballot between the two.
//!
//! A read asks every replica for the ballot that it accepted. Enough equal answers mean that this
//! state is chosen. If they differ, the highest one is sent again until enough replicas hold it,
//! and only then answered ([`reader`]).
//!
//! The record of a deleted key goes once all its replicas hold the tombstone ([`fence`]). A replica
//! that has lost its votes takes over what the others hold before it votes again ([`copied`]).
//!
//! Everything here is a pure function or a state machine: messages in, messages out. Threads and
//! sockets are a shell around it, and the simulator runs the same code.
//!
//! Known limits: a replica that lies is not covered, and the members of a key's preference list
//! never change.

pub mod acceptor;
pub mod ballot;
pub mod copied;
pub mod fence;
pub mod operation;
pub mod proposer;
pub mod reader;
pub mod state;

pub use acceptor::{Accepted, Promise, Record, Seen, Update, VoteReply, VoteRequest};
pub use ballot::Ballot;
pub use fence::Fence;
pub use operation::{Operation, Outcome, Why};
pub use state::{Change, State, Verdict};

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
