//! `--sync os`: a node warns of what it risks, and loses nothing unless the power fails.

use crate::support::cluster::{Cluster, Plan, THREE};

const RISK: &str = "--sync os: a loss of power may lose acknowledged writes";

fn start(cluster: &Cluster) {
    for id in THREE {
        cluster.start_node_with_options(id, &["--sync", "os"]);
    }
    cluster.await_all_ready();
}

#[test]
fn a_node_with_sync_os_warns_of_what_it_risks_and_one_without_does_not() {
    let cluster = Plan::of(&THREE).lay_out();
    start(&cluster);
    for id in THREE {
        let warning = format!("WARN ] {id}: {RISK}\n");
        assert!(cluster.log(id).contains(&warning), "{}", cluster.log(id));
    }
    let careful = Cluster::start(&THREE);
    assert!(!careful.log(5554).contains(RISK));
}

#[test]
fn with_sync_os_all_nodes_killed_at_once_have_every_acknowledged_write() {
    let cluster = Plan::of(&THREE).lay_out();
    start(&cluster);
    let written = 300;
    let mut client = cluster.client(5554);
    let puts = (0..written).map(|number| format!("PUT key{number} {number}\n"));
    client.send(puts.collect::<String>().as_bytes()).unwrap();
    for _ in 0..written {
        let reply = client.receive().unwrap();
        assert!(reply.starts_with("OK "), "{reply}");
    }
    THREE.iter().for_each(|&id| cluster.kill(id));
    start(&cluster);
    for number in 0..written {
        let id = THREE[number % 3];
        let value = cluster.get(id, &format!("key{number}"));
        assert_eq!(value, Some(number.to_string()), "key{number} through {id}");
    }
}
