//! `./run.sh grade`: how many of the course's 23 points the store gets.

mod grader;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use grader::score::rounded;
use lexopt::{Arg, ValueExt};

const HELP: &str = "\
Grades the store as the course does: six phases, 23 points. It starts five nodes of its own on
free ports and uses their text protocol and signals only.

usage: ./run.sh grade [--seed N]

  --seed N   the same keys, nodes and crashes as in the run that printed this seed; without it
             a new one is chosen

What was checked, and why points were lost, is printed and written to target/grade/report.json;
the logs of the nodes are beside it. The exit code is 0 for full points only.
";

/// The seed that `cargo test` runs.
const FIXED_SEED: u64 = 1;

fn main() -> ExitCode {
    match parse(lexopt::Parser::from_env()) {
        Ok(Some(seed)) => run(seed),
        Ok(None) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("grade: {error}; see ./run.sh grade --help");
            ExitCode::from(2)
        }
    }
}

/// The seed, or `None` if help is wanted.
fn parse(mut parser: lexopt::Parser) -> Result<Option<u64>, lexopt::Error> {
    let mut seed = FIXED_SEED;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("seed") => seed = parser.value()?.parse()?,
            Arg::Long("any-seed") => seed = fastrand::u64(1..1_000_000),
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(seed))
}

fn run(seed: u64) -> ExitCode {
    // A panic is most likely that of a node that does not get ready. Within a phase it costs the phase's points.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let folder = target.parent().expect("it is below target/").join("grade");
    // Files of an earlier run would mislead.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("target/ can be written to");
    println!("Grading five nodes, seed {seed}\n");
    let report = grader::grade(seed, &[], 6, &folder, |phase| println!("{phase}"));
    let file = folder.join("report.json");
    let text = serde_json::to_string_pretty(&report).expect("a report has no odd numbers");
    fs::write(&file, text + "\n").expect("target/ can be written to");
    println!("{} of {} points", rounded(report.earned), report.points);
    if report.is_full() {
        return ExitCode::SUCCESS;
    }
    println!("report: {}", file.display());
    println!("logs of the nodes: {}", folder.join("*.log").display());
    println!("once more: ./run.sh grade --seed {seed}");
    ExitCode::FAILURE
}
