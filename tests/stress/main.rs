//! The storm as a program: `./run.sh stress`. Plain `cargo test` runs it with its defaults.

#[path = "../support/mod.rs"]
mod support;

mod options;
mod storm;

use std::error::Error;
use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use options::Options;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use storm::Storm;
use storm::verdict::{Judgement, judge};
use support::history;
use support::options::parse;
use support::ticking::telling;

fn main() -> ExitCode {
    let options: Options = parse();
    let out = options.out();
    let code = match options.check {
        Some(file) => check(&file, &out),
        None => run(&Storm {
            seed: options.seed,
            nemesis: options.nemesis,
            time: Duration::from_secs(options.secs),
            clients: options.clients,
            keys: options.keys,
            out,
            switches: Vec::new(),
        }),
    };
    match code {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("stress: {error}");
            ExitCode::from(64)
        }
    }
}

fn run(storm: &Storm) -> Result<u8, Box<dyn Error>> {
    // The first signal ends the storm early. The second one ends the program at once.
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 130, interrupted.clone())?;
        flag::register(signal, interrupted.clone())?;
    }
    println!(
        "a storm of {} s: seed {}, nemesis {}, {} clients, {} keys; {} groups",
        storm.time.as_secs(),
        storm.seed,
        storm.nemesis.name(),
        storm.clients,
        storm.keys,
        storm::GROUPS.len()
    );
    let text = |since: Duration| match storm.time.checked_sub(since) {
        Some(_) => format!("{} of {} s", since.as_secs(), storm.time.as_secs()),
        None => "reading all keys and groups, and judging".to_owned(),
    };
    let verdict = telling(text, || storm.run(&interrupted))?;
    println!("all of it is in {}", storm.out.display());
    print!("{verdict}");
    Ok(verdict.exit_code())
}

/// Judges a history once more.
fn check(file: &std::path::Path, out: &std::path::Path) -> Result<u8, Box<dyn Error>> {
    let history = history::from_lines(&fs::read_to_string(file)?)?;
    let (judgement, violation) = judge(&history);
    println!("{} operations: {judgement:?}", history.len());
    if let Some(violation) = violation {
        fs::create_dir_all(out)?;
        let page = out.join("violation.html");
        violation.draw(&page, &history, &[])?;
        print!("{violation}");
        println!("a timeline is in {}", page.display());
    }
    Ok(match judgement {
        Judgement::Linearizable => 0,
        Judgement::Violation => 1,
        Judgement::Unknown => 2,
    })
}
