//! A whole cluster in one thread: the project's own replica, coordinator and origin, with the
//! machines, the disks, the network, the clients and the time around them played by chance.
//!
//! All chance comes from one seed, so every run can be had again. A run ends with all faults
//! healed; then every node must answer for every key.

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

use super::history::{self, Operation};
use super::linearizability::{self, Verdict};

pub use plan::{Fault, Sabotage};
pub use world::Counts;

/// Steps for the check of one key. Far more than a run has ever needed.
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

    /// Everything that is needed to look into it.
    pub fn tell(&self) -> String {
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
    let mut world = world::World::new(seed, sabotage, trace);
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
