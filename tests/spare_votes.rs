//! Spare votes: two replicas of three decide, and what the third is asked may come late. No request
//! waits for that as long as two others can answer, whichever they are.

mod support;

use std::time::{Duration, Instant};

use simple_dynamo::client::Client;
use support::cluster::{Cluster, FIVE};

/// What a spare vote waits at the least.
const SPARE: Duration = Duration::from_millis(10);

/// Fifty keys in whose preference list a node stands at that place.
fn keys(cluster: &Cluster, id: u32, place: usize) -> Vec<String> {
    let all = (0..).map(|number| format!("key{number}"));
    all.filter(|key| cluster.replicas(key)[place] == id)
        .take(50)
        .collect()
}

/// How much longer than others some requests took, each beside one of the others: a busy machine
/// slows both.
fn assert_median_below(limit: Duration, longer: impl Iterator<Item = Duration>) {
    let mut longer: Vec<Duration> = longer.collect();
    longer.sort_unstable();
    assert!(longer[longer.len() / 2] < limit, "{longer:?}");
}

/// Has a request that changes something carried out, and tells how long that took.
fn write(client: &mut Client, request: &str) -> Duration {
    let began = Instant::now();
    let reply = client.call(request).unwrap();
    assert!(reply.starts_with("OK "), "{request}: {reply}");
    began.elapsed()
}

#[test]
fn a_read_right_after_a_write_through_the_last_replica_does_not_wait_for_a_spare_vote() {
    let cluster = Cluster::start(&FIVE);
    let last = 5554;
    let keys = keys(&cluster, last, 2);
    let mut client = cluster.client(last);
    for key in &keys {
        write(&mut client, &format!("PUT {key} old"));
    }
    // What it holds is durable, and told along with the reads.
    cluster.await_own_keys(last, &keys);
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
    assert_median_below(SPARE, longer);
}

#[test]
fn one_slow_disk_slows_no_write_for_long() {
    let cluster = Cluster::start(&FIVE);
    let slow = 5558;
    cluster.slow_disk(slow, 6 * SPARE);
    let mut client = cluster.client(5560);
    let elsewhere = (0..).map(|number| format!("elsewhere{number}"));
    let elsewhere = elsewhere.filter(|key| !cluster.replicas(key).contains(&slow));
    let elsewhere: Vec<String> = elsewhere.take(50).collect();
    for place in 0..3 {
        let keys = keys(&cluster, slow, place);
        for key in keys.iter().chain(&elsewhere) {
            write(&mut client, &format!("PUT {key} first"));
        }
        // They wait neither for the slow one nor for a spare vote of another.
        let longer = keys.iter().zip(&elsewhere).map(|(key, other)| {
            let took = write(&mut client, &format!("PUT {key} again"));
            took.saturating_sub(write(&mut client, &format!("PUT {other} again")))
        });
        assert_median_below(SPARE, longer);
    }
}
