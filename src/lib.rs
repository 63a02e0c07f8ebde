//! # A simplified Amazon Dynamo that is linearizable and available at the same time
//!
//! A replicated key-value store after the assignment "Replicated Key-Value Storage" of the course
//! CSE 486/586. Five nodes form a SHA-1 ring. Each key lives on three of them, and two of the three
//! decide on each read and write. One of the three coordinates the key, and the next one takes over
//! when it is silent. The store promises more than the assignment asks: `GET`, `PUT`, `DEL` and `CAS` are linearizable
//! through any node under crashes, pauses, cuts, and lost or late messages, and nothing that was
//! acknowledged is lost.
//!
//! # Reading order
//!
//! 1. [`bytes`], [`error`]: keys and values, and how a request can fail.
//! 2. [`protocol`]: all that decides, without any I/O. The comment of its module is the algorithm. Then
//!    [`protocol::ring`] (where keys live), [`protocol::version`], [`protocol::ballot`] and
//!    [`protocol::state`], [`protocol::quorum`] and [`protocol::chain`] (the two ways in which the replicas
//!    of a key agree), and [`protocol::origin`] (where a client's request goes). [`protocol::group`] orders
//!    messages with them.
//! 3. [`storage`]: makes records durable before anybody hears of them.
//! 4. [`transport`]: reads lines, sends batches, and keeps one connection per pair of nodes and
//!    direction.
//! 5. [`node`]: the shell of one node. [`node::drive`] is the loop in which the rules meet the world,
//!    and [`node::replica`] is the only door to the votes of a node.
//!    - [`node::standing`] decides whether a node may vote at all, for instance after it lost its disk.
//!    - [`node::anti_entropy`] copies what a node missed while it was away.
//!    - [`node::capacity`], [`node::admission`] and [`node::tombstones`] bound memory.
//!    - [`node::listing`] and [`node::deletion`] carry out `GET` and `DEL` of `@` and `*`.
//! 6. [`server`]: clients, and the text protocol.
//! 7. [`client`]: a client of one node, one that knows the ring, and one of a group.
//! 8. [`config`], [`cli`], [`logging`]: what surrounds a node.
//! 9. [`testing`], [`sync`]: where tests take hold. [`testing::rules`] names the rules that a test can
//!    leave out, [`testing::faults`] what it can break in a running process, and [`testing::messages`] which
//!    messages it can lose.
//!
//! The pages in `report/` trace the decisions to the assignment.
//!
//! # Glossary
//!
//! - **Origin**: the node that a client talks to. It sends the request to the key's coordinator.
//! - **Coordinator**: the node that has the replicas vote on a request. Usually it is the first
//!   replica of the key, and the next one when that is silent.
//! - **Replica**: one of the N nodes that hold a key and vote on it.
//! - **Preference list**: the replicas of a key in ring order, as in the Dynamo paper.
//! - **Range**: the keys of one preference list, named after its first node.
//! - **Ballot**: the number of an attempt to change a key. The higher ballot wins.
//! - **Chosen**: what W replicas have accepted at one ballot. It is never lost.
//! - **Dot**: the name of one write, which is its origin and a sequence number.
//! - **Tombstone**: the record of a deleted key. It is dropped once all replicas hold it.
//! - **Floor**: per origin, the sequence number up to which requests are refused, because a dropped
//!   tombstone may contain them.
//! - **Fence**: what a replica remembers of all dropped records of a range together: a ballot and a floor.
//! - **Epoch**: the name of one chain of a range, with the strategy `chain`. The higher epoch wins.
//! - **Head**, **tail**: the first member of a chain, which decides writes, and the last, which answers reads.
//! - **Refresh**: a full round of votes that gets the present state of a key chosen again.
//! - **Standing**: whether a node may vote, or has to copy its records first.
//! - **Suspect**: a peer that has been silent for a read time-out.
//! - **Doubt**: a range is in doubt at a node while that node may have missed writes of it.
//!
//! # What is not covered
//!
//! No node lies: a replica that sends wrong votes can break the store. The nodes of a cluster, and N, R and
//! W, are fixed by its file. A majority of a key's replicas has to be reachable to read or write it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub mod bytes;
pub mod cli;
pub mod client;
pub mod config;
pub mod error;
pub mod logging;
pub mod node;
pub mod protocol;
pub mod server;
pub mod storage;
pub mod sync;
pub mod testing;
pub mod transport;

/// Locks a mutex, even if a thread panicked with the lock held. Such a thread left the data whole, or its
/// panic ended the process.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits on a condition variable. Wake-ups may be spurious, so the caller checks its condition again.
pub(crate) fn wait<'a, T>(woken: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    woken.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Waits like [`wait`], but no longer than `time`.
pub(crate) fn wait_for<'a, T>(
    woken: &Condvar,
    guard: MutexGuard<'a, T>,
    time: Duration,
) -> MutexGuard<'a, T> {
    let waited = woken.wait_timeout(guard, time);
    waited.unwrap_or_else(PoisonError::into_inner).0
}
