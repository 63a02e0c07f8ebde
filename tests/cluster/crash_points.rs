//! Crash points: a process that ends between any two steps that matter has lost nothing that was
//! acknowledged, and neither has a cluster whose processes all end there, with each strategy. The same holds for full disks and
//! slow ones.
#![cfg(debug_assertions)]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use simple_dynamo::testing::faults::Point;

use crate::support::asking::DEADLINE;
use crate::support::cluster::{Cluster, Plan, THREE, eventually};
use crate::support::workload::{Observed, Progress, Workload, assert_linearizable};

/// Each of the three nodes coordinates some of them.
const KEYS: [&str; 6] = ["foo", "key38", "key15", "hello", "key0", "alice"];

/// The exit status of a node that stops at a disk that failed (EX_IOERR).
const DISK_FAILED: i32 = 74;

fn run(cluster: &Cluster, seed: u64, meanwhile: impl FnOnce(&Progress)) -> Observed {
    let workload = Workload {
        cluster,
        clients: 5,
        keys: &KEYS,
        seed,
    };
    let (observed, ()) = workload.run(meanwhile);
    assert_linearizable(&observed);
    observed
}

/// Runs a node until it ends at a point.
fn crash(cluster: &Cluster, id: u32, point: Point, count: u32) {
    let at = format!("{point:?}:{count}");
    // The snapshot is due at once, and again when the log is as long as the snapshot was.
    cluster.start_node_with(
        id,
        &[("DYNAMO_CRASH_AT", &at), ("DYNAMO_SNAPSHOT_AFTER", "1")],
    );
    let status = cluster.await_end(id);
    let log = cluster.log(id);
    let last = log.lines().last().unwrap_or_default();
    assert_eq!(status.signal(), Some(9), "{at}: {status}: {last}");
    // Another thread may have logged something before the end.
    let said = format!("crash point {point:?}");
    let mut end = log.lines().rev().take(5);
    assert!(end.any(|line| line == said), "{said}, not {last}");
}

/// Points that a node passes with any strategy, and how often it has passed them when it ends.
const OF_STORAGE: [(Point, u32); 10] = [
    (Point::LogAppended, 10),
    (Point::LogSynced, 10),
    (Point::SnapshotLogCreated, 1),
    (Point::SnapshotLogSwitched, 1),
    (Point::SnapshotWritten, 1),
    (Point::SnapshotSynced, 1),
    (Point::SnapshotRenamed, 1),
    (Point::SnapshotDurable, 1),
    (Point::SnapshotOldRemoved, 1),
    (Point::SnapshotOldRemoved, 2),
];

const OF_QUORUM: [(Point, u32); 5] = [
    (Point::PromiseHeard, 1),
    (Point::PromiseHeard, 2),
    (Point::AcceptHeard, 5),
    (Point::AcceptHeard, 6),
    (Point::Decided, 5),
];

const OF_CHAIN: [(Point, u32); 11] = [
    // It has adopted the epoch of its return, and nobody knows.
    (Point::LogSynced, 1),
    (Point::AdoptHeard, 1),
    (Point::AdoptHeard, 2),
    (Point::Collected, 1),
    (Point::Collected, 3),
    (Point::GiveHeard, 1),
    (Point::GiveHeard, 2),
    (Point::PassHeard, 5),
    (Point::PassHeard, 6),
    (Point::ConfirmHeard, 1),
    (Point::Decided, 5),
];

/// One node after the other ends at one point after the other, while the others go on.
fn assert_nothing_lost_by_one(strategy: &str, seed: u64, points: &[(Point, u32)]) {
    let cluster = Plan::of(&THREE).set("strategy", strategy).start();
    run(&cluster, seed, |progress| {
        for (&(point, count), id) in points.iter().zip(THREE.into_iter().cycle()) {
            cluster.kill(id);
            crash(&cluster, id, point, count);
            progress.await_more(10);
            cluster.restart(id);
        }
    });
}

/// The same, and the others are killed right after each.
fn assert_nothing_lost_by_all(strategy: &str, seed: u64, points: &[(Point, u32)]) {
    let cluster = Plan::of(&THREE).set("strategy", strategy).start();
    run(&cluster, seed, |progress| {
        for (&(point, count), id) in points.iter().zip(THREE.into_iter().cycle()) {
            cluster.kill(id);
            crash(&cluster, id, point, count);
            let others = THREE.into_iter().filter(|other| *other != id);
            others.for_each(|other| cluster.kill(other));
            THREE.into_iter().for_each(|id| cluster.start_node(id));
            cluster.await_all_ready();
            progress.await_more(10);
        }
    });
}

#[test]
fn a_node_that_ends_at_any_point_has_lost_nothing_and_stops_nobody() {
    let points = [&OF_STORAGE[..], &OF_QUORUM].concat();
    assert_nothing_lost_by_one("quorum", 1, &points);
}

#[test]
fn a_member_of_chains_that_ends_at_any_point_has_lost_nothing_and_stops_nobody() {
    let points = [&OF_STORAGE[..], &OF_CHAIN].concat();
    assert_nothing_lost_by_one("chain", 6, &points);
}

#[test]
fn a_cluster_whose_nodes_all_end_around_one_point_has_lost_nothing() {
    let points = [
        (Point::LogAppended, 15),
        (Point::LogSynced, 15),
        (Point::SnapshotRenamed, 1),
        (Point::SnapshotOldRemoved, 1),
        (Point::PromiseHeard, 2),
        (Point::AcceptHeard, 15),
        (Point::Decided, 15),
    ];
    assert_nothing_lost_by_all("quorum", 2, &points);
}

#[test]
fn chains_whose_members_all_end_around_one_point_have_lost_nothing() {
    let points = [
        (Point::LogAppended, 15),
        (Point::LogSynced, 15),
        (Point::SnapshotRenamed, 1),
        (Point::SnapshotOldRemoved, 1),
        (Point::AdoptHeard, 2),
        (Point::Collected, 1),
        (Point::GiveHeard, 1),
        (Point::PassHeard, 15),
        (Point::Decided, 15),
    ];
    assert_nothing_lost_by_all("chain", 7, &points);
}

#[test]
fn a_node_with_a_full_disk_ends_and_says_so_and_starts_whole_once_there_is_space() {
    let cluster = Plan::of(&THREE).lay_out();
    let full = cluster.file(0).with_extension("full");
    let switch = ("DYNAMO_DISK_FULL", full.to_str().unwrap());
    let victim = 5556;
    for id in THREE {
        let switches: &[_] = if id == victim { &[switch] } else { &[] };
        cluster.start_node_with(id, switches);
    }
    cluster.await_all_ready();
    run(&cluster, 3, |progress| {
        for _ in 0..2 {
            progress.await_more(50);
            fs::write(&full, "").unwrap();
            assert_eq!(cluster.await_end(victim).code(), Some(DISK_FAILED));
            let log = cluster.log(victim);
            let last = log.lines().last().unwrap();
            let message =
                format!("{victim}: the data folder cannot be written to: No space left on device");
            assert!(
                last.contains(&message) && last.contains("Make room"),
                "{last}"
            );
            progress.await_more(50);
            // Without space it does not start either, and harms nothing.
            cluster.start_node_with(victim, &[switch]);
            assert!(!cluster.await_end(victim).success());
            fs::remove_file(&full).unwrap();
            cluster.start_node_with(victim, &[switch]);
            cluster.await_ready(victim);
        }
    });
}

#[test]
fn a_cluster_whose_disks_are_all_full_at_once_has_lost_nothing() {
    let cluster = Plan::of(&THREE).lay_out();
    let full = cluster.file(0).with_extension("full");
    let switch = ("DYNAMO_DISK_FULL", full.to_str().unwrap());
    let all = || THREE.into_iter();
    all().for_each(|id| cluster.start_node_with(id, &[switch]));
    cluster.await_all_ready();
    run(&cluster, 5, |progress| {
        progress.await_more(50);
        fs::write(&full, "").unwrap();
        all().for_each(|id| assert_eq!(cluster.await_end(id).code(), Some(DISK_FAILED)));
        fs::remove_file(&full).unwrap();
        all().for_each(|id| cluster.start_node(id));
        cluster.await_all_ready();
        progress.await_more(50);
    });
}

#[test]
fn a_slow_disk_stops_nobody_and_ceases_to_be_slow() {
    let cluster = Plan::of(&THREE).lay_out();
    let slow = cluster.file(0).with_extension("slow");
    let switch = ("DYNAMO_SLOW_DISK", slow.to_str().unwrap());
    THREE
        .into_iter()
        .for_each(|id| cluster.start_node_with(id, &[switch]));
    cluster.await_all_ready();
    let delay = Duration::from_millis(60);
    fs::write(&slow, delay.as_millis().to_string()).unwrap();
    let (reply, took) = cluster.timed(5554, "PUT k slow");
    assert!(
        reply.starts_with("OK ") && took >= delay,
        "{reply}, {took:?}"
    );
    let observed = run(&cluster, 4, |progress| {
        progress.await_more(40);
        for id in [5556, 5558] {
            cluster.kill(id);
            cluster.restart(id);
        }
        // Only node 5554 still has the switch. Its syncs take longer than the read time-out now.
        fs::write(&slow, "150").unwrap();
        progress.await_more(40);
        fs::remove_file(&slow).unwrap();
        progress.await_more(40);
    });
    assert!(observed.longest < DEADLINE, "{:?}", observed.longest);
    eventually("the disk is as quick as before", || {
        (cluster.timed(5554, "PUT k quick").1 < delay).then_some(())
    });
}
