//! The parts of the store whose correctness depends on how threads interleave, under a model checker.
//!
//! The sources of the write-ahead log, of a connection's sending side, of a client's requests and of
//! the link are compiled here once more, unchanged, with another `sync` and another socket. Below them is shuttle: it
//! runs one thread at a time, and at each lock, wait and wake-up it decides who goes on. What
//! else may happen, such as how many bytes a socket takes or how much time passes, is drawn by
//! the scenarios. A thread that waits for ever ends the run as a deadlock.
//!
//! Each scenario runs under thousands of schedules. More, over hours:
//! `DYNAMO_SCHEDULES=1000000 cargo test --release --test interleavings`. A failure prints its
//! schedule, which `shuttle::replay` repeats.
// Nothing here uses some parts of the sources, and this condition variable returns no lock.
#![allow(dead_code, clippy::drop_non_drop)]

mod connections;
mod group_commit;
mod links;
#[path = "../../src/server/pipeline.rs"]
mod pipeline;
mod pipelines;
mod sync;
mod transport;
#[path = "../../src/storage/wal.rs"]
mod wal;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};
// Modules that the sources above import and that are not replaced.
use simple_dynamo::server::text;
use simple_dynamo::storage::{disk, frame};
use simple_dynamo::{bytes, logging, protocol, storage, testing};
use sync::{lock, wait};

/// How many schedules the usual run of each scenario takes. `DYNAMO_SCHEDULES` sets another number.
const SCHEDULES: usize = 10_000;
const SEED: u64 = 7;
/// How often the checker takes the processor from the thread that it favours, in half of the runs.
const PREEMPTIONS: usize = 4;

/// Runs a scenario under many schedules: half of them random at every step, half with few
/// preemptions at random places. Some failures need long stretches without a preemption.
fn explore(scenario: fn()) {
    let schedules = std::env::var("DYNAMO_SCHEDULES").ok();
    let schedules = schedules.map_or(SCHEDULES, |text| text.parse().expect("a number"));
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    config.silence_warnings = true;
    let random = RandomScheduler::new_from_seed(SEED, schedules / 2);
    Runner::new(random, config.clone()).run(scenario);
    let few = PctScheduler::new_from_seed(SEED, PREEMPTIONS, schedules / 2);
    Runner::new(few, config).run(scenario);
}

/// Lets other threads run, for up to so many turns.
fn wait_up_to(turns: usize) {
    (0..draw(turns)).for_each(|_| sync::thread::yield_now());
}

/// A number below `bound`, drawn so that a replay draws it again.
fn draw(bound: usize) -> usize {
    use shuttle::rand::Rng;
    shuttle::rand::thread_rng().gen_range(0..bound)
}
