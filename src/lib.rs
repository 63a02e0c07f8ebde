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
//! 1. [`ring`]: where keys live.
//! 2. [`clock`]: dots and vector clocks, the names and versions of writes.
//! 3. [`register`]: how the replicas of one key agree. Start here for the algorithm.
//! 4. [`node::coordinator`]: drives the requests of its keys through the replicas' votes.
//! 5. [`node::router`]: sends a client's request to the coordinator, or to its successor.
//!
//! The shell around them:
//!
//! 6. [`storage`]: records on disk before anybody hears of them.
//! 7. [`net`] and [`peer`]: lines in, batches out; one connection per pair of nodes and direction.
//! 8. [`node`]: the wiring, anti-entropy, and what happens to a node that lost its disk.
//! 9. [`server`]: clients, and the text protocol.
//! 10. [`config`], [`error`], [`client`], [`cli`]: what is around that.
//!
//! [`rules`] names the rules that tests leave out one by one, [`faults`] what they break in a
//! running process, and [`sync`] is where a model checker takes hold. The decisions are traced to
//! the assignment in `report/`.
pub mod bytes;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod error;
pub mod faults;
pub mod net;
pub mod node;
pub mod peer;
pub mod register;
pub mod ring;
pub mod rules;
pub mod server;
pub mod storage;
pub mod sync;

/// Locks; a thread that panicked with the lock held has left the data whole or ended the process.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
