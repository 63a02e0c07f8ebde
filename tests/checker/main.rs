//! The checker of linearizability, which the other tests rely on.

#[path = "../support/mod.rs"]
mod support;

mod by_chance;
mod verdicts;
