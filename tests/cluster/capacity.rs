//! A store that holds as much data as it may refuses more, loses nothing, and takes writes again once some
//! data are deleted.

use std::thread;

use crate::support::cluster::{Cluster, FIVE, Plan, eventually};
use crate::support::raw::Raw;

/// Bytes of a value. A node may hold some sixty of them here.
const VALUE: usize = 16 << 10;

/// Nodes that may hold one MiB each, and soon forget what is deleted.
fn small() -> Plan {
    let plan = Plan::of(&FIVE).set("data_memory_mib", 1);
    let plan = plan.set("request_deadline_ms", 1000);
    let plan = plan.set("tombstone_age_ms", 2000);
    plan.set("anti_entropy_ms", 100)
}

/// Returns whether a write was done, or false if it was refused because a node is full. On a busy machine
/// neither may be so at first.
fn try_to(cluster: &Cluster, id: u32, request: &str) -> bool {
    eventually("a write is done or refused with BUSY", || {
        let reply = cluster.call(id, request);
        if reply.starts_with("ERROR BUSY node ") {
            assert!(reply.contains("data_memory_mib"), "{reply}");
            return Some(false);
        }
        reply.starts_with("OK ").then_some(true)
    })
}

fn put(cluster: &Cluster, id: u32, key: &str) -> bool {
    try_to(cluster, id, &format!("PUT {key} {}", "x".repeat(VALUE)))
}

fn is_full(cluster: &Cluster, id: u32) -> bool {
    cluster.stat(id, "full").as_deref() == Some("yes")
}

/// Puts keys until a node is full. Returns the keys that were written.
fn fill(cluster: &Cluster, keys: impl IntoIterator<Item = String>) -> Vec<String> {
    let taken: Vec<_> = keys
        .into_iter()
        .take_while(|key| put(cluster, 5554, key))
        .take(1000)
        .collect();
    assert!(taken.len() < 1000, "no node is full after a thousand keys");
    taken
}

#[test]
fn a_full_store_takes_no_more_tells_what_it_has_and_lets_it_be_deleted() {
    let cluster = small().start();
    let coordinator = 5558;
    let taken = fill(&cluster, cluster.keys_of(coordinator));
    assert!(taken.len() > 50, "only {}", taken.len());
    let replicas = cluster.replicas(&taken[0]);
    let bytes = |id| -> usize { cluster.stat(id, "data_bytes").unwrap().parse().unwrap() };
    let held = replicas.iter().map(|id| bytes(*id)).max().unwrap();
    // The node may hold more than its bound: the writes that came before the others knew that it is full.
    assert!(held < 8 << 20, "{held} bytes");
    let new = cluster.keys_of(coordinator).nth(taken.len() + 5).unwrap();
    for request in ["PUT {} x", "CAS {} - x", "DEL {}"] {
        let request = request.replace("{}", &new);
        assert!(!try_to(&cluster, 5556, &request), "{request}");
    }
    assert_eq!(cluster.get(5560, &new), None);
    for key in &taken {
        assert_eq!(cluster.get(5562, key).map(|value| value.len()), Some(VALUE));
    }
    for key in &taken {
        assert!(try_to(&cluster, 5554, &format!("DEL {key}")));
        assert_eq!(cluster.get(5556, key), None);
    }
    eventually("a key can be written again", || {
        put(&cluster, 5554, &new).then_some(())
    });
    let size = cluster.get(5556, &new).map(|value| value.len());
    assert_eq!(size, Some(VALUE));
}

/// That it cannot compare one range must not make it accept deletes of keys that are missing in another.
#[test]
fn a_full_coordinator_that_doubts_another_range_refuses_deletes_of_keys_that_are_not_there() {
    let cluster = small().start();
    let coordinator = 5558;
    let mut keys = cluster.keys_of(coordinator);
    let taken = fill(&cluster, keys.by_ref());
    // The nodes whose ranges it holds, too.
    let before = FIVE.into_iter().filter(|id| {
        let key = cluster.keys_of(*id).next().unwrap();
        *id != coordinator && cluster.replicas(&key).contains(&coordinator)
    });
    before.for_each(|id| cluster.kill(id));
    cluster.kill(coordinator);
    cluster.start_node(coordinator);
    eventually(
        "one of its ranges alone is in doubt, and it is full",
        || {
            let in_doubt = cluster.stat(coordinator, "ranges_up_to_date")? == "2";
            (in_doubt && is_full(&cluster, coordinator)).then_some(())
        },
    );
    for key in keys.take(10) {
        let reply = cluster.call(coordinator, &format!("DEL {key}"));
        assert!(reply.starts_with("ERROR BUSY node "), "{reply}");
    }
    assert!(try_to(&cluster, coordinator, &format!("DEL {}", taken[0])));
}

/// A node holds the keys of three coordinators, and each of these may hold much less than it.
#[test]
fn coordinators_that_are_not_full_refuse_writes_for_a_replica_that_is() {
    let cluster = small().start();
    let ring: Vec<u32> = cluster.replicas(&cluster.keys_of(5554).next().unwrap());
    let [first, _, full] = ring[..] else {
        panic!("{ring:?}");
    };
    // The third node is a replica of both coordinators, so it holds twice as much as the first one.
    let mut keys_of_first = cluster.keys_of(first);
    let both = keys_of_first.by_ref().zip(cluster.keys_of(full));
    fill(&cluster, both.flat_map(|(one, other)| [one, other]));
    assert!(is_full(&cluster, full) && !is_full(&cluster, first));
    // The values are small, so that the coordinator does not get full before it hears of the replica.
    let mut takes = || {
        try_to(
            &cluster,
            first,
            &format!("PUT {} x", keys_of_first.next().unwrap()),
        )
    };
    eventually("the coordinator has heard", || (!takes()).then_some(()));
    // While it is away, it holds up nobody.
    cluster.kill(full);
    eventually("its absence is noticed", || takes().then_some(()));
    // When it is back, it tells the coordinator again.
    cluster.restart(full);
    eventually("the coordinator has heard again", || {
        (!takes()).then_some(())
    });
    // It also tells a coordinator that was away itself.
    cluster.kill(first);
    cluster.restart(first);
    eventually("the coordinator has heard after its start", || {
        (!takes()).then_some(())
    });
}

/// The writes of a key wait for their turn. If each of them started the next one within its own call, the
/// stack would overflow.
#[test]
fn many_writes_of_one_key_that_are_refused_as_busy_do_not_overflow_the_stack() {
    let cluster = small().lay_out();
    let little_stack = ("RUST_MIN_STACK", "262144");
    cluster
        .ids()
        .for_each(|id| cluster.start_node_with(id, &[little_stack]));
    cluster.await_all_ready();
    let id = 5554;
    let mut keys = cluster.keys_of(id);
    let hot = keys.next().unwrap();
    let connect = |_| Raw::connect(&cluster.address(id));
    let mut clients: Vec<Raw> = (0..800).map(connect).collect();
    thread::scope(|scope| {
        let filling = scope.spawn(|| fill(&cluster, keys));
        eventually("one of them is refused with BUSY", || {
            let request = format!("PUT {hot} x\n");
            clients.iter_mut().for_each(|client| client.send(&request));
            let replies = clients.iter_mut().map(|client| client.line());
            let busy = replies.filter(|reply| reply.starts_with("ERROR BUSY node "));
            (busy.count() > 0).then_some(())
        });
        filling.join().unwrap();
    });
    cluster.assert_runs(id);
}
