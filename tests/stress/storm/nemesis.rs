//! A nemesis chooses by a seed which faults it injects, one handful after the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use fastrand::Rng;
use serde::Serialize;

use super::fault::{Begun, Fault};
use crate::support::cluster::Cluster;
use crate::support::workload::Progress;

/// The kind of faults that a nemesis injects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Nemesis {
    /// Straggle and split half of the time, else any of these.
    Mix,
    /// kill -9 of a node, and a new start.
    Kill,
    /// SIGSTOP and SIGCONT.
    Pause,
    /// Pauses of 60 to 140 ms, around the read time-out.
    Timeout,
    /// Each node in turn, the next as soon as the last one serves again, with chains in all of its chains.
    Rolling,
    /// kill -9 of all five at once.
    All,
    /// kill -9 of a node, and a new start with an empty data folder, or so with each node in turn; no other is out
    /// before it votes again.
    Wipe,
    /// Each sync of a node takes 10 to 250 ms longer.
    SlowDisk,
    /// A link, one way or both, or all links of a node.
    Cut,
    /// Messages on a link are 5 to 150 ms late.
    Delay,
    /// Messages on a link come twice.
    Duplicate,
    /// Messages on a link overtake each other.
    Reorder,
    /// Half of a node's messages are up to 200 ms late, each by its own time.
    Straggle,
    /// The same, and two others do not reach that node: clients of a key have two coordinators, and a write may have
    /// reached one replica alone.
    Split,
    /// A connection is gone, and only one side knows.
    HalfOpen,
    /// Nothing.
    None,
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

/// How long a nemesis sleeps at a time before it looks whether the run is over.
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

/// These find most, so half of `Mix` is made of them.
const SHARP: [Nemesis; 2] = [Nemesis::Straggle, Nemesis::Split];

impl Nemesis {
    /// The name on the command line.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.expect("none is hidden").get_name().to_owned()
    }

    /// Whether it takes so long that the others would have no turn.
    fn takes_long(self) -> bool {
        matches!(self, Nemesis::Rolling | Nemesis::All)
    }

    /// Whether no other fault may happen at the same time. A node that lost its disk waits for all others. Beside
    /// another fault it would not vote before that one is over, and two nodes would be out.
    fn strikes_alone(self) -> bool {
        self.takes_long() || matches!(self, Nemesis::Wipe | Nemesis::Split)
    }
}

/// A nemesis at work.
pub struct AtWork<'a> {
    pub nemesis: Nemesis,
    pub cluster: &'a Cluster,
    pub progress: &'a Progress<'a>,
    /// The keys that the clients ask for.
    pub keys: &'a [&'a str],
    pub rng: Rng,
    /// When no more faults are begun.
    pub until: Duration,
    pub interrupted: &'a AtomicBool,
    pub events: &'a mut Vec<Event>,
}

impl AtWork<'_> {
    /// Injects faults until the time is over. Then waits until every node has what it missed.
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

    /// Sleeps for this time, but not beyond the end.
    fn rest(&self, time: Duration) {
        let until = self.progress.now() + time;
        while !self.over() && self.progress.now() < until {
            thread::sleep(LOOK.min(until.saturating_sub(self.progress.now())));
        }
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.u64(range))
    }

    /// Makes the clients crowd around a key. Returns the nodes in the order in which to strike them: mostly those
    /// that hold the key, often its coordinator first, and then the others.
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

    /// Injects random faults, often two at once on different nodes. All of them end before the next handful.
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

    /// Injects one fault, or a round of them, and then rests for a moment.
    fn strike(&mut self, nemesis: Nemesis, nodes: &[u32]) {
        if nemesis == Nemesis::Rolling {
            // In the order of the ring file, each as soon as the one before serves again.
            for node in self.cluster.ids() {
                let lasting = self.millis(0..100);
                self.let_loose([Fault::Kill { node }], lasting);
                // A chain goes on without a node, and takes it back later.
                self.cluster.await_whole_chains(node);
            }
            return;
        }
        if nemesis == Nemesis::Wipe && self.rng.bool() {
            // Every disk is lost, each as soon as the node before votes again. What that node has not copied by
            // then is lost for good.
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

    /// Some nodes take the first one for silent and go to its successor, others do not, and its messages are
    /// late. So a key has two coordinators, and what one of them writes reaches only some replicas.
    fn split(&mut self, nodes: &[u32]) -> [Fault; 3] {
        let (to, others) = (nodes[0], &nodes[1..]);
        let mut cut = || {
            let from = others[self.rng.usize(..others.len())];
            Fault::Cut { from, to }
        };
        [cut(), cut(), self.choose(Nemesis::Straggle, nodes)]
    }

    /// How long a fault lasts: mostly a short time, and sometimes much longer than any time-out between nodes.
    fn lasting(&mut self, nemesis: Nemesis) -> Duration {
        match nemesis {
            Nemesis::Timeout => self.millis(60..140),
            Nemesis::All => self.millis(0..200),
            // What was held up arrives just after its sender gave up waiting.
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
                opener_notices: rng.bool(),
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
