//! Clients that know the ring and send each request to its coordinator.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use simple_dynamo::client::routed::RoutedClient;

use crate::support::cluster::{Cluster, FIVE, dynamo, eventually};
use crate::support::waiting::SURELY;

/// Longer than any request may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How many requests each client sends after the crash: enough to see that nothing goes to the dead node any
/// more.
const AFTER_THE_CRASH: usize = 30;

/// A client that begins with these nodes, in their order.
fn routed(cluster: &Cluster, first: &[u32]) -> RoutedClient {
    let addresses: Vec<_> = first.iter().map(|id| cluster.address(*id)).collect();
    RoutedClient::connect(&addresses, PATIENCE).unwrap()
}

/// The sum of a number of `STATS` over all nodes.
fn total(cluster: &Cluster, name: &str) -> u64 {
    let of_node = |id| cluster.stat(id, name).unwrap().parse::<u64>().unwrap();
    cluster.ids().map(of_node).sum()
}

fn bench(cluster: &Cluster, route: &str) {
    let options = [
        "bench", "--reads", "0", "--keep", "--secs", "0.3", "--ahead", "4",
    ];
    let mut command = dynamo(&options, &cluster.file(FIVE[0]));
    let output = command.args(["--route", route]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

#[test]
fn no_node_forwards_what_clients_send_to_the_coordinator() {
    let cluster = Cluster::start(&FIVE);
    bench(&cluster, "coordinator");
    let mut client = routed(&cluster, &FIVE[..1]);
    for number in 0..100 {
        let key = format!("key{number}");
        assert_eq!(client.call(&key, &format!("GET {key}")), "NOT_FOUND");
        let reply = client.call(&key, &format!("PUT {key} v"));
        assert!(reply.starts_with("OK "), "{reply}");
    }
    assert!(total(&cluster, "requests") > 200);
    assert_eq!(total(&cluster, "requests_forwarded"), 0);
    bench(&cluster, "any");
    assert!(total(&cluster, "requests_forwarded") > 0);
}

/// Writes and reads a key until some time after the crash. Returns how many writes had an unknown outcome.
fn write_and_read(cluster: &Cluster, key: &str, killed: &AtomicBool) -> usize {
    let mut client = routed(cluster, &FIVE);
    let (mut unknown, mut after) = (0, 0);
    let until = Instant::now() + SURELY;
    while after < AFTER_THE_CRASH {
        assert!(Instant::now() < until, "the node is not killed");
        after += usize::from(killed.load(Ordering::SeqCst));
        let reply = client.call(key, &format!("PUT {key} v"));
        unknown += usize::from(reply.starts_with("ERROR UNKNOWN "));
        assert!(reply.starts_with("OK ") || unknown == 1, "{reply}");
        let reply = client.call(key, &format!("GET {key}"));
        assert!(!reply.starts_with("ERROR "), "{reply}");
    }
    unknown
}

#[test]
fn when_a_coordinator_is_killed_reads_go_on_and_only_writes_in_flight_are_unknown() {
    let cluster = &Cluster::start(&FIVE);
    let coordinator = FIVE[2];
    let killed = &AtomicBool::new(false);
    thread::scope(|scope| {
        let keys = cluster.keys_of(coordinator).take(8);
        let clients: Vec<_> = keys
            .map(|key| scope.spawn(move || write_and_read(cluster, &key, killed)))
            .collect();
        eventually("they are at work", || {
            (total(cluster, "requests") > 200).then_some(())
        });
        cluster.kill(coordinator);
        killed.store(true, Ordering::SeqCst);
        for client in clients {
            assert!(
                client.join().unwrap() <= 1,
                "each has one request in flight"
            );
        }
    });
    let key = cluster.keys_of(coordinator).next().unwrap();
    // This client begins with the dead node.
    let reply = routed(cluster, &[coordinator, FIVE[0]]).call(&key, &format!("PUT {key} w"));
    assert!(reply.starts_with("OK "), "{reply}");
}
