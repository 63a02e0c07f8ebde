//! The command line of `./run.sh plot`.

use std::path::PathBuf;

use clap::{Parser, value_parser};

/// Measures five nodes of its own on this machine, prints the figures, and draws them.
///
/// Leave the machine alone meanwhile.
#[derive(Parser)]
#[command(
    bin_name = "./run.sh plot",
    after_help = "\
It draws in FOLDER, and ring.svg, which measures nothing, beside it:
  crash.svg      requests per second and how long they took, through the crash and return of a node
  pause.svg      the same, through a pause of the coordinator of all the keys
  recovery.svg   how long a returned node takes to have the writes that it missed, by their number
  ring.svg       the ring of the course and where one key lives"
)]
pub struct Options {
    /// How long the load of the first two goes on; ./run.sh says 12. The third takes up to 2500 missed writes for
    /// each second, and one run for every four, three at most.
    // Plain `cargo test` only sees that it works.
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    #[arg(value_parser = value_parser!(u64).range(1..))]
    pub secs: u64,
    /// The same seed draws the same requests.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where the pictures go; ./run.sh says report/plots.
    #[arg(long, value_name = "FOLDER", default_value = "target/plots")]
    pub out: PathBuf,
    /// Draw only ring.svg, which takes no nodes and no time.
    #[arg(long)]
    pub ring: bool,
}
