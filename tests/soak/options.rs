//! The command line of `./run.sh soak`.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

pub const HELP: &str = "\
Runs clients and faults against five nodes of its own for a long time, in epochs of some seconds. Each
epoch has fresh keys, pauses and cuts, checks that its history is linearizable, and deletes its keys at
the end. Now and then one of two nodes crashes. The other three live all the while. Once a second the
memory, open files, threads and disk of each process are sampled.

usage: ./run.sh soak [options]

  --minutes MINUTES   30 by default
  --seed N            the same seed draws the same requests and faults; 1 by default
  --out FOLDER        for samples.jsonl and soak.svg; target/soak by default

A life of a process is flat if the median of its last quarter is above that of its second quarter by no
more than 8 MiB of memory, 16 open files, 8 threads and 8 MiB of disk; lives of less than 90 s are not
judged. The exit code is 0 if all are flat, every history is linearizable and no more than one of 1000
requests was refused, and 1 if not.
";

pub struct Options {
    pub time: Duration,
    pub seed: u64,
    pub out: PathBuf,
}

/// What the command line asks for.
pub enum What {
    /// The command line names tests of another target.
    Nothing,
    Help,
    Soak(Options),
}

impl What {
    /// # Errors
    /// What is not understood.
    pub fn parse(mut parser: Parser) -> Result<What, Box<dyn Error>> {
        let mut options = Options {
            time: Duration::from_secs(30 * 60),
            seed: 1,
            out: PathBuf::from("target/soak"),
        };
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("minutes") => {
                    let minutes: f64 = parser.value()?.parse()?;
                    options.time = Duration::try_from_secs_f64(60.0 * minutes)?;
                }
                Arg::Long("seed") => options.seed = parser.value()?.parse()?,
                Arg::Long("out") => options.out = parser.value()?.into(),
                Arg::Long("help") | Arg::Short('h') => return Ok(What::Help),
                // `cargo test NAME` looks in every target for tests of that name.
                Arg::Value(_) => return Ok(What::Nothing),
                // This program captures no output.
                Arg::Long("nocapture") => {}
                other => return Err(format!("{}; see --help", other.unexpected()).into()),
            }
        }
        Ok(What::Soak(options))
    }
}
