//! The storage of one node, on a disk that forgets, tears, fills up and fails.

#[path = "../support/mod.rs"]
mod support;

mod crash;
mod damage;
mod identity;
mod log;
mod size;
mod tombstones;
mod trouble;
