//! What a nemesis can do to nodes and links, and whether it did anything.

use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::support::cluster::Cluster;
use crate::support::proxy::Way;

/// How long a sync takes that all nodes wait for when they are killed.
const SYNC: Duration = Duration::from_millis(50);

/// One thing that goes wrong, for a while.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// `kill -9`; started again at the end.
    Kill { node: u32 },
    /// `kill -9` of all nodes at once, perhaps while each waits for its disk.
    KillAll { slow_disks: bool },
    /// `kill -9`, and its disk is lost; started again with an empty one at the end. No other node
    /// may be out meanwhile: it copies from all of them before it votes.
    Wipe { node: u32 },
    /// SIGSTOP; SIGCONT at the end.
    Pause { node: u32 },
    /// Each sync takes longer.
    SlowDisk { node: u32, millis: u64 },
    /// One does not reach the other. The way back is fine.
    Cut { from: u32, to: u32 },
    /// Neither reaches the other.
    CutBothWays { one: u32, other: u32 },
    /// Nothing reaches the node, and it reaches nobody.
    Isolate { node: u32 },
    /// Messages on one way are late.
    Delay { from: u32, to: u32, millis: u64 },
    /// Messages on one way come twice.
    Duplicate { from: u32, to: u32 },
    /// Messages on one way overtake each other.
    Reorder { from: u32, to: u32 },
    /// Many messages of a node straggle behind its others, by up to so much.
    Straggle { node: u32, millis: u64 },
    /// A connection is gone, and only one side knows. Nobody ever tells the other.
    HalfOpen {
        opener: u32,
        to: u32,
        opener_is_told: bool,
    },
}

/// Which nodes a fault makes unfit to be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Harm {
    Nobody,
    Node(u32),
    /// The two do not hear each other: one of them counts as out.
    Link(u32, u32),
    Everybody,
}

/// A fault that has begun.
pub struct Begun {
    fault: Fault,
    /// What had befallen before.
    before: usize,
    /// A half-open connection needs a connection.
    found: bool,
}

impl Fault {
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Kill { .. } => "kill",
            Fault::KillAll { .. } => "kill-all",
            Fault::Wipe { .. } => "wipe",
            Fault::Pause { .. } => "pause",
            Fault::SlowDisk { .. } => "slow-disk",
            Fault::Cut { .. } => "cut",
            Fault::CutBothWays { .. } => "cut-both-ways",
            Fault::Isolate { .. } => "isolate",
            Fault::Delay { .. } => "delay",
            Fault::Duplicate { .. } => "duplicate",
            Fault::Reorder { .. } => "reorder",
            Fault::Straggle { .. } => "straggle",
            Fault::HalfOpen { .. } => "half-open",
        }
    }

    /// Messages that come twice or in another order hinder nobody.
    pub fn harm(&self) -> Harm {
        match *self {
            Fault::Kill { node }
            | Fault::Wipe { node }
            | Fault::Pause { node }
            | Fault::SlowDisk { node, .. }
            | Fault::Straggle { node, .. }
            | Fault::Isolate { node } => Harm::Node(node),
            Fault::KillAll { .. } => Harm::Everybody,
            Fault::Cut { from, to } | Fault::Delay { from, to, .. } => Harm::Link(from, to),
            Fault::CutBothWays { one, other } => Harm::Link(one, other),
            Fault::HalfOpen { opener, to, .. } => Harm::Link(opener, to),
            Fault::Duplicate { .. } | Fault::Reorder { .. } => Harm::Nobody,
        }
    }

    pub fn begin(self, cluster: &Cluster) -> Begun {
        let before = self.befallen(cluster);
        let mut found = true;
        match self {
            Fault::Kill { node } => cluster.kill(node),
            Fault::KillAll { slow_disks } => {
                if slow_disks {
                    cluster.ids().for_each(|id| cluster.slow_disk(id, SYNC));
                    thread::sleep(2 * SYNC);
                }
                cluster.ids().for_each(|id| cluster.kill(id));
                if slow_disks {
                    cluster.ids().for_each(|id| cluster.heal_disk(id));
                }
            }
            Fault::Wipe { node } => {
                cluster.kill(node);
                cluster.wipe(node);
            }
            Fault::Pause { node } => cluster.pause(node),
            Fault::SlowDisk { node, millis } => {
                cluster.slow_disk(node, Duration::from_millis(millis));
            }
            Fault::Cut { from, to } => cluster.network().cut(from, to),
            Fault::CutBothWays { one, other } => {
                cluster.network().cut(one, other);
                cluster.network().cut(other, one);
            }
            Fault::Isolate { node } => cluster.network().isolate(node),
            Fault::Delay { from, to, millis } => {
                let by = Duration::from_millis(millis);
                cluster.network().delay(from, to, by);
            }
            Fault::Duplicate { from, to } => cluster.network().double(from, to),
            Fault::Reorder { from, to } => cluster.network().disorder(from, to),
            Fault::Straggle { millis, .. } => {
                let by = Duration::from_millis(millis);
                for (from, to) in self.ways(cluster) {
                    cluster.network().straggle(from, to, by);
                }
            }
            Fault::HalfOpen {
                opener,
                to,
                opener_is_told,
            } => found = cluster.network().half_open(opener, to, opener_is_told),
        }
        Begun {
            fault: self,
            before,
            found,
        }
    }

    /// How much there is to see of faults of this kind. A process that was killed or stopped is
    /// seen to be so when that is done.
    fn befallen(&self, cluster: &Cluster) -> usize {
        match self {
            Fault::SlowDisk { node, .. } => {
                let written = cluster.stat(*node, "log_bytes");
                written.map_or(0, |bytes| bytes.parse().expect("a number"))
            }
            _ => {
                let befallen = |&(from, to): &Way| cluster.network().befallen(from, to);
                self.ways(cluster).iter().map(befallen).sum()
            }
        }
    }

    /// The ways on which it befalls messages.
    fn ways(&self, cluster: &Cluster) -> Vec<Way> {
        match *self {
            Fault::Cut { from, to }
            | Fault::Delay { from, to, .. }
            | Fault::Duplicate { from, to }
            | Fault::Reorder { from, to } => vec![(from, to)],
            Fault::CutBothWays { one, other } => vec![(one, other), (other, one)],
            Fault::Isolate { node } => {
                let others = cluster.ids().filter(|other| *other != node);
                others
                    .flat_map(|other| [(node, other), (other, node)])
                    .collect()
            }
            Fault::Straggle { node, .. } => {
                let others = cluster.ids().filter(|other| *other != node);
                others.map(|other| (node, other)).collect()
            }
            Fault::Kill { .. }
            | Fault::KillAll { .. }
            | Fault::Wipe { .. }
            | Fault::Pause { .. }
            | Fault::SlowDisk { .. }
            | Fault::HalfOpen { .. } => Vec::new(),
        }
    }
}

impl Begun {
    /// How much there is to see of it so far.
    pub fn befallen_since(&self, cluster: &Cluster) -> usize {
        self.fault.befallen(cluster).abs_diff(self.before)
    }

    /// Ends it, and waits until the nodes that were down serve again, and one that lost its disk
    /// votes again. Returns the fault, and whether it did anything: a cut that held nothing up is
    /// none.
    pub fn end(self, cluster: &Cluster) -> (Fault, bool) {
        let befallen = self.befallen_since(cluster) > 0;
        for (from, to) in self.fault.ways(cluster) {
            cluster.network().heal_way(from, to);
        }
        let fired = match self.fault {
            Fault::Kill { node } => {
                cluster.start_node(node);
                cluster.await_answer(node);
                true
            }
            Fault::KillAll { .. } => {
                cluster.ids().for_each(|id| cluster.start_node(id));
                cluster.ids().for_each(|id| cluster.await_answer(id));
                true
            }
            Fault::Wipe { node } => {
                cluster.start_node(node);
                cluster.await_vote(node);
                true
            }
            Fault::Pause { node } => {
                cluster.resume(node);
                true
            }
            Fault::SlowDisk { node, .. } => {
                cluster.heal_disk(node);
                befallen
            }
            Fault::HalfOpen { .. } => self.found,
            _ => befallen,
        };
        (self.fault, fired)
    }
}
