//! The command line of `./run.sh stress`.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use crate::storm::Storm;
use crate::storm::nemesis::Nemesis;

pub const HELP: &str = "\
Starts five nodes of its own, injects faults while clients send requests, heals everything, reads every
key through every node, and checks that the clients' history is linearizable.
Most requests are for one key at a time, and the nemesis aims at the nodes that hold it.

usage: ./run.sh stress [options]

  --secs SECONDS   how long the faults go on; 12 by default
  --seed N         the same seed injects the same faults in the same order; 1 by default
  --nemesis NAME   mix by default: straggle and split half of the time, else any of these:
                     kill       kill -9 of a node, and a new start
                     pause      SIGSTOP and SIGCONT
                     timeout    pauses of 60 to 140 ms, around the read time-out
                     rolling    each node in turn, the next as soon as the last one serves again
                     all        kill -9 of all five at once
                     wipe       kill -9 of a node, and a new start with an empty data folder, or so
                                with each node in turn; no other is out before it votes again
                     slow-disk  each sync of a node takes 10 to 250 ms longer
                     cut        a link, one way or both, or all links of a node
                     delay      messages on a link are 5 to 150 ms late
                     duplicate  messages on a link come twice
                     reorder    messages on a link overtake each other
                     straggle   half of a node's messages are up to 200 ms late, each by its own time
                     split      the same, and two others do not reach that node: clients of a key have
                                two coordinators, and a write may have reached one replica alone
                     half-open  a connection is gone, and only one side knows
                     none       nothing
  --clients N      10 by default; each keeps to one node
  --keys N         5 by default
  --out FOLDER     target/stress/SEED-NEMESIS by default
  --check FILE     inject no faults: judge the history in this file

FOLDER holds verdict.json, history.jsonl, faults.jsonl, throughput.svg, nodes/*.log, and after a
violation violation.html with the smallest piece of the history that no order explains.

The exit code is 0 if the history is linearizable, 1 if it is not, 2 if the checker could not tell, 3
if the run did not come to its end, as when a node ended by itself, or if a node has logged a broken
invariant, 4 if a key was without service for over a second while at most one node was out, and 64 for
a wrong command line.
A fault is counted only if it did something: a cut that held no message up is not.

DYNAMO_LEAVE_OUT=RULE makes all nodes leave out a rule of src/testing/rules.rs, and the run should find that.
A minute of mix finds these within five seeds, which means 1, 3 or 4 as the exit code:
  exit code 1, by what clients see   HighestAccepted WriteBackOnRead RefusalsRecorded AcceptDurable
  by the checks in the nodes         StrictPrepare PromiseKept MemoryDropped DotLookup
  because keys are not served        EveryReplicaAsked
LostFolderCopied is found by --nemesis wipe. With which seed is a matter of luck, since the speed of the
machine differs from run to run. The other rules show in the simulator or in a test that places each
step: report/evaluation.md has the list.

examples:
  ./run.sh stress
  ./run.sh stress --secs 600 --seed 4711
  ./run.sh stress --nemesis rolling --keys 1 --clients 20
  DYNAMO_LEAVE_OUT=WriteBackOnRead ./run.sh stress --secs 60 --nemesis split
                                   nodes with a bug: most seeds end with exit code 1
  ./run.sh stress --check target/stress/1-mix/history.jsonl
";

/// What the command line asks for.
pub enum What {
    /// The command line names tests of another target.
    Nothing,
    Help,
    Check {
        file: PathBuf,
        out: PathBuf,
    },
    Storm(Storm),
}

/// The options as they come.
pub struct Options {
    secs: u64,
    seed: u64,
    nemesis: Nemesis,
    clients: u32,
    keys: u32,
    out: Option<PathBuf>,
    check: Option<PathBuf>,
}

impl Options {
    /// # Errors
    /// What is not understood.
    pub fn parse(mut parser: Parser) -> Result<What, Box<dyn Error>> {
        let mut options = Options {
            secs: 12,
            seed: 1,
            nemesis: Nemesis::Mix,
            clients: 10,
            keys: 5,
            out: None,
            check: None,
        };
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("secs") => options.secs = parser.value()?.parse()?,
                Arg::Long("seed") => options.seed = parser.value()?.parse()?,
                Arg::Long("nemesis") => options.nemesis = parser.value()?.parse()?,
                Arg::Long("clients") => options.clients = parser.value()?.parse()?,
                Arg::Long("keys") => options.keys = parser.value()?.parse()?,
                Arg::Long("out") => options.out = Some(parser.value()?.into()),
                Arg::Long("check") => options.check = Some(parser.value()?.into()),
                Arg::Long("help") | Arg::Short('h') => return Ok(What::Help),
                // `cargo test NAME` looks in every target for tests of that name.
                Arg::Value(_) => return Ok(What::Nothing),
                // This program captures no output.
                Arg::Long("nocapture") => {}
                other => return Err(format!("{}; see --help", other.unexpected()).into()),
            }
        }
        options.complete()
    }

    fn complete(self) -> Result<What, Box<dyn Error>> {
        let out = self.out.unwrap_or_else(|| {
            let name = match self.check {
                Some(_) => "check".to_owned(),
                None => format!("{}-{}", self.seed, self.nemesis.name()),
            };
            PathBuf::from("target/stress").join(name)
        });
        if let Some(file) = self.check {
            return Ok(What::Check { file, out });
        }
        if self.clients == 0 || self.keys == 0 {
            return Err("it takes a client and a key".into());
        }
        Ok(What::Storm(Storm {
            seed: self.seed,
            nemesis: self.nemesis,
            time: Duration::from_secs(self.secs),
            clients: self.clients,
            keys: self.keys,
            out,
            switches: Vec::new(),
        }))
    }
}
