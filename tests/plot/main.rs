//! The plots of `report/evaluation.md`, and the ring of `report/README.md`: `./run.sh plot`. Plain
//! `cargo test` makes short ones.

#[path = "../support/mod.rs"]
mod support;

mod chart;
mod load;
mod options;
mod picture;
mod recovery;
mod ring;
mod timeline;
mod window;

use std::error::Error;
use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use options::Options;
use recovery::Recovery;
use support::options::parse;
use support::ticking::telling;
use timeline::{Kind, Timeline};

fn main() -> ExitCode {
    match plot(&parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plot: {error}");
            ExitCode::from(64)
        }
    }
}

/// Draws the ring beside the folder of the measurements, since it measures nothing.
fn draw_ring(options: &Options) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(&options.out)?;
    let file = options.out.with_file_name("ring.svg");
    fs::write(&file, ring::draw())?;
    println!("the ring is in {}", file.display());
    Ok(())
}

fn plot(options: &Options) -> Result<(), Box<dyn Error>> {
    draw_ring(options)?;
    if options.ring {
        return Ok(());
    }
    println!("{}", machine());
    for (name, kind) in [("crash.svg", Kind::Crash), ("pause.svg", Kind::Pause)] {
        let text = |since: Duration| format!("measuring {name} for {} s", since.as_secs());
        let timeline = telling(text, || Timeline::measure(kind, options));
        timeline.print();
        fs::write(options.out.join(name), timeline.draw())?;
    }
    let text = |since: Duration| format!("measuring returns for {} s", since.as_secs());
    let recovery = telling(text, || Recovery::measure(options));
    recovery.print();
    fs::write(options.out.join("recovery.svg"), recovery.draw())?;
    println!("\nthe pictures are in {}", options.out.display());
    Ok(())
}

/// What it was measured on.
fn machine() -> String {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    format!("Five nodes and their clients share one machine with {cores} cores")
}
