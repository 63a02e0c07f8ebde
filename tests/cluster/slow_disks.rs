//! Slow disks: a vote that waits for a sync is no sign of a failure, and a disk that hangs costs hardly
//! anything as long as the disks of the other two replicas of a key work.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, FIVE};

/// Far longer than the read time-out.
const SLOW: Duration = Duration::from_millis(200);
/// A sync that does not end while a test runs.
const HANGS: Duration = Duration::from_secs(600);

fn assert_no_suspicion(cluster: &Cluster) {
    for id in FIVE {
        let log = cluster.log(id);
        assert!(!log.contains("suspect"), "node {id}: {log}");
    }
}

#[test]
fn slow_disks_everywhere_fail_no_request_and_no_node_is_suspected() {
    let cluster = Cluster::start(&FIVE);
    FIVE.iter().for_each(|&id| cluster.slow_disk(id, SLOW));
    thread::scope(|scope| {
        for id in FIVE {
            let cluster = &cluster;
            scope.spawn(move || {
                for number in 0..4 {
                    // Each key is new, so its write takes a prepare and an accept, and two syncs.
                    cluster.done(id, &format!("PUT key{number}-{id} v"));
                    let read = cluster.get(id, &format!("key{number}-{id}"));
                    assert_eq!(read.as_deref(), Some("v"));
                }
            });
        }
    });
    assert_no_suspicion(&cluster);
}

#[test]
fn two_slow_disks_of_a_keys_three_fail_no_request() {
    let cluster = Cluster::start(&FIVE);
    let replicas = cluster.replicas("key0");
    for id in &replicas[..2] {
        cluster.slow_disk(*id, SLOW);
    }
    let same = |key: &String| cluster.replicas(key)[..2] == replicas[..2];
    let keys = (0..).map(|number| format!("key{number}")).filter(same);
    for key in keys.take(6) {
        cluster.done(FIVE[0], &format!("PUT {key} v"));
    }
    assert_no_suspicion(&cluster);
}

/// Runs a client of each node for so long. Returns how long each of their requests took.
fn measure(cluster: &Cluster, during: Duration) -> Vec<Duration> {
    let until = Instant::now() + during;
    thread::scope(|scope| {
        let clients = FIVE.map(|id| {
            scope.spawn(move || {
                let mut client = cluster.client(id);
                let mut took = Vec::new();
                for number in 0.. {
                    if Instant::now() >= until {
                        break;
                    }
                    let began = Instant::now();
                    let key = number % 40;
                    let request = match number % 2 {
                        0 => format!("PUT key{key} {number}"),
                        _ => format!("GET key{key}"),
                    };
                    let reply = client.call(&request).unwrap();
                    assert!(!reply.starts_with("ERROR"), "{request} at {id}: {reply}");
                    took.push(began.elapsed());
                    thread::sleep(Duration::from_millis(1));
                }
                took
            })
        });
        clients.map(|client| client.join().unwrap()).concat()
    })
}

#[test]
fn a_disk_that_hangs_fails_no_request_and_after_a_second_slows_hardly_any() {
    let cluster = Cluster::start(&FIVE);
    let hangs = 5558;
    cluster.slow_disk(hangs, HANGS);
    measure(&cluster, Duration::from_secs(1));
    let mut took = measure(&cluster, Duration::from_secs(4));
    took.sort_unstable();
    let p99 = took[took.len() * 99 / 100];
    assert!(took.len() > 500, "only {} requests", took.len());
    assert!(p99 < Duration::from_millis(150), "p99 is {p99:?}");
    assert_no_suspicion(&cluster);
    cluster.heal_disk(hangs);
    cluster.await_all_ready();
}
