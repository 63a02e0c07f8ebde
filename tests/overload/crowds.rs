//! More clients than there are threads, or open files, for them.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use simple_dynamo::config::Config;

use super::siege::{
    MOST_AT_ONCE, OWN_DESCRIPTORS, VICTIM, assert_memory_bounded, plan, start, text, usage,
};
use crate::support::asking::DEADLINE;
use crate::support::cluster::{Cluster, eventually};
use crate::support::raw::Raw;
use crate::support::workload::StopWhenDone;

/// How many of a crowd were served, and how many were refused with `ERROR BUSY`.
#[derive(Default, Debug)]
struct Answers {
    served: usize,
    busy: usize,
}

/// Opens so many connections in waves and keeps them all open. Asserts that a client that was there before is
/// served within the deadline all the while, and that memory, threads and open files stay bounded. The node has
/// `threads` threads for clients.
fn assert_crowd_bounded(cluster: &Cluster, threads: usize, connections: usize) {
    let before = usage(cluster, VICTIM);
    // The connections that looked whether the node is ready may still be ending.
    let mut honest = eventually("an honest client is in", || {
        let mut client = cluster.try_client(VICTIM).ok()?;
        (client.call("PING").ok()? == "PONG").then_some(client)
    });
    let stop = AtomicBool::new(false);
    let (longest, answers) = thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let reply = honest.call("PUT k v").unwrap();
                assert!(reply.starts_with("OK "), "{reply}");
                longest = longest.max(began.elapsed());
            }
            longest
        });
        let stopping = StopWhenDone(&stop);
        let mut crowd = Vec::with_capacity(connections);
        let mut answers = Answers::default();
        while crowd.len() < connections {
            let wave = MOST_AT_ONCE.min(connections - crowd.len());
            let from = crowd.len();
            crowd.extend(join_crowd(cluster, wave));
            let full = usage(cluster, VICTIM);
            assert!(
                full.descriptors <= OWN_DESCRIPTORS + 2 * threads as u64,
                "{full:?}"
            );
            assert!(full.threads <= before.threads + threads as u64, "{full:?}");
            crowd[from..]
                .iter_mut()
                .for_each(|client| count_answer(client, threads, &mut answers));
        }
        drop(stopping);
        (inside.join().unwrap(), answers)
    });
    assert!(longest < DEADLINE, "{longest:?}");
    assert!(answers.served < threads, "{answers:?}");
    assert!(answers.busy > connections - threads, "{answers:?}");
    drop(honest);
    eventually("all that they took is given back", || {
        let after = usage(cluster, VICTIM);
        (after.descriptors <= before.descriptors).then_some(())
    });
    // Their lines are short, so the clients use none of the memory that they may.
    assert_memory_bounded(cluster, 0);
}

/// Opens new connections. Half of the clients send before they read.
fn join_crowd(cluster: &Cluster, count: usize) -> Vec<Raw> {
    let address = cluster.address(VICTIM);
    let connect = |number| {
        let mut client = Raw::connect(&address);
        if number % 2 == 0 {
            client.send("PING\n");
        }
        client
    };
    (0..count).map(connect).collect()
}

fn count_answer(client: &mut Raw, threads: usize, answers: &mut Answers) {
    client.send("PING\n");
    let busy = format!("ERROR BUSY all {threads} threads for clients are taken; try again later\n");
    match client.line() {
        line if line == "PONG\n" => answers.served += 1,
        line if line == busy => answers.busy += 1,
        line => panic!("{line:?}"),
    }
}

#[test]
fn ten_times_more_clients_than_threads_get_busy_and_those_inside_are_served() {
    let threads = 20;
    let (cluster, _alone) = start(plan().set("max_clients", threads));
    assert_crowd_bounded(&cluster, threads, 10 * threads);
}

#[test]
fn ten_thousand_connections_are_served_or_get_busy_and_memory_and_files_stay_bounded() {
    let connections = 10_000;
    // A node has so many threads for clients by default.
    let threads = Config::course().max_clients;
    if !may_open(connections + OWN_DESCRIPTORS) {
        println!("skipped: the system does not allow {connections} open files (ulimit -Hn)");
        return;
    }
    let (cluster, _alone) = start(plan());
    assert_crowd_bounded(&cluster, threads, connections as usize);
}

/// Raises this process's limit of open files to this number. Returns false if the system does not allow it.
fn may_open(files: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= files);
    let raised = Rlimit {
        current: Some(files),
        ..limit
    };
    enough(limit.current) || (enough(limit.maximum) && setrlimit(Resource::Nofile, raised).is_ok())
}

#[test]
fn with_a_low_limit_of_open_files_a_node_serves_fewer_clients_and_does_not_end() {
    let cluster = plan().lay_out();
    let (file, data) = (cluster.file(VICTIM), cluster.data(VICTIM));
    let limited = "ulimit -n 300 && exec \"$0\" node 5554 --cluster \"$1\" --data \"$2\"";
    let mut node = Command::new("sh");
    node.args(["-c", limited, env!("CARGO_BIN_EXE_dynamo")]);
    cluster.run(VICTIM, node.args([file, data]).stderr(Stdio::null()));
    cluster.await_answer(VICTIM);
    let address = cluster.address(VICTIM);
    let mut crowd: Vec<Raw> = (0..200).map(|_| Raw::connect(&address)).collect();
    let mut busy = 0;
    for client in &mut crowd {
        client.send("PING\nQUIT\n");
        let reply = text(&client.rest());
        assert!(
            reply == "PONG\nBYE\n" || reply.starts_with("ERROR BUSY "),
            "{reply}"
        );
        busy += usize::from(reply.starts_with("ERROR BUSY "));
    }
    assert!(busy > 100, "only {busy} were refused with BUSY");
    cluster.assert_runs(VICTIM);
}
