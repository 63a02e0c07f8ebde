//! # A simplified Amazon Dynamo that is linearizable and available at the same time
//!
//! A replicated key-value store after the assignment "Replicated Key-Value Storage" of the course
//! CSE 486/586: five nodes on a SHA-1 ring, each key on three of them, reads and writes with two
//! of the three; a coordinator per key whose successor takes over when it is silent. What is
//! promised beyond that: `GET`, `PUT`, `DEL` and `CAS` are linearizable through any node under
//! crashes, pauses, cuts and lost or late messages, and nothing acknowledged is lost.
//!
//! ## Reading order
//!
//! The rules, without any I/O:
//!
//! 1. [`bytes`]: keys and values, and how long they may be.
//! 2. [`ring`]: where keys live.
//! 3. [`clock`]: dots and vector clocks, the names and versions of writes.
//! 4. [`register`]: how the replicas of one key agree. Start here for the algorithm.
//! 5. [`node::coordinator`]: drives the requests of its keys through the replicas' votes.
//! 6. [`node::router`]: sends a client's request to the coordinator, or to its successor.
//!
//! The shell around them:
//!
//! 7. [`storage`]: records on disk before anybody hears of them.
//! 8. [`net`] and [`peer`]: lines in, batches out; one connection per pair of nodes and direction.
//! 9. [`node`]: the threads of a node, and [`node::drive`], where the rules meet them: what router
//!    and coordinator want is carried out. [`node::replica`] answers the questions of others.
//! 10. [`node::anti_entropy`]: a node that returns copies what it missed. [`node::membership`]: one
//!     that lost its disk does not vote before it has, and neither does one with an old copy of it.
//! 11. [`node::listing`] and [`node::deleting`]: `@` and `*`. [`node::tombstones`] and
//!     [`node::room`]: what keeps memory bounded; [`node::admission`]: what keeps large values from
//!     holding up all others. [`node::timer`], [`node::stats`].
//! 12. [`server`]: clients, and the text protocol.
//! 13. [`config`], [`error`], [`client`], [`cli`], [`logging`]: what is around that.
//!
//! [`rules`] names the rules that tests leave out one by one, [`faults`] what they break in a
//! running process, and [`sync`] is where a model checker takes hold. The decisions are traced to
//! the assignment in `report/`.

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

/// Locks; a thread that panicked with the lock held has left the data whole or ended the process.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits to be woken, or for nothing: what is waited for is to be looked at again.
pub(crate) fn wait<'a, T>(woken: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    woken.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// The same, for so long at most.
pub(crate) fn wait_for<'a, T>(
    woken: &Condvar,
    guard: MutexGuard<'a, T>,
    time: Duration,
) -> MutexGuard<'a, T> {
    let waited = woken.wait_timeout(guard, time);
    waited.unwrap_or_else(PoisonError::into_inner).0
}
