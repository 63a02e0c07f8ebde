//! Locks, threads and time for the parts of the store whose correctness depends on how threads
//! interleave. Here they are those of the standard library. `tests/interleavings/` compiles the same parts
//! with a `sync` of its own, in which a model checker decides which thread runs next.

pub use std::sync::atomic::AtomicBool;
pub use std::sync::{Condvar, Mutex};
pub use std::thread;
pub use std::thread_local;
pub use std::time::Instant;
