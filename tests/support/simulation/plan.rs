//! What one run is like. Its seed chooses that before it starts.

use fastrand::Rng;
use simple_dynamo::bytes::Key;
use simple_dynamo::protocol::Strategy;
use simple_dynamo::protocol::ring::NodeId;

/// A microsecond, the unit of virtual time.
pub type Micros = u64;
pub const MILLISECOND: Micros = 1_000;

/// The key that clients only add to.
pub const COUNTER: &str = "key0";

/// What may go wrong at any moment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Fault {
    Loss,
    Duplicate,
    /// A message arrives long after its sender has stopped waiting for the answer.
    Late,
    /// A node dies: its memory is lost, its disk is not.
    Crash,
    /// All nodes die at once.
    PowerLoss,
    /// A node stands still, and then goes on with whatever it was doing.
    Pause,
    /// One node does not reach another. The way back may be fine.
    Cut,
    ClockJump,
    /// A coordinator ends all it does, undecided.
    Abandon,
    /// A node dies, and its disk is lost with it.
    LostFolder,
    /// A disk stands still for a while, and its node does not.
    Hang,
}

impl Fault {
    pub const ALL: [Fault; 11] = [
        Fault::Loss,
        Fault::Duplicate,
        Fault::Late,
        Fault::Crash,
        Fault::PowerLoss,
        Fault::Pause,
        Fault::Cut,
        Fault::ClockJump,
        Fault::Abandon,
        Fault::LostFolder,
        Fault::Hang,
    ];
}

/// A rule of the shell that a run leaves out, to show that the simulator would notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    Nothing,
    /// A reply leaves before the vote in it is durable.
    ReplyBeforeSync,
    /// A node outside of the preference list votes for a replica that is away.
    SloppyQuorum,
    /// The numbers of writes start again after a crash.
    NumbersReused,
    /// A coordinator that has crashed counts replies to questions of its former life.
    FormerLifeHeard,
    /// A request is sent to a coordinator twice, as if the origin had sent it again after a reset. The answer
    /// to one copy says nothing about the other.
    ForwardedTwice,
    /// With a read that it forwards a replica sends the vote that it sent with the read before.
    OldVoteSentAlong,
    /// A node that lost its folder also copies what only one replica has accepted.
    CopiedUnchosen,
}

/// The circumstances of one run.
pub struct Plan {
    pub strategy: Strategy,
    pub nodes: Vec<NodeId>,
    pub keys: Vec<Key>,
    pub clients: u32,
    /// Requests of each client.
    pub requests: u32,
    pub faults: Vec<Fault>,
    /// Mean time between two faults that befall a node or a link.
    pub calm: Micros,
    /// The longest time that such a fault lasts.
    pub ordeal: Micros,
    /// The share of messages that are lost, and below the shares of those that come twice and late.
    pub loss: f64,
    pub duplicate: f64,
    pub late: f64,
    /// The longest time that the usual message takes.
    pub delay: Micros,
    /// The longest time that a sync of a disk takes.
    pub sync: Micros,
    /// The longest pause of a client between two requests.
    pub thinking: Micros,
    /// How long an origin waits for a coordinator.
    pub patience: Micros,
    /// How many requests a coordinator takes at a time.
    pub capacity: usize,
    /// Mean time between two looks for a tombstone.
    pub looking: Micros,
    /// Whether suspects are asked, but not waited for.
    pub hurry: bool,
    /// The share of reads.
    pub reads: f64,
    /// Whether comparisons for a chain take long.
    pub slow_comparisons: bool,
}

impl Plan {
    pub fn of(strategy: Strategy, rng: &mut Rng, sabotage: Sabotage) -> Plan {
        let mut plan = Plan::by_chance(rng);
        plan.strategy = strategy;
        if sabotage == Sabotage::ForwardedTwice {
            // The harm needs a request that certainly failed, which is rare. So coordinators are full, and
            // origins soon give up.
            plan.faults = vec![Fault::Duplicate, Fault::ClockJump];
            plan.capacity = 1;
            plan.calm = 20 * MILLISECOND;
            plan.delay = plan.delay.min(5 * MILLISECOND);
            plan.patience = 400 * MILLISECOND;
            plan.duplicate = 0.5;
        }
        if sabotage == Sabotage::CopiedUnchosen {
            // The harm needs folders that are lost often and for a short time, while proposals take long.
            plan.faults = vec![Fault::LostFolder, Fault::Late, Fault::Cut];
            plan.calm = 20 * MILLISECOND;
            plan.ordeal = 60 * MILLISECOND;
            plan.late = 0.3;
            plan.delay = MILLISECOND;
            plan.sync = MILLISECOND;
            plan.thinking = 100 * MILLISECOND;
            plan.keys.truncate(1);
            plan.reads = 0.6;
            plan.clients = 3;
        }
        plan
    }

    fn by_chance(rng: &mut Rng) -> Plan {
        let nodes: &[u32] = if rng.u8(..4) == 0 {
            &[5554, 5556, 5558]
        } else {
            &[5554, 5556, 5558, 5560, 5562]
        };
        let mut keys = ["foo", "key38", "key15", "hello", COUNTER];
        rng.shuffle(&mut keys);
        let clients = rng.u32(3..=6);
        Plan {
            strategy: Strategy::Quorum,
            nodes: nodes.iter().map(|&id| NodeId(id)).collect(),
            keys: keys[..*pick(rng, &[1, 1, 2, 3])]
                .iter()
                .map(|&key| key.into())
                .collect(),
            clients,
            requests: rng.u32(24..=48) / clients,
            faults: some_faults(rng),
            calm: *pick(rng, &[20, 60, 200]) * MILLISECOND,
            ordeal: *pick(rng, &[60, 300, 1_500, 5_000]) * MILLISECOND,
            loss: *pick(rng, &[0.01, 0.05, 0.15]),
            duplicate: *pick(rng, &[0.02, 0.2, 0.5]),
            late: *pick(rng, &[0.01, 0.05, 0.2]),
            delay: *pick(rng, &[1, 5, 40]) * MILLISECOND,
            sync: *pick(rng, &[1, 5, 40]) * MILLISECOND,
            thinking: *pick(rng, &[1, 20, 100]) * MILLISECOND,
            patience: *pick(rng, &[100, 250, 400]) * MILLISECOND,
            capacity: *pick(rng, &[1, 2, 64, 64]),
            looking: *pick(rng, &[2, 20, 200]) * MILLISECOND,
            hurry: rng.bool(),
            reads: *pick(rng, &[0.2, 0.4, 0.6]),
            slow_comparisons: rng.clone().bool(),
        }
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}

/// Chooses some kinds of faults. Every combination has its turn, since some violations need a fault, and
/// others its absence.
fn some_faults(rng: &mut Rng) -> Vec<Fault> {
    let mut faults = Fault::ALL;
    rng.shuffle(&mut faults);
    let most = *pick(rng, &[1, 2, 3, faults.len()]);
    faults[..rng.usize(..=most)].to_vec()
}

/// One of several.
pub fn pick<'a, T>(rng: &mut Rng, among: &'a [T]) -> &'a T {
    &among[rng.usize(..among.len())]
}

/// True for a share of the calls.
pub fn share(rng: &mut Rng, share: f64) -> bool {
    rng.f64() < share
}
