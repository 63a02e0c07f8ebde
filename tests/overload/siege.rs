//! A cluster under attack: honest clients are served all the while.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::support::asking::DEADLINE;
use crate::support::cluster::{Cluster, Plan, THREE};
use crate::support::raw::Raw;
use crate::support::usage::Usage;
use crate::support::workload::{Progress, Workload, assert_linearizable};

pub const MIB: usize = 1 << 20;
/// `client_memory_mib` of the nodes here: the least that a cluster file may set.
pub const CLIENT_MEMORY: usize = 32;
/// Connections that a node keeps open for its peers, its data and its listeners.
pub const OWN_DESCRIPTORS: u64 = 60;
/// How many connections a crowd opens at once. When more wait to be accepted than the system allows, it
/// tries them again only after a second.
pub const MOST_AT_ONCE: usize = 100;
/// The node that is attacked.
pub const VICTIM: u32 = 5554;
/// Honest clients of each test, and the keys that they ask for.
pub const HONEST: u32 = 6;
pub const KEYS: [&str; 4] = ["foo", "key38", "key15", "hello"];

pub fn plan() -> Plan {
    Plan::of(&THREE).set("client_memory_mib", CLIENT_MEMORY)
}

/// Only one attack runs at a time: each has the machine for itself.
static MACHINE: Mutex<()> = Mutex::new(());

/// Starts nodes whose allocator gives large blocks back to the system at once: so their memory is
/// what they hold.
pub fn start(plan: Plan) -> (Cluster, MutexGuard<'static, ()>) {
    let alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = plan.lay_out();
    let blocks = ("MALLOC_MMAP_THRESHOLD_", "131072");
    cluster
        .ids()
        .for_each(|id| cluster.start_node_with(id, &[blocks]));
    cluster.await_all_ready();
    (cluster, alone)
}

pub fn usage(cluster: &Cluster, id: u32) -> Usage {
    Usage::of(cluster.pid(id)).expect("the process runs")
}

/// Asserts that the memory of each node, at its peak, is bounded by the common budget of the clients, what
/// each of the `clients` connections may use beside it, and what a node takes anyway. Replies that are not
/// yet counted in the budget are bounded by the number of threads that bring them.
pub fn assert_memory_bounded(cluster: &Cluster, clients: usize) {
    let bound = (CLIENT_MEMORY + 32) * MIB + clients * 448 * 1024;
    for id in cluster.ids() {
        let peak = usage(cluster, id).peak as usize;
        assert!(
            peak < bound,
            "node {id} took {peak} bytes, and {bound} are allowed"
        );
    }
}

/// Attacks while honest clients ask every node. Each of their requests must end well and within the
/// deadline, and their history must be linearizable.
pub fn besiege<T>(cluster: &Cluster, attack: impl FnOnce(&Progress) -> T) -> T {
    let workload = Workload {
        cluster,
        clients: HONEST,
        keys: &KEYS,
        seed: 1,
    };
    let (observed, result) = workload.run(|progress| {
        progress.await_more(50);
        let result = attack(progress);
        progress.await_more(50);
        result
    });
    assert_eq!(observed.refused, 0, "{:?}", observed.examples);
    assert!(observed.longest < DEADLINE, "{:?}", observed.longest);
    assert_linearizable(&observed);
    result
}

/// Runs `attacker` on so many connections at once, each on a thread of its own.
pub fn at_once<T: Send>(
    cluster: &Cluster,
    count: usize,
    attacker: impl Fn(usize, Raw) -> T + Sync,
) -> Vec<T> {
    let address = cluster.address(VICTIM);
    let (address, attacker) = (&address, &attacker);
    thread::scope(|scope| {
        let attackers: Vec<_> = (0..count)
            .map(|number| scope.spawn(move || attacker(number, Raw::connect(address))))
            .collect();
        let joined = attackers.into_iter().map(|thread| thread.join().unwrap());
        joined.collect()
    })
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A value that takes six times its length on a line.
pub fn control_characters(count: usize) -> String {
    format!("\"{}\"", "\\u0001".repeat(count))
}
