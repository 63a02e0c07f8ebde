//! Measures this store and etcd in turn, with one load generator, and prints them side by side.
//!
//! The servers are started by `compare.sh`. The way through: [`options`] says what to measure,
//! [`load`] keeps clients busy on one of the [`stores`], [`figures`] sums up what they saw.

mod figures;
mod load;
mod options;
mod stores;

use std::process::ExitCode;

use clap::Parser;
use figures::{Figures, Table};
use load::{Kind, Work};
use options::{Options, Target};

fn main() -> ExitCode {
    match compare(&Options::parse()) {
        Ok(table) => {
            print!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// All targets in each round, and in the other order each time: what the machine does besides then
/// hits all alike.
fn compare(options: &Options) -> Result<Table, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    let all = works(options);
    let stores = options.targets();
    let mut table = Table::new(options, &stores, all.clone());
    let [store, straight, etcd] = &stores;
    let mut targets = [store, straight, etcd];
    for target in [store, etcd] {
        runtime.block_on(load::fill(target, options))?;
    }
    for round in 1..=options.rounds {
        for target in targets {
            for &work in &all {
                let seen = runtime.block_on(load::run(target, work, options))?;
                progress(round, target, work, &seen);
                table.add(target, work, seen);
            }
        }
        targets.reverse();
    }
    Ok(table)
}

/// The rows of the table.
fn works(options: &Options) -> Vec<Work> {
    let mut works = Vec::new();
    for &connections in &options.connections {
        for &ahead in &options.ahead {
            for kind in [Kind::Write, Kind::Read] {
                works.push(Work {
                    connections,
                    ahead,
                    kind,
                });
            }
        }
    }
    works
}

fn progress(round: usize, target: &Target, work: Work, seen: &Figures) {
    let name = target.name;
    let rate = seen.per_second;
    eprintln!("round {round}: {name}, {work}: {rate:.0} a second");
}
