//! What clients see while a node goes and comes back.

use std::time::Duration;

use crate::load::{Clock, Load, Sample, write_all};
use crate::options::Options;
use crate::support::cluster::{Cluster, FIVE, eventually};
use crate::window::Window;

/// The node that goes.
const GOES: u32 = 5558;
const KEYS: usize = 10_000;
/// How many ranges the node compares after a pause with the strategy quorum: its own, and those of the two nodes before
/// it.
const RANGES: u64 = 3;
/// The same with chains. Only one range was written to, and a chain without writes does not miss the node.
const RANGES_WRITTEN: u64 = 1;

/// How a node goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Crash,
    Pause,
}

/// What was measured. All moments are on the clock of the samples.
pub struct Timeline {
    pub kind: Kind,
    pub samples: Vec<Sample>,
    pub time: Duration,
    pub gone: Duration,
    pub back: Duration,
    /// When the node had all that it missed.
    pub whole: Duration,
}

impl Timeline {
    pub fn measure(kind: Kind, options: &Options) -> Timeline {
        let cluster = Cluster::start(&FIVE);
        let everybody = FIVE.to_vec();
        let others = FIVE.into_iter().filter(|id| *id != GOES).collect();
        let (nodes, keys): (Vec<u32>, Vec<String>) = match kind {
            Kind::Crash => (everybody, (0..KEYS).map(|n| format!("key{n}")).collect()),
            Kind::Pause => (others, cluster.keys_of(GOES).take(KEYS).collect()),
        };
        write_all(&cluster, &nodes, &keys, options.seed);
        let time = Duration::from_secs(options.secs);
        let load = Load {
            cluster: &cluster,
            nodes: &nodes,
            keys: &keys,
            time,
            seed: options.seed,
        };
        let (samples, [gone, back, whole]) =
            load.run(|clock| go_and_return(kind, &cluster, clock, time));
        Timeline {
            kind,
            samples,
            time,
            gone,
            back,
            whole,
        }
    }

    /// The figures, one line for each stretch of the time.
    pub fn print(&self) {
        let (gone, back) = match self.kind {
            Kind::Crash => ("killed", "started again"),
            Kind::Pause => ("paused", "continued"),
        };
        println!(
            "\n{}: {gone} at {:.1} s, {back} at {:.1} s, had all that it missed {} ms later",
            self.title(),
            self.gone.as_secs_f64(),
            self.back.as_secs_f64(),
            (self.whole - self.back).as_millis()
        );
        println!("                           requests/s  p50 ms  p99 ms  longest ms  failed");
        let second = Duration::from_secs(1);
        let noticed = (self.gone + second).min(self.back);
        for (name, from, until) in [
            ("before", Duration::ZERO, self.gone),
            ("the first second without", self.gone, noticed),
            ("later without", noticed, self.back),
            ("back, and catching up", self.back, self.whole),
            ("after", self.whole, self.time),
        ] {
            let ended = self
                .samples
                .iter()
                .filter(|s| (from..until).contains(&s.ended));
            let seen = Window::of(ended);
            if until > from {
                println!(
                    "{name:<25}  {:>10.0}  {:>6.1}  {:>6.1}  {:>10.1}  {:>6}",
                    seen.well as f64 / (until - from).as_secs_f64(),
                    seen.quantile(0.5),
                    seen.quantile(0.99),
                    seen.quantile(1.0),
                    seen.failed
                );
            }
        }
    }

    pub fn title(&self) -> &'static str {
        match self.kind {
            Kind::Crash => "A node crashes and returns",
            Kind::Pause => "The coordinator of every key is paused",
        }
    }
}

/// Lets the node go after a quarter of the time, and return after half of it. Returns these moments, and the
/// moment at which the node had what it missed.
fn go_and_return(kind: Kind, cluster: &Cluster, clock: &Clock, time: Duration) -> [Duration; 3] {
    let compared = || {
        Some(
            cluster.stats(GOES)?["ranges_compared"]
                .parse::<u64>()
                .unwrap(),
        )
    };
    clock.wait_until(time / 4);
    let before = compared().expect("it lives");
    let gone = clock.now();
    match kind {
        Kind::Crash => cluster.kill(GOES),
        Kind::Pause => cluster.pause(GOES),
    }
    clock.wait_until(time / 2);
    let back = clock.now();
    match kind {
        Kind::Crash => cluster.start_node(GOES),
        Kind::Pause => {
            cluster.resume(GOES);
            // The node calls its ranges up to date until it notices that it was paused.
            eventually("it compares its ranges", || {
                let stats = cluster.stats(GOES)?;
                let has_chains = stats.keys().any(|name| name.starts_with("chain_"));
                let ranges = if has_chains { RANGES_WRITTEN } else { RANGES };
                (compared()? >= before + ranges).then_some(())
            });
        }
    }
    cluster.await_ready(GOES);
    cluster.await_whole_chains(GOES);
    [gone, back, clock.now()]
}
