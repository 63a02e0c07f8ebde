//! A real node with a damaged log does not start, and says what to do. Doing so heals it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use simple_dynamo::storage::frame::Frames;

use crate::support::cluster::{Cluster, Plan, THREE, eventually};

const DAMAGED: u32 = 5558;
const OTHERS: [u32; 2] = [5554, 5556];
/// How long a delayed message takes on its way to the damaged node: less than a read time-out.
const DELAY: Duration = Duration::from_millis(200);
const KEYS: usize = 300;

/// Three nodes whose messages can be delayed by less than a read time-out.
fn start() -> Cluster {
    let plan = Plan::of(&THREE).proxied();
    plan.set("read_timeout_ms", 600)
        .set("request_deadline_ms", 3000)
        .start()
}

/// Writes all keys through one node. Each write must be acknowledged.
fn write(cluster: &Cluster, through: u32, value: &str) {
    let mut client = cluster.client(through);
    let puts = (0..KEYS).map(|number| format!("PUT key{number} {value}\n"));
    client.send(puts.collect::<String>().as_bytes()).unwrap();
    for _ in 0..KEYS {
        let reply = client.receive().unwrap();
        assert!(reply.starts_with("OK "), "{reply}");
    }
}

/// Reads all keys through one node.
fn assert_all(cluster: &Cluster, through: u32, value: &str) {
    for number in 0..KEYS {
        let read = cluster.get(through, &format!("key{number}"));
        assert_eq!(
            read.as_deref(),
            Some(value),
            "key{number} through {through}"
        );
    }
}

/// Flips a bit in the middle of a node's log. Returns the file, and the byte at which the bit's frame
/// starts.
fn flip_a_bit(cluster: &Cluster, id: u32) -> (PathBuf, u64) {
    let log = cluster.data(id).join("log.000001");
    let mut bytes = fs::read(&log).unwrap();
    let mut frames = Frames::new(&bytes);
    let mut starts = vec![0];
    while frames.next().is_some() {
        starts.push(frames.offset());
    }
    assert!(starts.len() > 5, "{starts:?}");
    let middle = starts.len() / 2;
    let (start, end) = (starts[middle], starts[middle + 1]);
    bytes[((start + end) / 2) as usize] ^= 4;
    fs::write(&log, bytes).unwrap();
    (log, start)
}

#[test]
fn a_node_with_a_flipped_bit_in_its_log_refuses_to_start_and_one_rebuild_makes_it_whole() {
    let cluster = start();
    write(&cluster, 5554, "before");
    cluster.kill(DAMAGED);
    let (log, place) = flip_a_bit(&cluster, DAMAGED);
    let damaged = fs::read(&log).unwrap();
    assert_refuses(&cluster, place);
    assert!(
        damaged == fs::read(&log).unwrap(),
        "the node changed its log"
    );
    write(&cluster, 5554, "while it was down");

    for other in OTHERS {
        cluster.network().delay(other, DAMAGED, DELAY);
    }
    cluster.start_node_with_options(DAMAGED, &["--rebuild"]);
    hold_the_copy_half_way(&cluster);
    assert_copies(&cluster);
    write(&cluster, 5556, "while it copied");
    assert_copies(&cluster);
    cluster.network().heal();
    cluster.await_ready(DAMAGED);
    let stat = |name| cluster.stat(DAMAGED, name).unwrap();
    assert_eq!(stat("storage_standing"), "whole");
    // What was copied before the silence was not copied again.
    assert_eq!(stat("keys_copied").parse(), Ok(KEYS));
    THREE
        .iter()
        .for_each(|&id| assert_all(&cluster, id, "while it copied"));

    // The node's votes count again: it is one of the two that are left.
    cluster.kill(5554);
    assert_all(&cluster, DAMAGED, "while it copied");
    write(&cluster, DAMAGED, "with its vote");
    // One rebuild was enough: the node starts without it.
    cluster.kill(DAMAGED);
    cluster.restart(DAMAGED);
    assert_all(&cluster, DAMAGED, "with its vote");
}

#[test]
fn a_node_that_is_killed_in_mid_copy_does_not_vote_before_it_has_copied_everything() {
    let cluster = start();
    write(&cluster, 5554, "precious");
    cluster.kill(DAMAGED);
    cluster.wipe(DAMAGED);
    for other in OTHERS {
        cluster.network().delay(other, DAMAGED, DELAY);
    }
    cluster.start_node(DAMAGED);
    hold_the_copy_half_way(&cluster);
    cluster.kill(DAMAGED);
    cluster.start_node(DAMAGED);
    cluster.await_answer(DAMAGED);
    let stats = cluster.stats(DAMAGED).expect("it answers meanwhile");
    assert_eq!(stats["storage_standing"], "copying");
    assert_eq!(stats["votes"], "no");
    cluster.network().heal();
    cluster.await_ready(DAMAGED);
    cluster.kill(5554);
    assert_all(&cluster, DAMAGED, "precious");
}

fn assert_refuses(cluster: &Cluster, place: u64) {
    cluster.start_node(DAMAGED);
    let end = cluster.await_end(DAMAGED);
    assert_eq!(end.code(), Some(1), "{end}");
    let log = cluster.log(DAMAGED);
    let last = log.lines().last().unwrap_or_default();
    let folder = cluster.data(DAMAGED);
    let expected = format!(
        "dynamo: {}: log.000001: damaged frame at byte {place}.",
        folder.display()
    );
    assert!(last.starts_with(&expected), "not {expected:?}: {last}");
    assert!(
        last.ends_with("start the node once with --rebuild"),
        "{last}"
    );
}

/// Waits until something was copied, and then lets nothing more reach the node.
fn hold_the_copy_half_way(cluster: &Cluster) {
    eventually("the copy has begun", || {
        let copied = cluster.stat(DAMAGED, "keys_copied")?;
        (copied != "0").then_some(())
    });
    for other in OTHERS {
        cluster.network().cut(other, DAMAGED);
    }
}

fn assert_copies(cluster: &Cluster) {
    let stats = cluster.stats(DAMAGED).expect("it answers meanwhile");
    assert_eq!(stats["storage_standing"], "copying");
    assert_eq!(stats["votes"], "no");
    let copied: usize = stats["keys_copied"].parse().unwrap();
    assert!(0 < copied && copied < KEYS, "{copied}");
}
