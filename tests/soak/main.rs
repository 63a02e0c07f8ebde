//! The soak run: `./run.sh soak`. It puts load and faults on a cluster of five processes for as long as wanted.
//! The memory, files and threads of each process must stay flat, and the clients' history must be linearizable.

#[path = "../support/mod.rs"]
mod support;

mod flat;
mod load;
mod options;
mod sampler;
mod verdict;

use std::error::Error;
use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use load::Load;
use options::Options;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use support::cluster::{FIVE, Plan};
use support::options::parse;
use support::ticking::telling;
use verdict::Verdict;

fn main() -> ExitCode {
    match soak(&parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::from(64)
        }
    }
}

fn soak(options: &Options) -> Result<u8, Box<dyn Error>> {
    // The first signal ends the run after some seconds. The second one ends the program at once.
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 130, interrupted.clone())?;
        flag::register(signal, interrupted.clone())?;
    }
    fs::create_dir_all(&options.out)?;
    let snapshot_after = sampler::SNAPSHOT_AFTER.to_string();
    let cluster = Plan::of(&FIVE).proxied().lay_out();
    let start = |id| cluster.start_node_with(id, &[("DYNAMO_SNAPSHOT_AFTER", &snapshot_after)]);
    cluster.ids().for_each(start);
    cluster.await_all_ready();
    let stop = AtomicBool::new(false);
    let file = options.out.join("samples.jsonl");
    let load = Load {
        cluster: &cluster,
        seed: options.seed,
        time: options.time,
        start: &start,
        interrupted: &interrupted,
    };
    let (done, samples) = thread::scope(|scope| {
        let sampler = scope.spawn(|| sampler::sample(&cluster, &file, &stop));
        let time = options.time.as_secs();
        let text = |since: Duration| format!("{} of {time} s", since.as_secs());
        let done = telling(text, || load.run());
        stop.store(true, Ordering::Relaxed);
        (done, sampler.join().expect("it does not panic"))
    });
    if interrupted.load(Ordering::Relaxed) {
        eprintln!("soak: interrupted, nothing is judged");
        return Ok(130);
    }
    let verdict = Verdict::of(done, &samples?);
    fs::write(options.out.join("soak.svg"), verdict.draw())?;
    print!("{verdict}");
    println!("samples and a picture are in {}", options.out.display());
    Ok(u8::from(!verdict.good()))
}
