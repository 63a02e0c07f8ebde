//! Overload and hostile clients: whatever they do, a node's memory and open files stay within the
//! bounds that `report/limitations.md` names, and honest clients are served within the deadline.
//!
//! What a process holds is read from `/proc`.
#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
mod support;

mod crowds;
mod hostile;
mod siege;
