//! A whole cluster in one thread. It runs the project's own replica, coordinator and origin, and plays the
//! machines, disks, network, clients and time around them by chance.
//!
//! All chance comes from one seed, so every run can be repeated. At the end of a run all faults are healed,
//! and then every node must answer for every key.

mod chain;
mod clients;
mod copying;
mod effects;
mod faults;
mod invariants;
mod machine;
mod network;
mod plan;
mod shell;
mod store;
mod tombstones;
mod voting;
mod world;

use std::panic::{self, AssertUnwindSafe};

use fastrand::Rng;
use simple_dynamo::protocol::Strategy;

use super::history::{self, Operation};
use super::linearizability::{self, Verdict};

pub use plan::{Fault, Sabotage};
pub use world::Counts;

/// How many steps the checker may take for one key: far more than a run has ever needed.
const BUDGET: u64 = 200_000;

/// What one run was like.
pub struct Report {
    pub seed: u64,
    pub history: Vec<Operation>,
    pub verdict: Verdict,
    /// Invariants that were seen broken, and assertions of the code that failed.
    pub breaches: Vec<String>,
    pub counts: Counts,
}

impl Report {
    pub fn is_sound(&self) -> bool {
        self.verdict == Verdict::Linearizable && self.breaches.is_empty()
    }

    /// All that one needs to look into the run.
    pub fn describe(&self) -> String {
        format!(
            "seed {}: {:?}\nbroken invariants: {:#?}\n{}\nto see every event: DYNAMO_SEED={} \
             cargo test --test simulator replay -- --nocapture",
            self.seed,
            self.verdict,
            self.breaches,
            history::print(&self.history),
            self.seed
        )
    }
}

/// Runs one seed and judges what the clients saw.
pub fn run(seed: u64, sabotage: Sabotage, trace: bool) -> Report {
    let strategies = [Strategy::Quorum, Strategy::Chain];
    let strategy = strategies[Rng::with_seed(!seed).usize(..2)];
    run_with(strategy, seed, sabotage, trace)
}

/// Runs one seed with this strategy.
pub fn run_with(strategy: Strategy, seed: u64, sabotage: Sabotage, trace: bool) -> Report {
    let mut world = world::World::new(strategy, seed, sabotage, trace);
    // A failed assertion of the code under test is a finding like any other.
    let panicked = panic::catch_unwind(AssertUnwindSafe(|| world.run())).err();
    let (history, mut breaches, counts) = world.end();
    if let Some(reason) = panicked {
        let text = reason.downcast_ref::<&str>().map(|text| text.to_string());
        let text = text.or_else(|| reason.downcast_ref::<String>().cloned());
        breaches.push(format!("panic: {}", text.unwrap_or_default()));
    }
    Report {
        seed,
        verdict: linearizability::check(&history, BUDGET),
        history,
        breaches,
        counts,
    }
}
