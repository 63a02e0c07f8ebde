//! The command line of `./run.sh stress`.

use std::path::PathBuf;

use clap::{Parser, value_parser};

use crate::storm::nemesis::Nemesis;

/// Starts five nodes of its own, injects faults while clients send requests, heals everything, reads every key
/// through every node, and checks that the clients' history is linearizable. Beside these clients others speak in two
/// groups and listen at every node, and whatever fails, each must be shown every message once and in order.
///
/// Most requests are for one key at a time, and the nemesis aims at the nodes that hold it. A fault is counted only
/// if it did something: a cut that held no message up is not.
///
/// The exit code is 0 if the history is linearizable, 1 if it is not or a group is broken, 2 if the checker could not tell, 3 if the run
/// did not come to its end, as when a node ended by itself, or if a node has logged a broken invariant, 4 if a key
/// was without service for over a second while at most one node was out, and 64 for a wrong command line.
#[derive(Parser)]
#[command(bin_name = "./run.sh stress", after_long_help = MORE)]
pub struct Options {
    /// How long the faults go on, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 12)]
    pub secs: u64,
    /// The same seed injects the same faults in the same order.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Which faults are injected.
    #[arg(long, value_enum, default_value_t = Nemesis::Mix)]
    pub nemesis: Nemesis,
    /// Each keeps to one node.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..))]
    pub clients: u32,
    /// How many keys there are.
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..))]
    pub keys: u32,
    /// For verdict.json, history.jsonl, groups.json, faults.jsonl, throughput.svg, nodes/*.log, and after a violation
    /// violation.html with the smallest piece of the history that no order explains. target/stress/SEED-NEMESIS by
    /// default.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Inject no faults: judge the history in this file.
    #[arg(long, value_name = "FILE")]
    pub check: Option<PathBuf>,
}

const MORE: &str = "\
DYNAMO_LEAVE_OUT=RULE makes all nodes leave out a rule of src/testing/rules.rs, and the run should
find that. A minute of mix finds these within five seeds, which means 1, 3 or 4 as the exit
code:
  exit code 1, by what clients see   HighestAccepted WriteBackOnRead RefusalsRecorded AcceptDurable
  by the checks in the nodes         StrictPrepare PromiseKept MemoryDropped DotLookup
  because keys are not served        EveryReplicaAsked
LostFolderCopied is found by --nemesis wipe. With which seed is a matter of luck, since the
speed of the machine differs from run to run. The other rules show in the simulator or in a test
that places each step: report/evaluation.md has the list.

Examples:
  ./run.sh stress
  ./run.sh stress --secs 600 --seed 4711
  ./run.sh stress --nemesis rolling --keys 1 --clients 20
  DYNAMO_LEAVE_OUT=WriteBackOnRead ./run.sh stress --secs 60 --nemesis split
                                   nodes with a bug: most seeds end with exit code 1
  ./run.sh stress --check target/stress/1-mix/history.jsonl";

impl Options {
    /// Where the results go.
    pub fn out(&self) -> PathBuf {
        self.out.clone().unwrap_or_else(|| {
            let name = match self.check {
                Some(_) => "check".to_owned(),
                None => format!("{}-{}", self.seed, self.nemesis.name()),
            };
            PathBuf::from("target/stress").join(name)
        })
    }
}
