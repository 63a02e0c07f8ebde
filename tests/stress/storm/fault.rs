//! The faults that a nemesis can inject into nodes and links, and whether each did anything.

use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::support::cluster::Cluster;
use crate::support::proxy::Way;

/// How long a sync takes while all nodes are killed in the middle of it.
const SYNC: Duration = Duration::from_millis(50);

/// One thing that goes wrong, for a while.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// `kill -9`. The node is started again at the end.
    Kill { node: u32 },
    /// `kill -9` of all nodes at once, perhaps while each waits for its disk.
    KillAll { slow_disks: bool },
    /// `kill -9`, and the disk is lost. The node is started again with an empty disk at the end. No other node may
    /// be out meanwhile, since this one copies from all others before it votes.
    Wipe { node: u32 },
    /// SIGSTOP, and SIGCONT at the end.
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
    /// A connection is gone, and only one side knows. The other side never learns of it.
    HalfOpen {
        opener: u32,
        to: u32,
        opener_notices: bool,
    },
}

/// Which nodes a fault puts out of service.
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
    /// What [`Fault::befallen`] counted before.
    before: usize,
    /// Whether there was a connection for a half-open one.
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

    /// Which nodes the fault puts out of service. Messages that come twice or in another order do no harm.
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
                opener_notices,
            } => found = cluster.network().half_open(opener, to, opener_notices),
        }
        Begun {
            fault: self,
            before,
            found,
        }
    }

    /// A count that grows when faults of this kind do something. It counts nothing for kills and pauses, which
    /// always do something.
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

    /// The ways on which the fault befalls messages.
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
    /// How much the fault has done so far.
    pub fn befallen_since(&self, cluster: &Cluster) -> usize {
        self.fault.befallen(cluster).abs_diff(self.before)
    }

    /// Ends the fault. Waits until nodes that were down serve again, and until one that lost its disk votes
    /// again. Returns the fault, and whether it did anything: a cut that held nothing up did not.
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
