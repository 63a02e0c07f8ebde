//! Spare votes: two replicas of three decide, and what the third is asked may come late. No request
//! waits for that as long as two others can answer, whichever they are.

mod support;

use std::time::{Duration, Instant};

use simple_dynamo::client::Client;
use support::cluster::{Cluster, FIVE};

/// Far above what a vote takes, and no longer than what a spare one waits at the least.
const SPARE: Duration = Duration::from_millis(10);

/// Fifty keys in whose preference list a node stands at that place.
fn keys(cluster: &Cluster, id: u32, place: usize) -> Vec<String> {
    let all = (0..).map(|number| format!("key{number}"));
    all.filter(|key| cluster.replicas(key)[place] == id)
        .take(50)
        .collect()
}

/// Has a request that changes something carried out, and tells how long that took.
fn write(client: &mut Client, request: &str) -> Duration {
    let began = Instant::now();
    let reply = client.call(request).unwrap();
    assert!(reply.starts_with("OK "), "{request}: {reply}");
    began.elapsed()
}

#[test]
fn one_slow_disk_slows_no_write_for_long() {
    let cluster = Cluster::start(&FIVE);
    let slow = 5558;
    cluster.slow_disk(slow, 6 * SPARE);
    let mut client = cluster.client(5560);
    for place in 0..3 {
        let keys = keys(&cluster, slow, place);
        for key in &keys {
            write(&mut client, &format!("PUT {key} first"));
        }
        let again = keys.iter().map(|key| format!("PUT {key} again"));
        let mut times: Vec<Duration> = again.map(|put| write(&mut client, &put)).collect();
        times.sort_unstable();
        // They wait neither for the slow one nor for a spare vote of another.
        assert!(times[25] < SPARE, "as replica {place}: {times:?}");
    }
}
