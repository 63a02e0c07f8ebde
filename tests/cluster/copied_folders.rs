//! A data folder that is a copy, run beside the original or put back in its place. It has the right storage
//! id, and lacks votes that the original holds.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use simple_dynamo::client::Client;

use crate::support::cluster::{Cluster, FIVE, THREE, dynamo, eventually};
use crate::support::folder;
use crate::support::ports;
use crate::support::process::Process;

/// How often a node is asked how far its log is.
const ASKED_EVERY: Duration = Duration::from_millis(500);

/// A second process of a node, on a copy of its folder and with ports of its own.
struct Second {
    command: Command,
    client: String,
    log: PathBuf,
}

impl Second {
    fn of(cluster: &Cluster, id: u32) -> Second {
        let folder = cluster.data(id).with_extension("copy");
        folder::copy(&cluster.data(id), &folder);
        let port = ports::free_pair();
        let text = fs::read_to_string(cluster.file(id)).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        for node in config["nodes"].as_array_mut().unwrap() {
            if node["id"] == id {
                *node = json!({"id": id, "client_port": port, "peer_port": port + 1});
            }
        }
        let file = folder.with_extension("copy.json");
        fs::write(&file, config.to_string()).unwrap();
        let log = folder.with_extension("copy.log");
        let mut command = dynamo(&["node", &id.to_string()], &file);
        command.arg("--data").arg(&folder).stdin(Stdio::null());
        let client = format!("127.0.0.1:{port}");
        Second {
            command,
            client,
            log,
        }
    }

    fn start(&mut self) -> Process {
        let mut options = fs::File::options();
        let log = options.create(true).append(true).open(&self.log).unwrap();
        Process::start(self.command.stdout(Stdio::null()).stderr(log))
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

#[test]
fn a_copy_that_runs_beside_the_original_carries_out_nothing_and_ends() {
    let cluster = Cluster::start(&FIVE);
    let id = 5558;
    let key = cluster.keys_of(id).next().unwrap();
    cluster.done(id, &format!("PUT {key} original"));
    let mut second = Second::of(&cluster, id);
    let mut copy = second.start();
    let mut replies = Vec::new();
    while copy.end().is_none() {
        let client = Client::connect(&second.client, Duration::from_secs(5));
        replies.extend(client.and_then(|mut client| client.call(&format!("PUT {key} copy"))));
        cluster.done(id, &format!("PUT {key} original"));
    }
    assert_eq!(copy.await_end().code(), Some(1));
    let log = second.log();
    assert!(
        log.contains("another process of node 5558 is running"),
        "{log}"
    );
    let done = |reply: &&String| reply.starts_with("OK");
    assert_eq!(replies.iter().find(done), None);
    let logs = |other: &u32| cluster.log(*other).contains("two processes of node 5558");
    assert!(FIVE.iter().any(logs), "the other nodes log it, too");
    for other in FIVE {
        let read = cluster.get(other, &key);
        assert_eq!(read.as_deref(), Some("original"));
    }

    // Once the original is gone, the copied folder may take its place, and its node copies what it lacks.
    cluster.done(id, &format!("PUT {key} last"));
    cluster.kill(id);
    let mut copy = second.start();
    eventually("the copy votes", || {
        assert!(copy.end().is_none(), "{}", second.log());
        let client = Client::connect(&second.client, Duration::from_secs(5));
        let stats = client.and_then(|mut client| client.list("STATS")).ok()?;
        stats.contains(&"votes yes".to_owned()).then_some(())
    });
    let log = second.log();
    assert!(log.contains("an older data folder was lost"), "{log}");
    let mut client = Client::connect(&second.client, Duration::from_secs(5)).unwrap();
    let read = client.call(&format!("GET {key}")).unwrap();
    assert!(read.ends_with(" last"), "{read}");
    assert_eq!(copy.kill().code(), None);
}

#[test]
fn a_folder_that_is_put_back_from_an_older_copy_counts_as_lost() {
    let cluster = Cluster::start(&THREE);
    let id = 5554;
    let backup = cluster.data(id).with_extension("backup");
    cluster.terminate(id);
    folder::copy(&cluster.data(id), &backup);
    cluster.restart(id);
    cluster.done(id, "PUT k precious");
    cluster.kill(id);
    cluster.wipe(id);
    folder::copy(&backup, &cluster.data(id));
    let before = cluster.stat(5556, "storage").unwrap();
    cluster.restart(id);
    let log = cluster.log(id);
    assert!(log.contains("was put back from an older copy"), "{log}");
    assert!(log.contains("copying everything before voting"), "{log}");
    assert_ne!(cluster.stat(id, "keys_copied").as_deref(), Some("0"));
    assert_eq!(cluster.get(id, "k").as_deref(), Some("precious"));
    assert_eq!(
        cluster.stat(5556, "storage"),
        Some(before),
        "the others go on"
    );
    // The folder is whole from now on.
    cluster.terminate(id);
    cluster.restart(id);
    let copies = cluster.log(id).matches("copying everything").count();
    assert_eq!(copies, 1);
}

/// There was no start in between that would show which folder is the older one.
#[test]
fn a_folder_that_is_put_back_as_it_was_while_its_node_ran_counts_as_lost() {
    let cluster = Cluster::start(&THREE);
    let id = 5554;
    let backup = cluster.data(id).with_extension("backup");
    cluster.done(id, "PUT k old");
    folder::copy(&cluster.data(id), &backup);
    cluster.done(id, "PUT k precious");
    // This gives the others time to ask how far the node's log is. Without the answer nobody could know that
    // the folder is older.
    thread::sleep(2 * ASKED_EVERY);
    cluster.kill(id);
    cluster.wipe(id);
    folder::copy(&backup, &cluster.data(id));
    cluster.restart(id);
    let log = cluster.log(id);
    assert!(log.contains("was put back from an older copy"), "{log}");
    assert_eq!(cluster.get(id, "k").as_deref(), Some("precious"));
}

#[test]
fn a_node_that_restarts_while_a_peer_is_away_votes_at_once() {
    let cluster = Cluster::start(&THREE);
    cluster.kill(5558);
    cluster.kill(5554);
    cluster.restart(5554);
    cluster.done(5554, "PUT k v");
}

#[test]
fn a_process_that_was_paused_while_its_node_was_started_elsewhere_ends() {
    let cluster = Cluster::start(&FIVE);
    let id = 5558;
    let mut second = Second::of(&cluster, id);
    cluster.pause(id);
    for other in FIVE.iter().filter(|other| **other != id) {
        cluster.await_sight(*other, id, "suspect");
    }
    let copy = second.start();
    eventually("the later process votes", || {
        let client = Client::connect(&second.client, Duration::from_secs(5));
        let stats = client.and_then(|mut client| client.list("STATS")).ok()?;
        stats.contains(&"votes yes".to_owned()).then_some(())
    });
    cluster.resume(id);
    assert_eq!(cluster.await_end(id).code(), Some(1));
    let log = cluster.log(id);
    assert!(
        log.contains("another process of this node was started"),
        "{log}"
    );
    drop(copy);
}

/// Both clusters have the default name and the same ids, and one file of one cluster has a wrong port.
#[test]
fn two_clusters_with_the_same_name_and_ids_do_not_mix_through_a_wrong_port() {
    let (one, other) = (Cluster::start(&THREE), Cluster::start(&THREE));
    let id = |cluster: &Cluster, node| cluster.stat(node, "cluster_id").unwrap();
    for node in THREE {
        assert_eq!(id(&one, node), id(&one, THREE[0]));
        assert_ne!(id(&one, node), id(&other, node));
    }
    for number in 0..20 {
        one.done(5554, &format!("PUT key{number} one"));
    }
    other.done(5554, "PUT other 1");
    one.terminate(5554);
    let text = fs::read_to_string(one.file(5554)).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let wrong = other.peer_address(5556);
    let wrong: u16 = wrong.rsplit(':').next().unwrap().parse().unwrap();
    for node in config["nodes"].as_array_mut().unwrap() {
        if node["id"] == 5556 {
            node["peer_port"] = wrong.into();
        }
    }
    fs::write(one.file(5554), config.to_string()).unwrap();
    one.start_node(5554);
    one.await_vote(5554);
    let both = |cluster: &Cluster, node| {
        cluster
            .log(node)
            .contains("which has the same name and ids")
    };
    eventually("both sides log it", || {
        (both(&one, 5554) && both(&other, 5556)).then_some(())
    });
    for number in 0..20 {
        one.done(5554, &format!("PUT key{number} two"));
    }
    for node in THREE {
        assert_eq!(other.own_keys(node).len(), 1, "{node}");
        assert!(!other.log(node).contains("has lost its data folder"));
    }
    assert_eq!(one.get(5558, "key7").as_deref(), Some("two"));
    for cluster in [&one, &other] {
        let lines = |node| cluster.log(node).matches("which has the same name").count();
        assert!(THREE.into_iter().map(lines).max() < Some(10));
    }
}
