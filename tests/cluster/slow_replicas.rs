//! All three replicas are asked at once, and the first two that answer decide. So no request waits
//! for the third one, whichever it is.

use std::time::{Duration, Instant};

use simple_dynamo::client::Client;

use crate::support::cluster::{Cluster, FIVE};

/// Far less than the slow disk takes, and far more than a write takes that waits for nobody.
const SLOWER: Duration = Duration::from_millis(10);

/// Fifty keys in whose preference list a node stands at that place.
fn keys(cluster: &Cluster, id: u32, place: usize) -> Vec<String> {
    let all = (0..).map(|number| format!("key{number}"));
    all.filter(|key| cluster.replicas(key)[place] == id)
        .take(50)
        .collect()
}

/// Asserts that the median of the times by which requests took longer than their counterparts is below a
/// limit. Each request ran right beside its counterpart, so a busy machine slows both.
fn assert_median_below(limit: Duration, longer: impl Iterator<Item = Duration>) {
    let mut longer: Vec<Duration> = longer.collect();
    longer.sort_unstable();
    assert!(longer[longer.len() / 2] < limit, "{longer:?}");
}

/// Sends a request that changes something, which must succeed. Returns how long it took.
fn write(client: &mut Client, request: &str) -> Duration {
    let began = Instant::now();
    let reply = client.call(request).unwrap();
    assert!(reply.starts_with("OK "), "{request}: {reply}");
    began.elapsed()
}

#[test]
fn a_read_right_after_a_write_through_the_last_replica_is_as_quick_as_the_next_one() {
    let cluster = Cluster::start(&FIVE);
    let last = 5554;
    let keys = keys(&cluster, last, 2);
    let mut client = cluster.client(last);
    for key in &keys {
        write(&mut client, &format!("PUT {key} old"));
    }
    // What the replica holds is durable, so it sends its vote along with the reads.
    cluster.assert_own_keys(last, &keys);
    let read = |key| {
        let (reply, took) = cluster.timed(last, &format!("GET {key}"));
        assert!(reply.ends_with(" new"), "{reply}");
        took
    };
    let longer = keys.iter().map(|key| {
        write(&mut client, &format!("PUT {key} new"));
        let at_once = read(key);
        at_once.saturating_sub(read(key))
    });
    assert_median_below(SLOWER, longer);
}

/// Fifty keys that the nodes `not` do not hold.
fn keys_without(cluster: &Cluster, not: &[u32]) -> Vec<String> {
    let all = (0..).map(|number| format!("elsewhere{number}"));
    let held = |key: &String| cluster.replicas(key).iter().any(|id| not.contains(id));
    all.filter(|key| !held(key)).take(50).collect()
}

/// Writes the first keys and the others in turn, and asserts that the first take hardly longer.
fn assert_written_as_quickly(client: &mut Client, keys: &[String], others: &[String]) {
    for key in keys.iter().chain(others) {
        write(client, &format!("PUT {key} first"));
    }
    let longer = keys.iter().zip(others).map(|(key, other)| {
        let took = write(client, &format!("PUT {key} again"));
        took.saturating_sub(write(client, &format!("PUT {other} again")))
    });
    assert_median_below(SLOWER, longer);
}

#[test]
fn one_replica_that_abstains_slows_no_write() {
    let cluster = Cluster::start(&FIVE);
    let abstaining = 5558;
    let keys = keys(&cluster, abstaining, 0);
    let replicas = cluster.replicas(&keys[0]);
    // The node's predecessor on the ring is no replica of these keys.
    let before =
        |id: &u32| (0..100).any(|n| cluster.replicas(&format!("key{n}"))[..2] == [*id, abstaining]);
    let away = FIVE.into_iter().find(before).unwrap();
    let elsewhere = keys_without(&cluster, &[abstaining, away]);
    // With an empty folder the node abstains until it has met all others, and one of them is away.
    cluster.kill(away);
    cluster.kill(abstaining);
    cluster.wipe(abstaining);
    cluster.start_node(abstaining);
    cluster.await_answer(abstaining);
    assert_written_as_quickly(&mut cluster.client(replicas[1]), &keys, &elsewhere);
    assert_eq!(cluster.stat(abstaining, "votes").as_deref(), Some("no"));
}

#[test]
fn one_slow_disk_slows_no_write() {
    let cluster = Cluster::start(&FIVE);
    let slow = 5558;
    cluster.slow_disk(slow, 6 * SLOWER);
    let mut client = cluster.client(5560);
    let elsewhere = keys_without(&cluster, &[slow]);
    for place in 0..3 {
        assert_written_as_quickly(&mut client, &keys(&cluster, slow, place), &elsewhere);
    }
}
