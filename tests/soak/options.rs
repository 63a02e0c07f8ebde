//! The command line of `./run.sh soak`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Runs clients and faults against five nodes of its own for a long time, in epochs of some seconds.
///
/// Each epoch has fresh keys, pauses and cuts, checks that its history is linearizable, and deletes its keys at the
/// end. Now and then one of two nodes crashes. The other three live all the while. Once a second the memory, open
/// files, threads and disk of each process are sampled.
///
/// A life of a process is flat if the median of its last quarter is above that of its second quarter by no more than
/// 8 MiB of memory, 16 open files, 8 threads and 8 MiB of disk; lives of less than 90 s are not judged. The exit code
/// is 0 if all are flat, every history is linearizable and no more than one of 1000 requests was refused, and 1 if
/// not.
#[derive(Parser)]
#[command(bin_name = "./run.sh soak")]
pub struct Options {
    /// How long it runs.
    #[arg(long = "minutes", value_name = "MINUTES", default_value = "30", value_parser = minutes)]
    pub time: Duration,
    /// The same seed draws the same requests and faults.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// For samples.jsonl and soak.svg.
    #[arg(long, value_name = "FOLDER", default_value = "target/soak")]
    pub out: PathBuf,
}

fn minutes(word: &str) -> Result<Duration, String> {
    let minutes: f64 = word.parse().map_err(|_| "it is no number")?;
    Duration::try_from_secs_f64(60.0 * minutes).map_err(|error| error.to_string())
}
