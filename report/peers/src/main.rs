//! Measures this store and etcd in turn, with one load generator, and prints them side by side.
//!
//! The servers are started by `compare.sh`. The way through: [`options`] says what to measure,
//! [`load`] keeps clients busy on one of the [`stores`], [`figures`] sums up what they saw.

mod figures;
mod load;
mod options;
mod stores;

use std::process::ExitCode;

use figures::{Figures, Table};
use load::Kind;
use options::{HELP, Options, Target};

fn main() -> ExitCode {
    let options = match options::parse() {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("peers: {error}; peers --help says more");
            return ExitCode::from(2);
        }
    };
    match compare(&options) {
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

/// Both stores in each round, and the other one first each time: what the machine does besides
/// then hits both alike.
fn compare(options: &Options) -> Result<Table, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    let mut table = Table::new(options);
    let mut targets = [&options.store, &options.etcd];
    for target in targets {
        runtime.block_on(load::fill(target, options))?;
    }
    for round in 1..=options.rounds {
        for target in targets {
            for &connections in &options.connections {
                for kind in [Kind::Write, Kind::Read] {
                    let seen = runtime.block_on(load::run(target, kind, connections, options))?;
                    progress(round, target, kind, connections, &seen);
                    table.add(target, kind, connections, seen);
                }
            }
        }
        targets.reverse();
    }
    Ok(table)
}

fn progress(round: usize, target: &Target, kind: Kind, connections: usize, seen: &Figures) {
    let name = target.name;
    let rate = seen.per_second;
    eprintln!("round {round}: {name}, {connections} at a time, {kind}: {rate:.0} a second");
}
