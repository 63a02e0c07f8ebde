//! The network between the nodes: links that are cut one way or both, slow, or reset.

use std::time::Duration;

use crate::support::asking::DEADLINE;
use crate::support::cluster::{Cluster, Plan, THREE, eventually};
use crate::support::nemesis;
use crate::support::usage::Usage;
use crate::support::workload::{Workload, assert_linearizable};

#[test]
fn reset_connections_are_opened_again_and_fail_no_request() {
    let cluster = Plan::of(&THREE).proxied().start();
    let mut client = cluster.client(5554);
    for number in 0..200 {
        if number % 20 == 10 {
            cluster.network().reset(5554, 5556);
            cluster.network().reset(5554, 5558);
        }
        let reply = client.call(&format!("PUT foo {number}")).unwrap();
        assert!(reply.starts_with("OK "), "{reply}");
    }
    assert_eq!(cluster.get(5556, "foo").as_deref(), Some("199"));
}

#[test]
fn a_connection_that_comes_and_goes_is_logged_once_in_a_while() {
    let cluster = Plan::of(&THREE).proxied().start();
    let before = cluster.log(5554).len();
    for _ in 0..20 {
        cluster.network().reset(5554, 5556);
        let opened = || cluster.network().is_open(5554, 5556).then_some(());
        eventually("5554 has connected anew", opened);
        cluster.done(5554, "PUT k v");
    }
    let log = cluster.log(5554)[before..].to_owned();
    let count = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    let lines = (count("connection to 5556"), count("connected to 5556"));
    // A run that takes longer than ten seconds logs it twice.
    assert!(lines.0 <= 2 && lines.1 <= 2, "{log}");
}

#[test]
fn a_half_open_connection_is_noticed_by_its_silence_and_opened_anew() {
    let cluster = Plan::of(&THREE).proxied().start();
    assert!(cluster.network().half_open(5554, 5556, false));
    // 5554 does not learn of the close, and never hears anything on this connection again.
    cluster.await_sight(5554, 5556, "suspect");
    cluster.await_sight(5554, 5556, "up");
}

#[cfg(target_os = "linux")]
#[test]
fn connections_that_only_the_opener_knows_to_be_gone_are_released() {
    let cluster = Plan::of(&THREE).proxied().start();
    let network = cluster.network();
    let usage = || Usage::of(cluster.pid(5556)).expect("5556 runs");
    let before = usage();
    let mut gone = 0;
    while gone < 100 {
        gone += usize::from(network.half_open(5554, 5556, true));
        let connected = || network.is_open(5554, 5556).then_some(());
        eventually("5554 has connected anew", connected);
    }
    cluster.await_sight(5554, 5556, "up");
    // The bounds are far below one descriptor and one thread for each connection that is gone.
    eventually("5556 holds what it held before", || {
        let after = usage();
        let (descriptors, threads) = (before.descriptors + 10, before.threads + 10);
        (after.descriptors <= descriptors && after.threads <= threads).then_some(())
    });
}

#[test]
fn a_one_way_cut_stops_no_request_and_leaves_the_replicas_equal() {
    let cluster = Plan::of(&THREE)
        .set("anti_entropy_ms", 300)
        .proxied()
        .start();
    let keys = ["foo", "key38", "key15"];
    let workload = Workload {
        cluster: &cluster,
        clients: 4,
        keys: &keys,
        seed: 3,
    };
    let (observed, ()) = workload.run(|progress| {
        for (from, to) in [(5554, 5556), (5556, 5554), (5558, 5554)] {
            progress.await_more(50);
            cluster.network().cut(from, to);
            progress.await_more(200);
            cluster.network().heal();
        }
    });
    let count = observed.history.len();
    assert_eq!(observed.refused, 0, "of {count}: {:?}", observed.examples);
    assert_eq!(observed.lost, 0, "of {count}");
    assert!(observed.longest < DEADLINE, "{:?}", observed.longest);
    assert_linearizable(&observed);
    await_equal_replicas(&cluster);
}

fn await_equal_replicas(cluster: &Cluster) {
    eventually("all replicas are equal", || {
        let pairs = THREE.map(|id| cluster.own_pairs(id));
        (pairs[0] == pairs[1] && pairs[1] == pairs[2]).then_some(())
    });
}

/// A cluster whose periodic comparison is an hour away, so that only an event makes a node compare.
fn without_the_slow_round() -> Cluster {
    let hour = 3_600_000;
    let plan = Plan::of(&THREE).set("anti_entropy_ms", hour).proxied();
    let cluster = plan.start();
    cluster.await_all_ready();
    cluster
}

#[test]
fn a_node_that_a_peer_did_not_reach_for_a_while_pulls_what_it_missed_though_it_noticed_nothing() {
    let cluster = without_the_slow_round();
    let network = cluster.network();
    let mut keys = cluster.keys_of(5554);
    let (key, missed) = (keys.next().unwrap(), keys.next().unwrap());
    // The write goes through 5556, so that it has just heard of 5554 and does not ask it for a while.
    cluster.done(5556, &format!("PUT {key} reached"));
    network.cut(5554, 5556);
    assert!(network.half_open(5554, 5556, true));
    // This write's question makes 5554 suspect 5556 well before 5556 asks whether 5554 is there.
    cluster.done(5554, &format!("PUT {key} asked"));
    cluster.await_sight(5554, 5556, "suspect");
    cluster.done(5554, &format!("PUT {missed} v"));
    network.heal();
    cluster.await_keys(5556, 2);
}

#[test]
fn what_a_peer_did_not_send_before_it_fell_silent_is_pulled_from_the_third_replica() {
    let cluster = without_the_slow_round();
    let mut keys = cluster.keys_of(5554);
    let (key, missed) = (keys.next().unwrap(), keys.next().unwrap());
    cluster.done(5554, &format!("PUT {key} v"));
    cluster.network().cut(5554, 5556);
    cluster.done(5554, &format!("PUT {missed} v"));
    // 5554 is still cut off.
    cluster.await_keys(5556, 2);
}

#[test]
fn a_coordinator_cut_off_with_its_client_refuses_while_the_others_go_on() {
    let cluster = Plan::of(&THREE)
        .set("anti_entropy_ms", 300)
        .proxied()
        .start();
    let (alone, key) = (5556, cluster.keys_of(5556).next().unwrap());
    for number in 0..3 {
        // The key is written often enough for the coordinator to remember it.
        cluster.done(alone, &format!("PUT {key} {number}"));
    }
    cluster.network().isolate(alone);
    let write = cluster.timed(alone, &format!("PUT {key} alone")).0;
    assert!(write.starts_with("ERROR UN"), "{write}");
    let (read, _) = cluster.timed(alone, &format!("GET {key}"));
    assert!(read.starts_with("ERROR UNAVAILABLE "), "{read}");
    let (reply, _) = cluster.timed(5554, &format!("PUT {key} others"));
    assert!(reply.starts_with("OK "), "{reply}");
    assert_eq!(cluster.get(5558, &key).as_deref(), Some("others"));
    // The coordinator's memory is stale now. Its next write must not undo those of the others.
    cluster.network().heal();
    cluster.await_sight(5554, alone, "up");
    cluster.await_sight(alone, 5554, "up");
    // A write of unknown outcome may still come through, once.
    let possible: &[&str] = if write.starts_with("ERROR UNKNOWN ") {
        &["others", "alone"]
    } else {
        &["others"]
    };
    eventually("all agree", || {
        let values = THREE.map(|id| cluster.get(id, &key).unwrap());
        assert!(
            possible.contains(&values[0].as_str()),
            "{values:?} after {write}"
        );
        (values[0] == values[1] && values[1] == values[2]).then_some(())
    });
    await_equal_replicas(&cluster);
}

#[test]
fn histories_are_linearizable_while_links_are_cut_delayed_and_reset() {
    let cluster = Plan::of(&THREE)
        .set("anti_entropy_ms", 300)
        .proxied()
        .start();
    let keys = ["foo", "key38", "key15"];
    let workload = Workload {
        cluster: &cluster,
        clients: 6,
        keys: &keys,
        seed: 4,
    };
    let time = Duration::from_secs(5);
    let (observed, faults) = workload.run(|_| nemesis::bad_network(&cluster, 5, time));
    assert!(faults >= 5, "only {faults} faults");
    assert!(observed.longest < DEADLINE, "{:?}", observed.longest);
    assert_linearizable(&observed);
    await_equal_replicas(&cluster);
}
