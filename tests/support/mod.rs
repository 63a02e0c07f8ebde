//! What the integration tests share. Each test file uses its own part of it.
#![allow(dead_code, unused_imports)]

pub mod example;
pub mod history;
pub mod linearizability;
pub mod simulation;
