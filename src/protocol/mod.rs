//! The protocol: all that decides, without any I/O. The simulator runs exactly this code.
//!
//! `R = W = 2` of `N = 3` alone is not linearizable: `report/hazards.md` shows four ways in which it
//! breaks. So each key is a small consensus register after CASPaxos (Rystsov, "CASPaxos: Replicated
//! State Machines without logs", 2018). It has the two votes of three and the coordinator that Dynamo
//! has, and adds a *ballot*, which keeps out whoever fell behind.
//!
//! # The way of a request
//!
//! A client talks to any node, which becomes the *origin* of the request. The origin sends it to the
//! key's *coordinator*. If that is silent or slow, the origin tries the next replica of the key
//! ([`origin`]). The coordinator asks all *replicas* of the key to vote ([`quorum`]), and decides as soon
//! as enough have answered: two of three.
//!
//! # The algorithm on one screen
//!
//! ```text
//! write(key, f, dot):                                  at the coordinator, one at a time per key
//!   if the state that this node got chosen last is remembered, take it out:             memory.rs
//!       ballot = the next step of its ballot           no other node has a ballot between the two
//!   else:
//!       ballot = (a round above all seen, this node, step 0)
//!       ask all replicas: prepare(ballot)
//!       wait for R promises
//!       state = the highest accepted state among them, or a new one with the floors that they report
//!   state' = state.absorb(dot, f)                      unchanged if an earlier attempt was decided
//!   ask all replicas: accept(ballot, state')
//!   wait for W                                         now state' is chosen
//!   remember (ballot, state'), and answer
//!
//!   whenever too few can still grant what was asked:
//!       if any has rejected it: wait a jittered moment, and prepare a higher round
//!       if the others are silent: give up; the outcome is unknown if an accept was sent
//!
//! prepare(ballot):                                     at a replica
//!   reject unless ballot > promised
//!   promised = ballot
//!   once that is durable: answer with the accepted ballot and state, or with the floor if there is none
//!
//! accept(ballot, state):                               at a replica
//!   reject if ballot < promised
//!   promised = accepted ballot = ballot; accepted state = state
//!   once that is durable: answer
//!
//! read(key):                                           at the coordinator, any number at a time
//!   ask all replicas for the ballot that they have accepted
//!   if max(R, W) report the same one: answer its state
//!   if all have answered and differ: ask those that lack the highest state to accept it as it is
//!       once max(R, W) hold it: answer it
//!       if too many reject it: propose the present state again, unchanged, and answer that (Refresh)
//! ```
//!
//! # Invariants
//!
//! The code asserts them where it can see them, and the simulator checks them at every step:
//!
//! 1. Neither the promise nor the accepted ballot of a record ever decreases, restarts included.
//! 2. There is one state per key and ballot.
//! 3. No reply is sent before the record that it reports is durable.
//! 4. The clock of each chosen state dominates the clock of the chosen state before it, strictly where
//!    the value changed. After a tombstone, which may have been dropped, this holds for all that is
//!    decided: clock, refusals and floor together.
//! 5. Each dot is absorbed at most once along a key's chosen states.
//! 6. A quorum grants a ballot once.
//! 7. Only the key's replicas vote, and none whose storage is in doubt.
//! 8. There is no success without W accepts at one ballot.
//! 9. Whatever is proposed above a chosen ballot contains what was chosen.
//! 10. The answer of a decided change stays in the chosen states until the next request of its origin is
//!     decided, or until a tombstone is dropped that contains it.
//!
//! # Reading order
//!
//! [`ring`], [`ballot`] and [`version`] name nodes, proposals and writes. [`state`] says what a key holds
//! and how a request changes it. Then follow the register itself in [`quorum`], from the replica's
//! votes up to the coordinator, and the client's side in [`origin`]; [`operation`] is what the two say
//! to each other.
//!
//! [`chain`] takes the place of [`quorum`] in a cluster with the second [`Strategy`]. Its comment tells its
//! algorithm and its invariants.
//!
//! # Beside the register
//!
//! The record of a deleted key goes once all its replicas hold the tombstone ([`tombstones`]). A replica
//! that has lost its votes takes over what the others hold before it votes again ([`takeover`]).
//!
//! # On top of the register
//!
//! A [`group`] of messages is one key, and its messages are ordered by the states of that key.
//!
//! # Known limits
//!
//! A replica that lies is not covered, and the members of a key's preference list never change.

pub mod ballot;
pub mod chain;
pub mod group;
pub mod operation;
pub mod origin;
pub mod quorum;
pub mod ring;
pub mod state;
pub mod takeover;
pub mod tombstones;
pub mod version;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How the replicas of a key agree.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// By a quorum for each key.
    #[default]
    Quorum,
    /// By a chain for each range.
    Chain,
}

/// The end of the fingerprint of a cluster that runs chains.
const OF_CHAIN: &str = "-chain";

impl Strategy {
    /// The name of a cluster together with its strategy.
    pub fn mark(self, cluster: String) -> String {
        match self {
            Strategy::Quorum => cluster,
            Strategy::Chain => cluster + OF_CHAIN,
        }
    }

    /// The strategy of a cluster with this fingerprint.
    pub fn of(fingerprint: &str) -> Strategy {
        if fingerprint.ends_with(OF_CHAIN) {
            Strategy::Chain
        } else {
            Strategy::Quorum
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Strategy::Quorum => "quorum",
            Strategy::Chain => "chain",
        })
    }
}

impl FromStr for Strategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Strategy, String> {
        match text {
            "quorum" => Ok(Strategy::Quorum),
            "chain" => Ok(Strategy::Chain),
            _ => Err(format!("{text:?} is no strategy: quorum or chain")),
        }
    }
}

pub use ballot::Ballot;
pub use operation::{Operation, Outcome, Why};
pub use quorum::Quorums;
pub use quorum::acceptor::{Accepted, Promise, Record, Seen, Update, VoteReply, VoteRequest};
pub use state::{Answer, Change, State, Verdict};
pub use tombstones::Fence;
