//! What the integration tests share. Each test file uses its own part of it.
#![allow(dead_code, unused_imports)]

pub mod asking;
pub mod cluster;
pub mod example;
pub mod faulty_disk;
pub mod folder;
pub mod history;
pub mod impostor;
pub mod linearizability;
pub mod members;
pub mod messenger;
pub mod nemesis;
pub mod options;
pub mod plan;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod simulation;
pub mod svg;
// The same as in the commands.
#[path = "../../src/cli/ticker.rs"]
pub mod ticker;
pub mod ticking;
pub mod usage;
pub mod waiting;
pub mod witness;
pub mod workload;
