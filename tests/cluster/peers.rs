//! The port for peers: only a node of the same cluster and release gets in.

use simple_dynamo::config::Config;
use simple_dynamo::protocol::Operation;
use simple_dynamo::protocol::ring::NodeId;
use simple_dynamo::transport::handshake::{Hello, PROTOCOL};
use simple_dynamo::transport::message::{Request, line};

use crate::support::cluster::{Cluster, Plan, THREE, eventually};
use crate::support::impostor::{Impostor, unnumbered};
use crate::support::raw::Raw;

#[test]
fn junk_on_the_port_for_peers_is_refused_and_harms_nobody() {
    let cluster = Cluster::start(&THREE);
    let address = cluster.peer_address(5554);
    let mut client = Raw::connect(&address);
    client.send("GET k\n");
    client.expect("{\"refused\":\"this is a port for nodes; clients use another\"}\n");
    client.expect_end();
    let mut endless = Raw::connect(&address);
    endless.send([0xff; 100_000]);
    endless.expect("{\"refused\":\"this is a port for nodes\"}\n");
    endless.expect_end();
    let mut silent = Raw::connect(&address);
    silent.expect("{\"refused\":\"no greeting\"}\n");
    silent.expect_end();
    // This one greets well and then sends nonsense.
    let mut nonsense = Raw::connect(&address);
    nonsense.send(line(&hello(&cluster)));
    assert!(nonsense.line().starts_with("{\"welcome\":"));
    nonsense.send("{\"id\":1,\"ask\":{\"frob\":1}}\n");
    nonsense.expect_end();
    for id in THREE {
        cluster.done(id, "PUT k v");
    }
}

#[test]
fn of_many_connections_that_are_refused_one_is_logged_in_a_while() {
    let cluster = Cluster::start(&THREE);
    for _ in 0..30 {
        let mut client = Raw::connect(&cluster.peer_address(5554));
        client.send("GET k\n");
        client.rest();
    }
    cluster.terminate(5554);
    let log = cluster.log(5554);
    let refused = "5554: refused a connection on the port for peers: this is a port for nodes";
    let count = log.lines().filter(|line| line.contains(refused)).count();
    // A run that takes longer than ten seconds logs it twice.
    assert!((1..=2).contains(&count), "{log}");
}

fn hello(cluster: &Cluster) -> Hello {
    let config = Config::read(&cluster.file(5554)).unwrap();
    Hello {
        protocol: PROTOCOL,
        cluster: config.fingerprint(),
        from: NodeId(5556),
        to: NodeId(5554),
        introduction: unnumbered(),
    }
}

#[test]
fn a_peer_of_another_cluster_or_release_is_refused_with_a_message_that_says_so() {
    // By default a node logs such a line only once in a while.
    let cluster = Plan::of(&THREE).switched(&[("RUST_LOG", "debug")]).start();
    let own = hello(&cluster);
    let name = &own.cluster;
    let cases = [
        (
            Hello {
                protocol: PROTOCOL + 1,
                ..own.clone()
            },
            format!(
                "node 5556 speaks version {} of the protocol between nodes, node 5554 version \
                 {PROTOCOL}: run the same release on all nodes",
                PROTOCOL + 1
            ),
        ),
        (
            Hello {
                cluster: "other-00000000".into(),
                ..own.clone()
            },
            format!(
                "node 5556 belongs to cluster other-00000000, node 5554 to {name}: give all nodes \
                 the same cluster file"
            ),
        ),
        (
            Hello {
                to: NodeId(5558),
                ..own.clone()
            },
            "node 5556 looks for node 5558, but this is 5554".to_owned(),
        ),
        (
            Hello {
                from: NodeId(5562),
                ..own.clone()
            },
            "node 5562 is not a member of this cluster".to_owned(),
        ),
    ];
    for (hello, why) in cases {
        let mut peer = Raw::connect(&cluster.peer_address(5554));
        peer.send(line(&hello));
        peer.expect(format!("{{\"refused\":\"{why}\"}}\n"));
        peer.expect_end();
        eventually("the node logs it", || {
            cluster.log(5554).contains(&why).then_some(())
        });
    }
}

#[test]
fn of_two_connections_of_a_peer_the_one_that_it_opened_last_stays() {
    let cluster = Cluster::start(&THREE);
    cluster.kill(5556);
    let address = cluster.peer_address(5554);
    let mut older = Raw::connect(&address);
    let mut newer = Raw::connect(&address);
    let hello = hello(&cluster);
    newer.send(line(&hello));
    assert!(newer.line().starts_with("{\"welcome\":"));
    older.send(line(&hello));
    older.expect_end();
    newer.send("{\"id\":1,\"ask\":\"ping\"}\n");
    assert!(newer.line().starts_with("{\"id\":1,\"tell\":{\"pong\":"));
}

/// Two answers could contradict each other, and the first one could be lost.
#[test]
fn a_forwarded_request_that_the_network_doubles_is_answered_once() {
    let cluster = Cluster::start(&THREE);
    let [coordinator, origin, _] = THREE;
    let key = cluster.keys_of(coordinator).next().unwrap();
    cluster.kill(origin);
    let mut asking = Impostor::greet(&cluster, origin, coordinator);
    let get = Request::Coordinate {
        key: key.as_str().into(),
        operation: Operation::Get,
        seen: None,
        vouched: None,
    };
    let doubled = asking.ask_times(2, get.clone());
    let last = asking.ask(get);
    let mut answered = Vec::new();
    eventually("the last one is answered", || {
        answered.extend(asking.replies().into_iter().map(|(id, _)| id));
        answered.contains(&last).then_some(())
    });
    assert_eq!(answered, [doubled, last]);
}
