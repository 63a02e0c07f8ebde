//! Recovery: a node that comes back has lost nothing, soon has what it missed, and revives nothing.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use simple_dynamo::bytes::MAX_VALUE;
use simple_dynamo::protocol::ring::NodeId;
use simple_dynamo::protocol::version::VectorClock;
use simple_dynamo::protocol::{Ballot, VoteReply, VoteRequest};
use simple_dynamo::storage::MOST_BACKLOG;
use simple_dynamo::transport::message::{Reply, Request};

use crate::support::cluster::{Cluster, FIVE, Plan, THREE, eventually};
use crate::support::impostor::Impostor;

#[test]
fn a_restarted_node_calls_get_at_complete_only_with_all_that_it_missed() {
    let cluster = Cluster::start(&THREE);
    cluster.done(5554, "PUT stays 1");
    cluster.done(5554, "PUT changes 1");
    for round in 0..3 {
        cluster.kill(5558);
        cluster.done(5554, &format!("PUT changes {round}"));
        cluster.done(5556, &format!("PUT new{round} x"));
        cluster.start_node(5558);
        cluster.await_answer(5558);
        // The first answer that is not an error must be complete.
        let pairs = cluster.own_pairs(5558);
        let changed = |pair: &String| {
            pair.starts_with("PAIR changes ") && pair.ends_with(&format!(" {round}"))
        };
        assert!(pairs.iter().any(changed), "round {round}: {pairs:?}");
        assert_eq!(pairs.len(), 3 + round, "{pairs:?}");
    }
    assert_eq!(cluster.own_pairs(5558), cluster.own_pairs(5554));
}

/// A proposal that comes to nothing leaves a promise behind, here one that no other node has heard of.
#[test]
fn a_replica_that_refused_what_the_others_chose_soon_has_it_all_the_same() {
    let plan = Plan::of(&FIVE).set("anti_entropy_ms", 3_600_000);
    let cluster = plan.start();
    let replicas = cluster.replicas("k");
    let (coordinator, refusing) = (replicas[0], replicas[2]);
    let stranger = FIVE.into_iter().find(|id| !replicas.contains(id)).unwrap();
    cluster.done(coordinator, "PUT k 1");
    cluster.await_keys(refusing, 1);
    eventually("the comparisons after its start are over", || {
        let compared = cluster.stat(refusing, "ranges_compared")?.parse::<u64>();
        (compared.unwrap() >= 6).then_some(())
    });
    cluster.kill(stranger);
    let mut impostor = Impostor::greet(&cluster, stranger, refusing);
    let vote = VoteRequest::Prepare(Ballot::first(1000, NodeId(stranger)));
    let key = "k".into();
    impostor.ask(Request::Vote { key, vote });
    let promised = |(_, reply)| matches!(reply, Reply::Vote(VoteReply::Promised(_)));
    eventually("the replica promises", || {
        impostor.replies().into_iter().any(promised).then_some(())
    });
    cluster.done(coordinator, "DEL k");
    cluster.await_keys(refusing, 0);
    let refreshed = cluster.stat(refusing, "keys_restored");
    assert_ne!(
        refreshed.as_deref(),
        Some("0"),
        "it got the state without a refresh"
    );
}

#[test]
fn a_restarted_node_that_can_ask_nobody_does_not_call_get_at_complete() {
    let cluster = Cluster::start(&THREE);
    cluster.kill(5558);
    cluster.done(5554, "PUT missed 1");
    cluster.kill(5554);
    cluster.kill(5556);
    cluster.start_node(5558);
    cluster.await_answer(5558);
    let listing = cluster.list(5558, "GET @").unwrap_err();
    let start = "ERROR UNAVAILABLE node 5558 does not vote yet: it has just started and reaches no";
    assert!(listing.starts_with(start), "{listing}");
    cluster.start_node(5554);
    assert_eq!(cluster.own_pairs(5558).len(), 1);
}

/// The peer notices nothing, and sends nothing.
#[test]
fn a_comparison_that_a_silence_ended_is_made_when_the_peer_is_heard_again() {
    let plan = Plan::of(&THREE).set("anti_entropy_ms", 3_600_000);
    let cluster = plan.proxied().start();
    cluster.await_all_ready();
    let (doubting, silent, down) = (5554, 5556, 5558);
    let storage = cluster.stat(down, "storage").unwrap();
    cluster.kill(down);
    assert!(cluster.network().half_open(doubting, silent, false));
    cluster.await_sight(doubting, silent, "suspect");
    Impostor::greet(&cluster, down, doubting).join(&storage, true);
    assert_eq!(
        cluster.stat(doubting, "ranges_up_to_date").as_deref(),
        Some("0")
    );
    // A connection without answers is opened anew.
    cluster.await_ready(doubting);
}

#[test]
fn a_key_deleted_while_a_replica_was_down_stays_deleted_when_it_returns() {
    let cluster = Plan::of(&THREE).set("anti_entropy_ms", 200).start();
    for key in ["gone", "again"] {
        cluster.done(5554, &format!("PUT {key} old"));
    }
    cluster.kill(5558);
    for key in ["gone", "again"] {
        cluster.done(5554, &format!("DEL {key}"));
        assert_eq!(cluster.call(5556, &format!("DEL {key}")), "NOT_FOUND");
    }
    cluster.done(5556, "PUT again new");
    cluster.restart(5558);
    // The other replicas look at its old records as well.
    let compared = |id| {
        cluster
            .stat(id, "ranges_compared")
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let before = THREE.map(compared);
    eventually("all ranges have been compared once more", || {
        let far = |(id, before)| compared(id) >= before + 6;
        THREE.into_iter().zip(before).all(far).then_some(())
    });
    for id in THREE {
        assert_eq!(cluster.get(id, "gone"), None, "through {id}");
        assert_eq!(
            cluster.get(id, "again").as_deref(),
            Some("new"),
            "through {id}"
        );
        assert_eq!(
            cluster.own_keys(id),
            BTreeSet::from(["again".to_owned()]),
            "on {id}"
        );
    }
}

#[test]
fn keys_deleted_while_a_replica_recovers_stay_deleted() {
    let cluster = Plan::of(&THREE).set("anti_entropy_ms", 200).start();
    let keys: Vec<_> = (0..200).map(|number| format!("key{number}")).collect();
    cluster.kill(5556);
    let mut client = cluster.client(5554);
    for key in &keys {
        assert!(
            client
                .call(&format!("PUT {key} x"))
                .unwrap()
                .starts_with("OK ")
        );
    }
    cluster.start_node(5556);
    for key in &keys[..190] {
        assert!(
            client
                .call(&format!("DEL {key}"))
                .unwrap()
                .starts_with("OK "),
            "{key}"
        );
    }
    cluster.await_ready(5556);
    let left: BTreeSet<_> = keys[190..].iter().cloned().collect();
    for id in THREE {
        assert_eq!(cluster.own_keys(id), left, "on {id}");
        assert_eq!(cluster.get(id, "key0"), None);
    }
}

#[test]
fn all_nodes_restarted_together_have_everything() {
    let cluster = Cluster::start(&FIVE);
    let keys: Vec<_> = (0..100).map(|number| format!("key{number}")).collect();
    let mut client = cluster.client(5554);
    let versions: Vec<_> = keys
        .iter()
        .map(|key| {
            client
                .call(&format!("PUT {key} value of {key}"))
                .unwrap()
                .replace("OK ", "")
        })
        .collect();
    for id in FIVE {
        assert!(cluster.terminate(id).success());
    }
    FIVE.iter().for_each(|&id| cluster.start_node(id));
    cluster.await_all_ready();
    let mut client = cluster.client(5560);
    for (key, version) in keys.iter().zip(versions) {
        let expected = format!("VALUE {version} value of {key}");
        assert_eq!(client.call(&format!("GET {key}")).unwrap(), expected);
    }
    let total: usize = FIVE.iter().map(|&id| cluster.own_pairs(id).len()).sum();
    assert_eq!(total, 3 * keys.len(), "each key is on its three replicas");
}

#[test]
fn all_nodes_killed_in_the_middle_of_writes_have_every_acknowledged_write() {
    let cluster = Cluster::start(&FIVE);
    for round in 1..=2 {
        let acknowledged = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for id in FIVE {
                let (cluster, acknowledged) = (&cluster, &acknowledged);
                scope.spawn(move || {
                    let mut client = cluster.client(id);
                    for number in 0.. {
                        let key = format!("key-{id}-{number}");
                        match client.call(&format!("PUT {key} {round}")) {
                            Ok(reply) if reply.starts_with("OK ") => {
                                acknowledged.lock().unwrap().push(key)
                            }
                            // The nodes are dying.
                            _ => return,
                        }
                    }
                });
            }
            let enough = || (acknowledged.lock().unwrap().len() > 300).then_some(());
            eventually("writes are under way", enough);
            FIVE.iter().for_each(|&id| cluster.kill(id));
        });
        FIVE.iter().for_each(|&id| cluster.start_node(id));
        cluster.await_all_ready();
        let mut client = cluster.client(5558);
        for key in acknowledged.into_inner().unwrap() {
            let reply = client.call(&format!("GET {key}")).unwrap();
            let value = format!(" {round}");
            assert!(
                reply.starts_with("VALUE ") && reply.ends_with(&value),
                "GET {key}: {reply}"
            );
        }
    }
}

#[test]
fn versions_go_on_above_all_earlier_ones_after_restarts() {
    let cluster = Cluster::start(&THREE);
    let clock = |version: &str| version.parse::<VectorClock>().unwrap();
    let mut last = cluster.done(5554, "PUT k 0");
    for round in 1..=3 {
        // The nodes end in order in one round, and are killed in the next.
        for id in THREE {
            match round % 2 {
                0 => drop(cluster.terminate(id)),
                _ => cluster.kill(id),
            }
        }
        THREE.iter().for_each(|&id| cluster.start_node(id));
        cluster.await_all_ready();
        for id in THREE {
            let next = cluster.done(id, &format!("PUT k {round}"));
            assert!(
                clock(&next).dominates(&clock(&last)) && next != last,
                "{next} after {last}"
            );
            let conflict = cluster.call(id, &format!("CAS k {last} old"));
            assert_eq!(conflict, format!("CONFLICT {next}"));
            last = next;
        }
        let swapped = cluster.done(5554, &format!("CAS k {last} swapped"));
        assert!(clock(&swapped).dominates(&clock(&last)) && swapped != last);
        last = swapped;
    }
    for id in THREE {
        assert_eq!(cluster.call(id, "GET k"), format!("VALUE {last} swapped"));
    }
}

#[test]
fn of_five_replicas_one_that_returns_does_not_believe_a_minority() {
    let settings = Plan::of(&FIVE)
        .set("replicas", 5)
        .set("read_quorum", 3)
        .set("write_quorum", 3);
    let cluster = settings.start();
    let (absent, present) = ([5554, 5556], [5558, 5560, 5562]);
    absent.iter().for_each(|&id| cluster.kill(id));
    cluster.done(5558, "PUT k v");
    present.iter().for_each(|&id| cluster.kill(id));
    absent.iter().for_each(|&id| cluster.start_node(id));
    absent.iter().for_each(|&id| cluster.await_answer(id));
    cluster.await_sight(5554, 5556, "up");
    cluster.await_sight(5556, 5554, "up");
    // The two nodes that return together know nothing of the write, and agree with each other.
    for id in absent {
        let compared =
            || (cluster.stat(id, "ranges_compared")?.parse::<u64>().ok()? >= 5).then_some(());
        eventually("they have compared all ranges", compared);
        let listing = cluster
            .list(id, "GET @")
            .expect_err("GET @ lacks a write, and is called complete");
        assert!(listing.starts_with("ERROR UNAVAILABLE "), "{listing}");
    }
    present.iter().for_each(|&id| cluster.start_node(id));
    cluster.await_all_ready();
    for id in FIVE {
        assert_eq!(cluster.own_keys(id).len(), 1, "on {id}");
    }
}

#[test]
fn a_node_whose_disk_did_not_keep_up_pulls_what_it_refused() {
    // Neither a silence nor the periodic comparison makes the node compare.
    let cluster = Plan::of(&THREE)
        .set("read_timeout_ms", 3000)
        .set("request_deadline_ms", 15_000)
        .set("anti_entropy_ms", 3_600_000)
        .start();
    cluster.await_all_ready();
    let slow = 5558;
    cluster.slow_disk(slow, Duration::from_secs(60));
    // These are more bytes than a replica takes before its log is written.
    let large = "x".repeat(MAX_VALUE);
    let keys: Vec<String> = (0..2 * MOST_BACKLOG / MAX_VALUE)
        .map(|number| format!("key{number}"))
        .collect();
    let mut client = cluster.client(5554);
    for key in &keys {
        let reply = client.call(&format!("PUT {key} {large}")).unwrap();
        assert!(reply.starts_with("OK "), "{reply}");
    }
    cluster.heal_disk(slow);
    cluster.await_keys(slow, keys.len());
    let pulled = cluster.stat(slow, "keys_pulled");
    assert_ne!(pulled.as_deref(), Some("0"), "it refused nothing");
}
