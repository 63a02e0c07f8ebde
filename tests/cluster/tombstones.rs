//! Deleted keys leave nothing behind once every replica knows of the delete, and old values do not come back.

use std::time::{Duration, Instant};

use simple_dynamo::protocol::ring::NodeId;
use simple_dynamo::protocol::{Accepted, Ballot, State, VoteReply, VoteRequest};
use simple_dynamo::transport::{Reply, Request};

use crate::support::cluster::{Cluster, FIVE, Plan, THREE, eventually};
use crate::support::impostor::Impostor;

/// A cluster with a short deadline, and the shortest age of tombstones that it allows.
pub fn soon() -> Plan {
    let plan = Plan::of(&FIVE).set("request_deadline_ms", 400);
    plan.set("tombstone_age_ms", 800)
        .set("anti_entropy_ms", 100)
}

fn number(cluster: &Cluster, id: u32, name: &str) -> Option<u64> {
    cluster.stat(id, name)?.parse().ok()
}

fn sum(cluster: &Cluster, name: &str) -> u64 {
    let each = cluster.ids().map(|id| number(cluster, id, name));
    each.map(|count| count.expect("every node answers")).sum()
}

pub fn await_no_tombstones(cluster: &Cluster, ids: &[u32]) {
    for &id in ids {
        eventually(&format!("{id} has dropped its tombstones"), || {
            (number(cluster, id, "tombstones")? == 0).then_some(())
        });
    }
}

/// How often a node looks at its tombstones while one of them comes to the age at which it may go.
const LOOKS_UNTIL_OLD: u64 = 4;

fn looks(cluster: &Cluster, id: u32) -> u64 {
    number(cluster, id, "tombstone_looks").expect("the node answers")
}

/// Waits until the tombstones that a node holds now are old enough to be dropped, and were looked at since.
pub fn await_looks(cluster: &Cluster, id: u32) {
    let before = looks(cluster, id);
    eventually("the tombstones are old enough, and looked at", || {
        (looks(cluster, id) > before + 3 * LOOKS_UNTIL_OLD).then_some(())
    });
}

/// Sends each line, and asserts that its reply is as expected.
fn ask_all(cluster: &Cluster, id: u32, lines: &[String], is_expected: impl Fn(&str) -> bool) {
    let mut client = cluster.client(id);
    for line in lines {
        let reply = client.call(line).expect("the node answers");
        assert!(is_expected(&reply), "{line}: {reply}");
    }
}

#[test]
fn a_deleted_key_is_forgotten_and_its_old_version_never_matches_again() {
    let cluster = soon().start();
    let old = cluster.done(5554, "PUT key1 old");
    cluster.done(5556, "DEL key1");
    assert_eq!(cluster.call(5558, "DEL never-there"), "NOT_FOUND");
    await_no_tombstones(&cluster, &FIVE);
    assert_eq!(sum(&cluster, "keys"), 0);
    for id in FIVE {
        assert_eq!(cluster.get(id, "key1"), None);
        let swap = format!("CAS key1 {old} stale");
        assert_eq!(cluster.call(id, &swap), "CONFLICT -");
    }
    let new = cluster.done(5560, "PUT key1 new");
    assert_ne!(old, new);
    let swap = format!("CAS key1 {old} stale");
    assert_eq!(cluster.call(5554, &swap), format!("CONFLICT {new}"));
    for id in FIVE {
        assert_eq!(cluster.get(id, "key1").as_deref(), Some("new"));
    }
}

/// A replica that is away holds what the tombstone has deleted. Until it is back and has the tombstone, too,
/// nobody may forget it.
#[test]
fn a_tombstone_outlives_the_absence_of_a_replica() {
    let cluster = soon().start();
    let keys: Vec<String> = cluster.keys_of(5554).take(20).collect();
    for key in &keys {
        cluster.done(5554, &format!("PUT {key} there"));
    }
    let away = cluster.replicas(&keys[0])[2];
    cluster.kill(away);
    for key in &keys {
        cluster.done(5554, &format!("DEL {key}"));
    }
    let dropped = number(&cluster, 5554, "tombstones_dropped");
    await_looks(&cluster, 5554);
    assert_eq!(number(&cluster, 5554, "tombstones_dropped"), dropped);
    assert_eq!(number(&cluster, 5554, "tombstones"), Some(20));
    cluster.restart(away);
    await_no_tombstones(&cluster, &FIVE);
    for key in &keys {
        assert_eq!(cluster.get(away, key), None);
    }
    assert_eq!(sum(&cluster, "keys"), 0);
}

/// The fence of what was dropped is kept per range. So a replica that has dropped tombstones of one range takes what
/// others wrote in another range while it was away as it is.
#[test]
fn a_fence_of_dropped_tombstones_refuses_nothing_of_another_range() {
    let cluster = soon().start();
    let back = 5554;
    // The coordinator with the highest id makes the highest ballots.
    for key in cluster.keys_of(5562).take(20) {
        cluster.done(back, &format!("PUT {key} x"));
        cluster.done(back, &format!("DEL {key}"));
    }
    await_no_tombstones(&cluster, &FIVE);
    // The node ends in order, so what it has dropped is durable then.
    cluster.terminate(back);
    // These keys have lower ballots than what was dropped.
    let missed: Vec<String> = cluster.keys_of(back).take(300).collect();
    let puts: Vec<_> = missed.iter().map(|key| format!("PUT {key} y")).collect();
    ask_all(&cluster, 5558, &puts, |reply| reply.starts_with("OK "));
    cluster.start_node(back);
    cluster.await_answer(back);
    // The first answer that is not an error must be complete.
    let own = cluster.own_keys(back);
    let lacking = missed.iter().filter(|key| !own.contains(*key)).count();
    assert_eq!(lacking, 0, "of {} keys", missed.len());
    assert_eq!(number(&cluster, back, "keys_restored"), Some(0));
}

#[test]
fn what_was_dropped_stays_dropped_when_all_nodes_are_killed() {
    let cluster = soon().start();
    let keys: Vec<String> = (0..100).map(|number| format!("key{number}")).collect();
    let each = |word: &str, rest: &str| -> Vec<String> {
        keys.iter()
            .map(|key| format!("{word} {key}{rest}"))
            .collect()
    };
    let done = |reply: &str| reply.starts_with("OK ");
    ask_all(&cluster, 5554, &each("PUT", " value"), done);
    ask_all(&cluster, 5556, &each("DEL", ""), done);
    await_no_tombstones(&cluster, &FIVE);
    cluster.ids().for_each(|id| cluster.kill(id));
    cluster.ids().for_each(|id| cluster.start_node(id));
    cluster.await_all_ready();
    // A drop that was not durable yet is done again.
    await_no_tombstones(&cluster, &FIVE);
    assert_eq!(sum(&cluster, "keys"), 0);
    ask_all(&cluster, 5558, &each("GET", ""), |reply| {
        reply == "NOT_FOUND"
    });
    ask_all(&cluster, 5558, &each("PUT", " again"), done);
    ask_all(&cluster, 5560, &each("GET", ""), |reply| {
        reply.ends_with(" again")
    });
}

/// A million different keys, each put and deleted: memory and disk stay small. Prints both.
/// `DYNAMO_KEYS` asks for another number.
#[test]
#[ignore = "takes minutes: cargo test --release --test cluster tombstones -- --ignored --nocapture"]
fn a_million_puts_and_deletes_leave_little_behind() {
    let keys = std::env::var("DYNAMO_KEYS").ok();
    let keys: u64 = keys.map_or(1_000_000, |text| text.parse().expect("a number"));
    let cluster = Cluster::start(&FIVE);
    let clients = 32;
    let began = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..clients {
            let cluster = &cluster;
            scope.spawn(move || {
                let mut connection = cluster.client(FIVE[client as usize % FIVE.len()]);
                for number in (client..keys).step_by(clients as usize) {
                    for line in [format!("PUT key{number} value"), format!("DEL key{number}")] {
                        let reply = connection.call(&line).expect("the node answers");
                        assert!(reply.starts_with("OK "), "{line}: {reply}");
                    }
                }
            });
        }
    });
    println!("{keys} keys put and deleted in {:.0?}", began.elapsed());
    let resident = |id| {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", cluster.pid(id)));
        let pages: Option<u64> = statm
            .ok()
            .and_then(|text| text.split(' ').nth(1)?.parse().ok());
        (pages.unwrap_or(0) * 4096) >> 20
    };
    let on_disk = |id| {
        let files = std::fs::read_dir(cluster.data(id)).expect("the folder is there");
        let bytes = files.map(|file| file.and_then(|file| file.metadata()).map_or(0, |m| m.len()));
        bytes.sum::<u64>() >> 20
    };
    let print = |when: &str| {
        for id in FIVE {
            let held = number(&cluster, id, "tombstones").unwrap_or(0);
            let (memory, disk) = (resident(id), on_disk(id));
            println!("{when}: {id}: {held} tombstones, {memory} MiB resident, {disk} MiB on disk");
        }
    };
    print("at the end");
    await_no_tombstones(&cluster, &FIVE);
    print("after the tombstones were dropped");
    assert_eq!(sum(&cluster, "keys"), 0);
    for id in FIVE {
        assert!(on_disk(id) < 256, "{id} keeps {} MiB", on_disk(id));
        assert!(resident(id) < 512, "{id} needs {} MiB", resident(id));
    }
}

/// A node that answers that it holds a tombstone, and then loses its folder, may copy what a third replica
/// held before it took the tombstone. So its answer counts no more.
#[test]
fn a_lost_folder_voids_what_was_said_of_tombstones() {
    let cluster = soon().proxied().start();
    let keys: Vec<String> = cluster.keys_of(5554).take(20).collect();
    let replicas = cluster.replicas(&keys[0]);
    for key in &keys {
        cluster.done(5554, &format!("PUT {key} value"));
        cluster.done(5554, &format!("DEL {key}"));
    }
    // Any loss will do. The node that loses its folder here is no replica of these keys, so that the replicas
    // go on.
    let outsider = FIVE.into_iter().find(|id| !replicas.contains(id)).unwrap();
    cluster.kill(outsider);
    // Each inquiry takes longer than the pause between two losses.
    for from in &replicas {
        for to in replicas.iter().filter(|to| *to != from) {
            cluster
                .network()
                .delay(*from, *to, Duration::from_millis(40));
        }
    }
    let greet = |to: &u32| Impostor::greet(&cluster, outsider, *to);
    let mut peers: Vec<Impostor> = replicas.iter().map(greet).collect();
    let before: Vec<u64> = replicas.iter().map(|id| looks(&cluster, *id)).collect();
    let mut losses = 0;
    // The last of the replicas waits five times as long as the coordinator before it looks.
    let each = || replicas.iter().zip(&before);
    while each().any(|(id, before)| looks(&cluster, *id) < before + 6 * LOOKS_UNTIL_OLD) {
        for peer in &mut peers {
            losses += 1;
            peer.join(&format!("loss {losses}"), false);
        }
    }
    for &id in &replicas {
        assert_eq!(number(&cluster, id, "tombstones_dropped"), Some(0));
        assert_eq!(number(&cluster, id, "tombstones"), Some(20));
    }
    drop(peers);
    await_no_tombstones(&cluster, &replicas);
}

#[test]
fn a_node_that_lost_its_folder_takes_over_what_is_fenced_off() {
    let plan = Plan::of(&THREE).set("request_deadline_ms", 400);
    let cluster = plan.set("tombstone_age_ms", 800).start();
    let lost = 5558;
    cluster.done(lost, "PUT key value");
    cluster.done(lost, "DEL key");
    await_no_tombstones(&cluster, &THREE);
    cluster.kill(lost);
    cluster.wipe(lost);
    cluster.start_node(lost);
    cluster.await_ready(lost);
    // A late accept of the life before arrives. If the node took it, the value would be back.
    let state = State {
        value: Some("value".into()),
        ..State::default()
    };
    let vote = VoteRequest::Accept(Accepted {
        ballot: Ballot::first(1, NodeId(5554)),
        state: state.into(),
    });
    cluster.kill(5554);
    let mut peer = Impostor::greet(&cluster, 5554, lost);
    peer.ask(Request::Vote {
        key: "key".into(),
        vote,
    });
    let replies = peer.replies();
    let [(_, Reply::Vote(VoteReply::Rejected(_)))] = replies[..] else {
        panic!("{replies:?}");
    };
    assert_eq!(number(&cluster, lost, "keys"), Some(0));
}
