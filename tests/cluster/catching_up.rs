//! Catching up costs what was missed, and disturbs nobody.

use simple_dynamo::bytes::MAX_VALUE;

use crate::support::cluster::{Plan, THREE};

/// Whoever asks for more at a time than comes within a time-out takes that for silence, gives all of it
/// up, and has it sent once more.
#[test]
fn large_values_that_a_node_missed_are_sent_to_it_once() {
    let cluster = Plan::of(&THREE).proxied().start();
    let absent = 5558;
    cluster.kill(absent);
    let large = "x".repeat(MAX_VALUE);
    let mut client = cluster.client(5554);
    let count = 60;
    for number in 0..count {
        let reply = client.call(&format!("PUT key{number} {large}")).unwrap();
        assert!(reply.starts_with("OK "), "{reply}");
    }
    let before = cluster.network().carried();
    cluster.start_node(absent);
    cluster.await_keys(absent, count);
    cluster.await_ready(absent);
    let carried = cluster.network().carried() - before;
    let missed = (count * MAX_VALUE) as u64;
    assert!(
        carried < missed + missed / 2,
        "{carried} bytes were sent for {missed} that were missed"
    );
}
