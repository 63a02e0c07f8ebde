//! The command line of `./run.sh plot`.

use std::error::Error;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

pub const HELP: &str = "\
Measures five nodes of its own on this machine, prints the figures, and draws them:

  crash.svg      requests per second and how long they took, through the crash and return of a node
  pause.svg      the same, through a pause of the coordinator of all the keys
  recovery.svg   how long a returned node takes to have the writes that it missed, by their number
  ring.svg       the ring of the course and where one key lives; beside FOLDER, since it measures nothing

usage: ./run.sh plot [options]

  --secs SECONDS   how long the load of the first two goes on; 12 by default. The third takes up to 2500
                   missed writes for each second, and one run for every four, three at most
  --seed N         the same seed draws the same requests; 1 by default
  --out FOLDER     report/plots by default
  --ring           draw only ring.svg, which takes no nodes and no time

Leave the machine alone meanwhile.
";

pub struct Options {
    pub secs: u64,
    pub seed: u64,
    pub out: PathBuf,
}

/// What is wanted.
pub enum What {
    /// Another target's tests.
    Nothing,
    Help,
    Ring(Options),
    Plots(Options),
}

impl What {
    /// # Errors
    /// What is not understood.
    pub fn parse(mut parser: Parser) -> Result<What, Box<dyn Error>> {
        // Plain `cargo test` only sees that it works.
        let mut options = Options {
            secs: 2,
            seed: 1,
            out: PathBuf::from("target/plots"),
        };
        let mut ring_only = false;
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("secs") => options.secs = parser.value()?.parse()?,
                Arg::Long("seed") => options.seed = parser.value()?.parse()?,
                Arg::Long("out") => options.out = parser.value()?.into(),
                Arg::Long("ring") => ring_only = true,
                Arg::Long("help") | Arg::Short('h') => return Ok(What::Help),
                // `cargo test NAME` looks in every target for tests of that name.
                Arg::Value(_) => return Ok(What::Nothing),
                // This program captures no output.
                Arg::Long("nocapture") => {}
                other => return Err(format!("{}; see --help", other.unexpected()).into()),
            }
        }
        if options.secs == 0 {
            return Err("--secs is at least 1".into());
        }
        Ok(match ring_only {
            true => What::Ring(options),
            false => What::Plots(options),
        })
    }
}
