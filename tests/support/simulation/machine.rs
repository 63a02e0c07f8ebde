//! One node: the code under test, and the state of the shell around it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use simple_dynamo::bytes::Key;
use simple_dynamo::protocol::chain::{self, Chain, Times};
use simple_dynamo::protocol::origin;
use simple_dynamo::protocol::quorum::coordinator;
use simple_dynamo::protocol::ring::{NodeId, Ring};
use simple_dynamo::protocol::version::Dot;
use simple_dynamo::protocol::{Quorums, Seen};

use super::chain::Comparisons;
use super::copying::Copying;
use super::network::Envelope;
use super::plan::{Micros, Plan, pick};
use super::store::Store;
use super::tombstones::Inquiries;
use super::world::Event;

/// N = 3 and R = W = 2, as in the assignment.
pub const QUORUMS: Quorums = Quorums {
    replicas: 3,
    read: 2,
    write: 2,
};
/// How long the origin keeps trying.
pub const DEADLINE: Duration = Duration::from_secs(2);
/// How many requests a range takes at a time, with its own questions.
const MOST_IN_CHAIN: usize = 64;
/// How many numbers for writes a node reserves at a time. They are few, so that they run out.
const BLOCK: u64 = 12;

/// Whom a coordinator answers.
#[derive(Clone, Debug)]
pub enum Caller {
    Origin {
        node: usize,
        life: u32,
        ask: u64,
        ticket: origin::Ticket,
        key: Key,
        dot: Option<Dot>,
    },
    /// Another member of a chain asks, or passes a request on.
    Member {
        node: usize,
        life: u32,
        ask: u64,
        ticket: chain::Ticket,
        key: Key,
        dot: Option<Dot>,
    },
    Background,
    /// A node that copies, and has asked for a refresh of this key.
    Copying {
        node: usize,
        life: u32,
        key: Key,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    Up,
    Down,
    Paused,
}

pub struct Machine {
    pub id: NodeId,
    /// How many times it has crashed.
    pub life: u32,
    pub condition: Condition,
    pub origin: origin::Origin<usize>,
    pub coordinator: coordinator::Coordinator<Caller>,
    pub store: Store<Envelope>,
    pub syncing: bool,
    /// Its disk stands still until then.
    pub hangs_until: Micros,
    pub inquiries: Inquiries,
    /// The number of its present folder. The first is 0.
    pub folder: u64,
    pub chain: Chain<Caller>,
    pub comparisons: Comparisons,
    /// When each peer was heard last.
    pub heard: HashMap<usize, Micros>,
    /// Present while the node copies after it lost its folder. It does not vote then.
    pub copying: Option<Copying>,
    /// The folders that other nodes have reported.
    pub folders: HashMap<usize, u64>,
    pub suspects: Vec<NodeId>,
    /// For each key the vote that it sent along with the last read that it forwarded.
    pub sent_along: HashMap<Key, Seen>,
    /// Questions to other nodes that were neither answered nor given up.
    pub waiting: HashSet<u64>,
    /// What came while it was paused.
    pub deferred: Vec<Event>,
    /// When its clients' requests end, on its own clock.
    pub ends: BTreeSet<Duration>,
    /// The node has durably reserved the numbers up to this one.
    pub reserved: u64,
    pub reserving: bool,
    /// How fast its clock runs, in per mille of the real time.
    rate: u64,
    /// How far its clock is ahead of the real time.
    offset: Duration,
}

fn new_chain(id: NodeId, ring: &Arc<Ring>) -> Chain<Caller> {
    let times = Times {
        time_out: Duration::from_millis(100),
        deadline: DEADLINE,
    };
    Chain::new(id, ring.clone(), QUORUMS, times, MOST_IN_CHAIN)
}

impl Machine {
    pub fn new(id: NodeId, ring: &Arc<Ring>, plan: &Plan, rng: &mut Rng) -> Machine {
        Machine {
            id,
            life: 0,
            condition: Condition::Up,
            origin: origin::Origin::new(id, ring.clone(), plan.strategy, DEADLINE, 1),
            chain: new_chain(id, ring),
            comparisons: Comparisons::default(),
            heard: HashMap::new(),
            coordinator: coordinator::Coordinator::new(id, ring.clone(), QUORUMS, plan.capacity),
            store: Store::new(ring),
            syncing: false,
            hangs_until: 0,
            inquiries: Inquiries::default(),
            folder: 0,
            copying: None,
            folders: HashMap::new(),
            suspects: Vec::new(),
            sent_along: HashMap::new(),
            waiting: HashSet::new(),
            deferred: Vec::new(),
            ends: BTreeSet::new(),
            reserved: 0,
            reserving: false,
            rate: *pick(rng, &[500, 1_000, 1_000, 1_900]),
            offset: Duration::from_secs(1_000),
        }
    }

    /// Loses everything but the disk.
    pub fn crash(&mut self, ring: &Arc<Ring>, plan: &Plan, first_sequence: u64) {
        self.life += 1;
        self.condition = Condition::Down;
        self.origin = origin::Origin::new(
            self.id,
            ring.clone(),
            plan.strategy,
            DEADLINE,
            first_sequence,
        );
        self.chain = new_chain(self.id, ring);
        self.comparisons = Comparisons::default();
        self.heard.clear();
        self.coordinator =
            coordinator::Coordinator::new(self.id, ring.clone(), QUORUMS, plan.capacity);
        self.store.crash();
        self.syncing = false;
        self.inquiries = Inquiries::default();
        self.copying = self.copying.take().map(|_| Copying::default());
        self.folders.clear();
        self.suspects.clear();
        self.sent_along.clear();
        self.waiting.clear();
        self.deferred.clear();
        self.ends.clear();
        self.reserving = false;
    }

    /// Loses the disk, too. The caller has crashed the machine before.
    pub fn lose_folder(&mut self, ring: &Arc<Ring>, plan: &Plan) {
        self.folder += 1;
        self.copying = Some(Copying::default());
        self.store = Store::new(ring);
        self.reserved = 0;
        self.origin = origin::Origin::new(self.id, ring.clone(), plan.strategy, DEADLINE, 1);
    }

    /// Numbers writes above this one.
    pub fn number_writes(&mut self, used: u64) {
        self.reserved = self.reserved.max(used) + BLOCK;
        self.origin.reserved(used, self.reserved);
        self.reserving = false;
    }

    /// How long it has run, as it measures that. Nobody can set that clock.
    pub fn uptime(&self, now: Micros) -> Duration {
        Duration::from_micros(now * self.rate / 1_000)
    }

    /// What its clock shows.
    pub fn clock(&self, now: Micros) -> Duration {
        self.offset + Duration::from_micros(now * self.rate / 1_000)
    }

    pub fn set_clock_off(&mut self, forward: bool, by: Duration) {
        if forward {
            self.offset += by;
        } else {
            self.offset = self.offset.saturating_sub(by);
        }
    }

    /// How long a wait of this length by its own clock takes in real time.
    pub fn really(&self, wait: Micros) -> Micros {
        wait * 1_000 / self.rate
    }

    /// The next block of numbers, if it is time to reserve one.
    pub fn block_to_reserve(&mut self) -> Option<u64> {
        if self.reserving || self.origin.sequences_left() > BLOCK / 2 {
            return None;
        }
        self.reserving = true;
        Some(self.reserved + BLOCK)
    }

    pub fn suspect(&mut self, peer: NodeId) {
        if !self.suspects.contains(&peer) && peer != self.id {
            self.suspects.push(peer);
        }
    }

    pub fn trust(&mut self, peer: NodeId) {
        self.suspects.retain(|suspect| *suspect != peer);
    }
}
