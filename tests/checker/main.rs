//! The checker of linearizability and the judge of groups, which the other tests rely on.

#[path = "../support/mod.rs"]
mod support;

mod by_chance;
mod groups;
mod verdicts;
