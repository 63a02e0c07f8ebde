//! Failure: one node that is down, slow, paused or cut off stops nobody, costs one time-out, and
//! loses nothing.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use simple_dynamo::bytes::MAX_VALUE;

use crate::support::asking::DEADLINE;
use crate::support::cluster::{Cluster, FIVE, Plan, THREE, eventually};
use crate::support::workload::{Workload, assert_linearizable};

const READ_TIMEOUT: Duration = Duration::from_millis(100);
/// The read time-out of nodes that are [`patient`].
const PATIENT: Duration = Duration::from_millis(1000);

#[test]
fn a_write_succeeds_through_another_node_when_its_coordinator_is_killed() {
    let cluster = Cluster::start(&FIVE);
    assert_eq!(cluster.replicas("foo"), [5562, 5556, 5554]);
    cluster.done(5558, "PUT foo 1");
    cluster.kill(5562);
    assert!(cluster.timed(5558, "PUT foo 2").0.starts_with("OK "));
    for id in [5554, 5556, 5558, 5560] {
        assert_eq!(cluster.get(id, "foo").as_deref(), Some("2"), "through {id}");
    }
}

#[test]
fn every_write_of_a_stream_succeeds_although_its_coordinator_is_killed_in_the_middle() {
    let cluster = Cluster::start(&FIVE);
    let victim = 5562;
    let others = FIVE.map(|id| if id == victim { 5560 } else { id });
    let keys: Vec<_> = cluster.keys_of(victim).take(400).collect();
    let (ready, killing) = (AtomicU32::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for (id, keys) in others.iter().zip(keys.chunks(80)) {
            let (cluster, ready, killing) = (&cluster, &ready, &killing);
            scope.spawn(move || {
                let mut client = cluster.client(*id);
                for (number, key) in keys.iter().enumerate() {
                    if number == 40 {
                        ready.fetch_add(1, Ordering::Relaxed);
                        eventually("the kill", || killing.load(Ordering::Relaxed).then_some(()));
                    }
                    let reply = client.call(&format!("PUT {key} {key}")).unwrap();
                    assert!(reply.starts_with("OK "), "PUT {key} through {id}: {reply}");
                }
            });
        }
        eventually("all streams are half way", || {
            (ready.load(Ordering::Relaxed) == 5).then_some(())
        });
        killing.store(true, Ordering::Relaxed);
        cluster.kill(victim);
    });
    let mut client = cluster.client(5558);
    for key in &keys {
        let reply = client.call(&format!("GET {key}")).unwrap();
        assert!(
            reply.starts_with("VALUE ") && reply.ends_with(key),
            "GET {key}: {reply}"
        );
    }
}

/// Nodes whose read time-out is so long that no node of a busy machine seems silent.
fn patient(ids: &[u32]) -> Plan {
    let plan = Plan::of(ids).set("read_timeout_ms", PATIENT.as_millis() as u64);
    plan.set("request_deadline_ms", 5000)
}

/// Asserts that requests end well while `id` does not answer. The first one waits for one time-out, and once
/// the node is suspected none waits for it.
fn a_silent_node_is_skipped(cluster: &Cluster, id: u32) {
    let origin = cluster.ids().find(|other| *other != id).unwrap();
    let key = cluster.keys_of(id).next().unwrap();
    let (reply, took) = cluster.timed(origin, &format!("PUT {key} first"));
    assert!(reply.starts_with("OK "), "{reply}");
    assert!(took < 2 * PATIENT, "more than one time-out: {took:?}");
    cluster.await_sight(origin, id, "suspect");
    let mut client = cluster.client(origin);
    let mut times: Vec<Duration> = (0..40)
        .map(|number| {
            let began = Instant::now();
            let reply = match number % 2 {
                0 => client.call(&format!("PUT {key} {number}")),
                _ => client.call(&format!("GET {key}")),
            };
            let reply = reply.unwrap();
            assert!(
                reply.starts_with("OK ") || reply.starts_with("VALUE "),
                "{reply}"
            );
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    assert!(
        times[39] < PATIENT,
        "requests wait for a suspect: {times:?}"
    );
}

#[test]
fn a_coordinator_that_takes_connections_and_never_answers_costs_one_time_out() {
    let cluster = patient(&FIVE).start();
    cluster.pause(5558);
    a_silent_node_is_skipped(&cluster, 5558);
}

#[test]
fn a_coordinator_that_refuses_connections_costs_one_time_out() {
    let cluster = patient(&THREE).start();
    cluster.kill(5558);
    a_silent_node_is_skipped(&cluster, 5558);
}

#[test]
fn a_coordinator_behind_half_open_connections_costs_one_time_out_and_comes_back() {
    let cluster = patient(&THREE).proxied().start();
    cluster.network().isolate(5558);
    a_silent_node_is_skipped(&cluster, 5558);
    cluster.network().heal();
    for id in [5554, 5556] {
        cluster.await_sight(id, 5558, "up");
    }
    for id in THREE {
        assert!(cluster.timed(id, "PUT foo 1").0.starts_with("OK "));
    }
}

/// It waits for its turn behind another large value, which hangs.
#[test]
fn a_large_value_that_waits_for_its_turn_ends_within_the_deadline_all_the_same() {
    let cluster = Cluster::start(&THREE);
    [5556, 5558].iter().for_each(|&id| cluster.pause(id));
    let put = |key: &str| format!("PUT {key} {}", "v".repeat(MAX_VALUE));
    thread::scope(|scope| {
        scope.spawn(|| cluster.call(5554, &put("first")));
        eventually("the first has begun", || {
            let in_flight = cluster.stat(5554, "requests_in_flight")?;
            (in_flight == "1").then_some(())
        });
        // A turn is waited for no longer than half of the deadline, and the first takes all of it.
        thread::sleep(Duration::from_millis(1200));
        let began = Instant::now();
        let reply = cluster.call(5554, &put("second"));
        assert!(!reply.contains("BUSY"), "it had no turn: {reply}");
        let took = began.elapsed();
        assert!(took < Duration::from_millis(2500), "{took:?}: {reply}");
    });
}

#[test]
fn with_two_of_three_replicas_silent_every_request_ends_within_the_deadline() {
    let cluster = Cluster::start(&THREE);
    cluster.done(5554, "PUT foo 1");
    cluster.pause(5556);
    cluster.pause(5558);
    for _ in 0..2 {
        let (reply, _) = cluster.timed(5554, "GET foo");
        assert!(
            reply.starts_with(
                "ERROR UNAVAILABLE no coordinator of \"foo\" decided within 2000 ms: "
            ),
            "{reply}"
        );
        let (reply, _) = cluster.timed(5554, "PUT foo 2");
        assert!(
            reply.starts_with("ERROR UNKNOWN ") || reply.starts_with("ERROR UNAVAILABLE "),
            "{reply}"
        );
    }
    cluster.resume(5556);
    eventually("two replicas are enough", || {
        cluster
            .call(5554, "PUT foo 3")
            .starts_with("OK ")
            .then_some(())
    });
    assert_eq!(cluster.get(5556, "foo").as_deref(), Some("3"));
}

/// Pauses a replica while these keys are written through another node. Once the replica goes on, it must read
/// what was written, and list it.
fn pause_and_go_on(cluster: &Cluster, id: u32, time: Duration, keys: &[String]) {
    let origin = cluster.ids().find(|other| *other != id).unwrap();
    for round in 0..3 {
        let mut client = cluster.client(origin);
        cluster.pause(id);
        let began = Instant::now();
        let mut number = 0;
        while number < keys.len() || began.elapsed() < time {
            let key = &keys[number % keys.len()];
            let reply = client.call(&format!("PUT {key} {round}")).unwrap();
            assert!(reply.starts_with("OK "), "{reply}");
            number += 1;
        }
        cluster.resume(id);
        for key in keys {
            let value = cluster.get(id, key);
            assert_eq!(
                value,
                Some(round.to_string()),
                "a stale read of {key} after a pause"
            );
        }
        let pairs = cluster.own_pairs(id);
        for key in keys {
            let (start, end) = (format!("PAIR {key} "), format!(" {round}"));
            let is_it = |pair: &String| pair.starts_with(&start) && pair.ends_with(&end);
            assert!(pairs.iter().any(is_it), "no {key} in {pairs:?}");
        }
    }
}

#[test]
fn a_pause_shorter_than_the_time_out_leaves_no_stale_read_and_no_gap() {
    // The time-out is so long that no node of a busy machine seems silent.
    let plan = Plan::of(&THREE).set("read_timeout_ms", 2000);
    let cluster = plan.set("request_deadline_ms", 10_000).start();
    let before = THREE.map(|id| cluster.log(id).len());
    for (paused, coordinator) in [(5554, 5556), (5556, 5554)] {
        let keys: Vec<String> = cluster.keys_of(coordinator).take(20).collect();
        pause_and_go_on(&cluster, paused, READ_TIMEOUT, &keys);
    }
    for (id, before) in THREE.into_iter().zip(before) {
        let log = &cluster.log(id)[before..];
        assert!(!log.contains("suspect"), "{log}");
    }
}

#[test]
fn a_pause_longer_than_the_time_out_leaves_no_stale_read_and_no_gap() {
    let cluster = Cluster::start(&THREE);
    // The paused node coordinates some of these keys. Its successor writes these.
    let keys: Vec<String> = (0..20).map(|number| format!("key{number}")).collect();
    pause_and_go_on(&cluster, 5554, READ_TIMEOUT * 5, &keys);
    pause_and_go_on(&cluster, 5556, READ_TIMEOUT * 5, &keys);
}

#[test]
fn after_a_long_pause_a_node_pulls_what_it_missed_though_nobody_asks_it() {
    let hour = 3_600_000;
    let cluster = Plan::of(&THREE).set("anti_entropy_ms", hour).start();
    cluster.await_all_ready();
    cluster.pause(5556);
    for key in 0..20 {
        cluster.done(5554, &format!("PUT key{key} v"));
    }
    cluster.resume(5556);
    cluster.await_keys(5556, 20);
}

#[test]
fn after_a_long_pause_get_at_is_called_complete_only_when_it_is() {
    let cluster = Cluster::start(&THREE);
    for round in 0..5 {
        cluster.pause(5556);
        cluster.await_sight(5554, 5556, "suspect");
        for key in 0..20 {
            cluster.done(5554, &format!("PUT key{key} {round}"));
        }
        cluster.resume(5556);
        let pairs = cluster.own_pairs(5556);
        let fresh = pairs
            .iter()
            .filter(|pair| pair.ends_with(&format!(" {round}")));
        assert_eq!(fresh.count(), 20, "round {round}: {pairs:?}");
    }
}

#[test]
fn crashes_with_short_gaps_and_during_a_recovery_lose_nothing() {
    let cluster = Plan::of(&FIVE).set("anti_entropy_ms", 500).start();
    let workload = Workload {
        cluster: &cluster,
        clients: 6,
        keys: &["foo", "key38", "key15", "hello", "key0", "alice"],
        seed: 2,
    };
    let (observed, ()) = workload.run(|progress| {
        for round in 0..2 {
            for (id, next) in FIVE.into_iter().zip(FIVE.into_iter().cycle().skip(1)) {
                progress.await_more(20);
                cluster.kill(id);
                progress.await_more(20);
                cluster.start_node(id);
                if round == 1 {
                    // It has only just started: it recovers while the next one crashes.
                    cluster.kill(next);
                    cluster.await_answer(id);
                    cluster.restart(next);
                }
                cluster.await_ready(id);
            }
        }
    });
    assert!(
        observed.longest < DEADLINE + Duration::from_secs(1),
        "{:?}",
        observed.longest
    );
    assert_linearizable(&observed);
}
