//! `./run.sh grade`: how many of the course's points the store gets, and the messenger.

mod grader;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use grader::Plan;
use grader::score::rounded;
use support::options::parse;

/// Grades the store as the course does: six phases, 23 points.
///
/// It starts five nodes of its own on free ports and uses their text protocol and signals only. What was checked, and
/// why points were lost, is printed and written to target/grade/report.json; the logs of the nodes are beside it. The
/// exit code is 0 for full points only.
#[derive(Parser)]
#[command(bin_name = "./run.sh grade", disable_help_subcommand = true)]
struct Options {
    #[command(subcommand)]
    other: Option<Other>,
    /// The same keys, nodes and crashes as in the run that printed this seed; without it a new one is chosen.
    #[arg(long, global = true)]
    seed: Option<u64>,
    /// Choose a seed if none is given.
    #[arg(long, hide = true)]
    any_seed: bool,
}

/// What else is graded.
#[derive(Clone, Copy, Subcommand)]
enum Other {
    /// Grades the groups as the course's sibling assignment does: two phases, 10 points.
    ///
    /// The assignment is "Group Messenger with Total and FIFO Ordering Guarantees". Senders and members at all nodes
    /// go on at other nodes when theirs is killed. The report, what the clients saw, and the logs of the nodes are
    /// in target/grade-messenger.
    Messenger,
}

/// The seed that `cargo test` runs.
const FIXED_SEED: u64 = 1;

fn main() -> ExitCode {
    let options: Options = parse();
    let seed = options.seed.unwrap_or(match options.any_seed {
        true => fastrand::u64(1..1_000_000),
        false => FIXED_SEED,
    });
    match options.other {
        None => run("", &grader::STORE, seed),
        Some(Other::Messenger) => run("messenger", &grader::MESSENGER, seed),
    }
}

fn run(what: &str, plans: &[Plan], seed: u64) -> ExitCode {
    // A panic is most likely that of a node that does not get ready. Within a phase it costs the phase's points.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let words: Vec<&str> = ["grade", what]
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect();
    let target = target.parent().expect("it is below target/");
    let folder = target.join(words.join("-"));
    // Files of an earlier run would mislead.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("target/ can be written to");
    println!("Grading five nodes, seed {seed}\n");
    let report = grader::grade(plans, seed, &[], &folder, |phase| println!("{phase}"));
    let file = folder.join("report.json");
    let text = serde_json::to_string_pretty(&report).expect("a report has no odd numbers");
    fs::write(&file, text + "\n").expect("target/ can be written to");
    println!("{} of {} points", rounded(report.earned), report.points);
    if report.is_full() {
        return ExitCode::SUCCESS;
    }
    println!("report: {}", file.display());
    println!("logs of the nodes: {}", folder.join("*.log").display());
    println!("once more: ./run.sh {} --seed {seed}", words.join(" "));
    ExitCode::FAILURE
}
