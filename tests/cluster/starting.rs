//! Nodes that take long to read their data say how far they are.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, THREE, dynamo, eventually};
use crate::support::process;

const NODE: u32 = 5556;

/// A cluster with 10 MiB in 40 frames of the log. One node starts, and takes so many milliseconds to read each
/// frame.
fn slow_to_start(millis: u32) -> Cluster {
    let cluster = Cluster::start(&THREE);
    let value = "x".repeat(256 << 10);
    for key in 0..40 {
        cluster.done(5554, &format!("PUT key{key} {value}"));
    }
    eventually("the node has them all", || {
        (cluster.stat(NODE, "keys")? == "40").then_some(())
    });
    cluster.kill(NODE);
    let file = cluster.file(NODE).with_extension("slow-read");
    fs::write(&file, millis.to_string()).unwrap();
    cluster.start_node_with(NODE, &[("DYNAMO_SLOW_READ", file.to_str().unwrap())]);
    cluster
}

#[test]
fn a_node_that_reads_its_log_tells_clients_how_far_it_is() {
    let cluster = slow_to_start(80);
    let status = || {
        let output = process::run(&mut dynamo(&["status"], &cluster.file(5554)), "");
        String::from_utf8(output.stdout).unwrap()
    };
    let lines = eventually("it has read some", || {
        let lines = status();
        let line = lines.lines().find(|line| line.starts_with("5556 "))?;
        let (_, progress) = line.split_once(" starting, ")?;
        let mib: u64 = progress.split(' ').next()?.parse().ok()?;
        assert!(progress.ends_with(" of 10 MiB read"), "{line}");
        (mib > 0).then_some(lines)
    });
    assert!(
        lines.starts_with("2 of 3 up, every key can be read and written; "),
        "{lines}"
    );
    // Clients that connect and send nothing do not hold up the others.
    let _silent: Vec<_> = (0..20).map(|_| cluster.client(NODE)).collect();
    let reply = cluster.client(NODE).call("GET key0").unwrap();
    assert!(
        reply.starts_with("ERROR UNAVAILABLE node 5556 is starting: has read "),
        "{reply}"
    );
    assert!(
        reply.ends_with(" of 10 MiB of its data; try again soon"),
        "{reply}"
    );
    cluster.await_ready(NODE);
    let log = cluster.log(NODE);
    assert!(log.contains(" of 10 MiB of its data\n"), "{log}");
    assert!(cluster.call(NODE, "GET key0").starts_with("VALUE "));
}

#[test]
fn status_waits_for_a_node_as_long_as_it_makes_progress_and_shows_how_far_it_is() {
    let cluster = slow_to_start(80);
    let (began, patience) = (Instant::now(), Duration::from_secs(1));
    let output = process::run(
        &mut dynamo(&["status", "--wait", "1"], &cluster.file(5554)),
        "",
    );
    let shown = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{shown}");
    assert!(
        began.elapsed() > 2 * patience,
        "the test is about longer waits"
    );
    let line = shown.lines().next().unwrap_or_default();
    assert!(line.starts_with("waiting for 5556 starting, "), "{shown}");
}
