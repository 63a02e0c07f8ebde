//! Crash points: a process that ends between any two steps that matter has lost nothing that was
//! acknowledged, and neither has a cluster whose processes all end there. The same holds for full disks and
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

#[test]
fn a_node_that_ends_at_any_point_has_lost_nothing_and_stops_nobody() {
    use Point::*;
    let points = [
        (LogAppended, 10),
        (LogSynced, 10),
        (SnapshotLogCreated, 1),
        (SnapshotLogSwitched, 1),
        (SnapshotWritten, 1),
        (SnapshotSynced, 1),
        (SnapshotRenamed, 1),
        (SnapshotDurable, 1),
        (SnapshotOldRemoved, 1),
        (SnapshotOldRemoved, 2),
        (PromiseHeard, 1),
        (PromiseHeard, 2),
        (AcceptHeard, 5),
        (AcceptHeard, 6),
        (Decided, 5),
    ];
    let cluster = Cluster::start(&THREE);
    run(&cluster, 1, |progress| {
        for ((point, count), id) in points.into_iter().zip(THREE.into_iter().cycle()) {
            cluster.kill(id);
            crash(&cluster, id, point, count);
            progress.await_more(10);
            cluster.restart(id);
        }
    });
}

#[test]
fn a_cluster_whose_nodes_all_end_around_one_point_has_lost_nothing() {
    use Point::*;
    let points = [
        (LogAppended, 15),
        (LogSynced, 15),
        (SnapshotRenamed, 1),
        (SnapshotOldRemoved, 1),
        (PromiseHeard, 2),
        (AcceptHeard, 15),
        (Decided, 15),
    ];
    let cluster = Cluster::start(&THREE);
    run(&cluster, 2, |progress| {
        for ((point, count), id) in points.into_iter().zip(THREE.into_iter().cycle()) {
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
