//! Who lets loose which faults, one handful after the other, by a seed.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use serde::Serialize;

use super::fault::{Begun, Fault};
use crate::support::cluster::Cluster;
use crate::support::workload::Progress;

/// What a nemesis has a liking for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nemesis {
    None,
    Kill,
    Pause,
    Timeout,
    Rolling,
    All,
    Wipe,
    SlowDisk,
    Cut,
    Delay,
    Duplicate,
    Reorder,
    Straggle,
    Split,
    HalfOpen,
    Mix,
}

/// A fault as it happened. Times are microseconds of the history.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    #[serde(flatten)]
    pub fault: Fault,
    pub began: u64,
    pub ended: u64,
    /// Whether it did anything.
    pub fired: bool,
}

/// How often something is looked at while nothing is to be done.
const LOOK: Duration = Duration::from_millis(50);
/// The longest that messages straggle, in milliseconds: more than the time-out between nodes.
const STRAGGLE: u64 = 200;
/// What `Mix` is made of.
const ALONE: [Nemesis; 14] = [
    Nemesis::Kill,
    Nemesis::Pause,
    Nemesis::Timeout,
    Nemesis::Rolling,
    Nemesis::All,
    Nemesis::Wipe,
    Nemesis::SlowDisk,
    Nemesis::Cut,
    Nemesis::Delay,
    Nemesis::Duplicate,
    Nemesis::Reorder,
    Nemesis::Straggle,
    Nemesis::Split,
    Nemesis::HalfOpen,
];

/// What finds most, and so is half of `Mix`.
const SHARP: [Nemesis; 2] = [Nemesis::Straggle, Nemesis::Split];

impl Nemesis {
    pub fn name(self) -> &'static str {
        match self {
            Nemesis::None => "none",
            Nemesis::Kill => "kill",
            Nemesis::Pause => "pause",
            Nemesis::Timeout => "timeout",
            Nemesis::Rolling => "rolling",
            Nemesis::All => "all",
            Nemesis::Wipe => "wipe",
            Nemesis::SlowDisk => "slow-disk",
            Nemesis::Cut => "cut",
            Nemesis::Delay => "delay",
            Nemesis::Duplicate => "duplicate",
            Nemesis::Reorder => "reorder",
            Nemesis::Straggle => "straggle",
            Nemesis::Split => "split",
            Nemesis::HalfOpen => "half-open",
            Nemesis::Mix => "mix",
        }
    }

    /// Whether it takes long, and leaves the others no turn.
    fn takes_long(self) -> bool {
        matches!(self, Nemesis::Rolling | Nemesis::All)
    }

    /// Whether nothing else may be broken meanwhile. A node that lost its disk waits for all
    /// others: beside another fault it would not vote before that one is over, and two nodes would
    /// be out.
    fn strikes_alone(self) -> bool {
        self.takes_long() || matches!(self, Nemesis::Wipe | Nemesis::Split)
    }
}

impl FromStr for Nemesis {
    type Err = String;

    fn from_str(name: &str) -> Result<Nemesis, String> {
        let mut all = ALONE.iter().chain(&[Nemesis::None, Nemesis::Mix]);
        all.find(|nemesis| nemesis.name() == name)
            .copied()
            .ok_or_else(|| format!("there is no nemesis {name:?}"))
    }
}

/// A nemesis at work.
pub struct AtWork<'a> {
    pub nemesis: Nemesis,
    pub cluster: &'a Cluster,
    pub progress: &'a Progress<'a>,
    /// What the clients ask for.
    pub keys: &'a [&'a str],
    pub rng: Rng,
    /// When the work shall end.
    pub until: Duration,
    pub interrupted: &'a AtomicBool,
    pub events: &'a mut Vec<Event>,
}

impl AtWork<'_> {
    /// Faults until the time is over; then all is healed, and every node has what it missed.
    pub fn run(mut self) {
        while !self.over() {
            match self.nemesis {
                Nemesis::None => self.rest(LOOK),
                Nemesis::Mix => self.handful(),
                nemesis => {
                    let nodes = self.aim();
                    self.strike(nemesis, &nodes);
                }
            }
            for id in self.cluster.ids() {
                self.cluster.assert_runs(id);
            }
        }
        self.cluster.await_all_ready();
    }

    fn over(&self) -> bool {
        self.progress.now() >= self.until || self.interrupted.load(Ordering::Relaxed)
    }

    /// Sleeps, but not over the end.
    fn rest(&self, time: Duration) {
        let until = self.progress.now() + time;
        while !self.over() && self.progress.now() < until {
            thread::sleep(LOOK.min(until.saturating_sub(self.progress.now())));
        }
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.u64(range))
    }

    /// Has the clients crowd around a key, and returns whom to strike, in this order: mostly the
    /// nodes that hold the key, often its coordinator first, and then the others.
    fn aim(&mut self) -> Vec<u32> {
        let place = self.rng.usize(..self.keys.len());
        self.progress.crowd(place);
        let mut nodes: Vec<u32> = self.cluster.ids().collect();
        self.rng.shuffle(&mut nodes);
        let mut replicas = self.cluster.replicas(self.keys[place]);
        match self.rng.u8(..4) {
            0 => replicas.clear(),
            1 => self.rng.shuffle(&mut replicas),
            _ => {}
        }
        let order = |node: &u32| replicas.iter().position(|replica| replica == node);
        nodes.sort_by_key(|node| order(node).unwrap_or(replicas.len()));
        nodes
    }

    /// Everything at random: often two things at once, on different nodes. All of it is over
    /// before the next handful.
    fn handful(&mut self) {
        let nemesis = if self.rng.bool() {
            SHARP[self.rng.usize(..SHARP.len())]
        } else {
            ALONE[self.rng.usize(..ALONE.len())]
        };
        let nodes = self.aim();
        if nemesis.takes_long() && self.rng.u8(..3) > 0 {
            return;
        }
        if nemesis.strikes_alone() || self.rng.bool() {
            return self.strike(nemesis, &nodes);
        }
        let other = loop {
            let other = ALONE[self.rng.usize(..ALONE.len())];
            if !other.strikes_alone() {
                break other;
            }
        };
        let (one, rest) = nodes.split_at(2);
        let faults = [self.choose(nemesis, one), self.choose(other, rest)];
        let lasting = self.lasting(nemesis);
        self.let_loose(faults, lasting);
        let calm = self.millis(0..150);
        self.rest(calm);
    }

    /// One fault, or a round of them, and a moment of calm.
    fn strike(&mut self, nemesis: Nemesis, nodes: &[u32]) {
        if nemesis == Nemesis::Rolling {
            // In the order of the ring file, each as soon as the one before serves again.
            for node in self.cluster.ids() {
                let lasting = self.millis(0..100);
                self.let_loose([Fault::Kill { node }], lasting);
            }
            return;
        }
        if nemesis == Nemesis::Wipe && self.rng.bool() {
            // Every disk is lost, each as soon as the node before votes again: what that one has
            // not copied by then is nowhere.
            for &node in nodes {
                self.let_loose([Fault::Wipe { node }], Duration::ZERO);
            }
            return;
        }
        let lasting = self.lasting(nemesis);
        if nemesis == Nemesis::Split {
            let faults = self.split(nodes);
            self.let_loose(faults, lasting);
        } else {
            let fault = self.choose(nemesis, nodes);
            self.let_loose([fault], lasting);
        }
        let calm = match nemesis {
            Nemesis::All => self.millis(300..1_000),
            _ => self.millis(0..150),
        };
        self.rest(calm);
    }

    /// Some nodes take the first for silent and go to its successor, others do not, and its messages
    /// are late: a key has two coordinators, and what one of them wrote reaches some replicas only.
    fn split(&mut self, nodes: &[u32]) -> [Fault; 3] {
        let (to, others) = (nodes[0], &nodes[1..]);
        let mut cut = || {
            let from = others[self.rng.usize(..others.len())];
            Fault::Cut { from, to }
        };
        [cut(), cut(), self.choose(Nemesis::Straggle, nodes)]
    }

    /// Mostly short, sometimes much longer than any time-out between nodes.
    fn lasting(&mut self, nemesis: Nemesis) -> Duration {
        match nemesis {
            Nemesis::Timeout => self.millis(60..140),
            Nemesis::All => self.millis(0..200),
            // What was held up arrives just after it was given up.
            Nemesis::Split if self.rng.bool() => self.millis(100..180),
            _ if self.rng.u8(..8) == 0 => self.millis(400..2_000),
            _ => self.millis(20..400),
        }
    }

    /// A fault for the first of these nodes, or for the link between the first two.
    fn choose(&mut self, nemesis: Nemesis, nodes: &[u32]) -> Fault {
        let (from, to) = (nodes[0], nodes[1]);
        let rng = &mut self.rng;
        match nemesis {
            Nemesis::Kill => Fault::Kill { node: from },
            Nemesis::Pause | Nemesis::Timeout => Fault::Pause { node: from },
            Nemesis::All => Fault::KillAll {
                slow_disks: rng.bool(),
            },
            Nemesis::Wipe => Fault::Wipe { node: from },
            Nemesis::SlowDisk => Fault::SlowDisk {
                node: from,
                millis: rng.u64(10..250),
            },
            Nemesis::Cut => match rng.u8(..3) {
                0 => Fault::Cut { from, to },
                1 => Fault::CutBothWays {
                    one: from,
                    other: to,
                },
                _ => Fault::Isolate { node: from },
            },
            Nemesis::Delay => Fault::Delay {
                from,
                to,
                millis: rng.u64(5..150),
            },
            Nemesis::Duplicate => Fault::Duplicate { from, to },
            Nemesis::Reorder => Fault::Reorder { from, to },
            Nemesis::Straggle => Fault::Straggle {
                node: from,
                millis: rng.u64(20..STRAGGLE),
            },
            Nemesis::HalfOpen => Fault::HalfOpen {
                opener: from,
                to,
                opener_is_told: rng.bool(),
            },
            Nemesis::None | Nemesis::Mix | Nemesis::Rolling | Nemesis::Split => {
                unreachable!("{} is no single fault", nemesis.name())
            }
        }
    }

    fn let_loose<const N: usize>(&mut self, faults: [Fault; N], lasting: Duration) {
        let begun: Vec<(u64, Begun)> = faults
            .into_iter()
            .map(|fault| (self.now(), fault.begin(self.cluster)))
            .collect();
        self.rest(lasting);
        for (began, begun) in begun {
            let (fault, fired) = begun.end(self.cluster);
            let ended = self.now();
            self.events.push(Event {
                fault,
                began,
                ended,
                fired,
            });
        }
    }

    fn now(&self) -> u64 {
        self.progress.now().as_micros() as u64
    }
}
