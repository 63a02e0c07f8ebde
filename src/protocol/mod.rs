//! The protocol: all that decides, without any I/O. The simulator runs exactly this code.
//!
//! `R = W = 2` of `N = 3` alone is not linearizable: `report/hazards.md` shows four ways in which it
//! breaks. So each key is a small consensus register after CASPaxos (Rystsov, "CASPaxos: Replicated
//! State Machines without logs", 2018). It has the same two votes of three and the same coordinator,
//! and adds a *ballot*, which fences off whoever fell behind.
//!
//! # The way of a request
//!
//! A client talks to any node, which becomes the *origin* of the request. The origin sends it to the
//! key's *coordinator*, and when that one is silent to the next replica of the key ([`origin`]). The
//! coordinator asks all *replicas* of the key to vote ([`quorum`]), and the first two votes decide.
//!
//! # The algorithm on one screen
//!
//! ```text
//! write(key, f, dot):                                 at the coordinator, one at a time per key
//!   if the state that was chosen last is remembered:                                    memory.rs
//!       ballot = the next step of its ballot           nobody else can own a ballot between the two
//!   else:
//!       ballot = (a round above all seen, this node)
//!       ask all replicas: prepare(ballot)
//!       wait for R promises                            refused: try again with a higher round
//!       state = the highest accepted state among them
//!   state' = state.absorb(dot, f)                      unchanged if an earlier try was absorbed
//!   ask all replicas: accept(ballot, state')
//!   wait for W                                         refused: try again with a higher round
//!   remember and answer                                the state is chosen
//!
//! prepare(ballot):                                     at a replica
//!   refuse unless ballot > promised
//!   promised = ballot; answer (accepted ballot, accepted state), once that is durable
//!
//! accept(ballot, state):                               at a replica
//!   refuse if ballot < promised
//!   promised = accepted ballot = ballot; accepted state = state; answer, once that is durable
//!
//! read(key):                                           at the coordinator, any number at a time
//!   ask all replicas for the ballot that they have accepted
//!   if max(R, W) tell the same one: answer its state
//!   else send the highest state to those that lack it, and answer once W hold it
//! ```
//!
//! # Invariants
//!
//! Asserted in the code where it can see them, and at every step of a simulation:
//!
//! 1. Neither the promise nor the accepted ballot of a record ever decreases, restarts included.
//! 2. There is one state per key and ballot.
//! 3. No reply is sent before the record that it tells of is durable.
//! 4. The clock of each chosen state dominates the clock of the chosen state before it, strictly where
//!    the value changed. After a tombstone, which may have been dropped, all that is decided does.
//! 5. Each dot is absorbed at most once along a key's chosen states.
//! 6. A ballot is granted once.
//! 7. Only the key's replicas vote, and none whose storage is in doubt.
//! 8. There is no success without W accepts at one ballot.
//! 9. Whatever is proposed above a chosen ballot contains what was chosen.
//!
//! # Beside the register
//!
//! The record of a deleted key goes once all its replicas hold the tombstone ([`tombstones`]). A
//! replica that has lost its votes takes over what the others hold before it votes again
//! ([`takeover`]).
//!
//! # Known limits
//!
//! A replica that lies is not covered, and the members of a key's preference list never change.

pub mod ballot;
pub mod operation;
pub mod origin;
pub mod quorum;
pub mod ring;
pub mod state;
pub mod takeover;
pub mod tombstones;
pub mod version;

pub use ballot::Ballot;
pub use operation::{Operation, Outcome, Why};
pub use quorum::Quorums;
pub use quorum::acceptor::{Accepted, Promise, Record, Seen, Update, VoteReply, VoteRequest};
pub use state::{Change, State, Verdict};
pub use tombstones::Fence;
