//! Order: real processes keep the promise of one register per key, with and without failures.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::cluster::{Cluster, FIVE, Plan, THREE};
use crate::support::nemesis;
use crate::support::workload::{StopWhenDone, Workload, assert_linearizable};

#[test]
fn all_replicas_are_equal_after_two_nodes_overwrote_one_key_at_the_same_time() {
    let cluster = Plan::of(&THREE).set("anti_entropy_ms", 500).start();
    thread::scope(|scope| {
        for id in [5554, 5556] {
            let cluster = &cluster;
            scope.spawn(move || {
                let mut client = cluster.client(id);
                for number in 0..100 {
                    let reply = client.call(&format!("PUT foo {id}-{number}")).unwrap();
                    assert!(reply.starts_with("OK "), "{reply}");
                }
            });
        }
    });
    let value = cluster.get(5558, "foo").unwrap();
    assert!(value.ends_with("-99"), "{value} was overwritten");
    let pairs = THREE.map(|id| cluster.own_pairs(id));
    assert!(pairs[0] == pairs[1] && pairs[1] == pairs[2], "{pairs:?}");
    assert!(pairs[0][0].ends_with(&value), "{pairs:?}");
}

#[test]
fn a_write_is_read_through_every_other_node_and_no_reader_goes_back() {
    let cluster = Cluster::start(&FIVE);
    let (written, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let number = |reply: String| match reply.rsplit_once(' ') {
        Some((_, number)) => number.parse::<u64>().unwrap(),
        None => 0,
    };
    thread::scope(|scope| {
        for id in FIVE {
            let (cluster, written, stop) = (&cluster, &written, &stop);
            scope.spawn(move || {
                let mut client = cluster.client(id);
                let mut seen = 0;
                while !stop.load(Ordering::Relaxed) {
                    let least = written.load(Ordering::SeqCst).max(seen);
                    seen = number(client.call("GET counter").unwrap());
                    assert!(seen >= least, "node {id} read {seen} after {least}");
                }
            });
        }
        let _stop = StopWhenDone(&stop);
        let mut clients = FIVE.map(|id| cluster.client(id));
        for count in 1..=150 {
            let writer = count as usize % FIVE.len();
            let reply = clients[writer]
                .call(&format!("PUT counter {count}"))
                .unwrap();
            assert!(reply.starts_with("OK "), "{reply}");
            written.store(count, Ordering::SeqCst);
            for (reader, client) in clients.iter_mut().enumerate() {
                let read = number(client.call("GET counter").unwrap());
                assert_eq!(
                    read, count,
                    "written through {writer}, read through {reader}"
                );
            }
        }
    });
}

#[test]
fn histories_are_linearizable_while_nodes_crash_and_pause_one_at_a_time() {
    let cluster = Plan::of(&FIVE).set("anti_entropy_ms", 500).start();
    let workload = Workload {
        cluster: &cluster,
        clients: 8,
        keys: &["foo", "key38", "key15", "hello", "key0"],
        seed: 1,
    };
    let (observed, faults) =
        workload.run(|_| nemesis::one_at_a_time(&cluster, 7, Duration::from_secs(7)));
    let count = observed.history.len();
    println!(
        "{count} operations, {faults:?}, {} refused, longest {:?}",
        observed.refused, observed.longest
    );
    assert!(faults.crashes >= 2 && faults.pauses >= 2, "{faults:?}");
    assert!(count > 500, "only {count} operations");
    assert!(
        observed.refused * 50 <= count,
        "{} of {count} refused: {:?}",
        observed.refused,
        observed.examples
    );
    let bound = Duration::from_millis(2000 + 400 + 600);
    assert!(
        observed.longest < bound,
        "a request took {:?}",
        observed.longest
    );
    assert_linearizable(&observed);
}
