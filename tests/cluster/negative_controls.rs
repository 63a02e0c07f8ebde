//! Negative controls on real processes. With one rule left out, a directed scenario ends in just the harm
//! that the rule prevents. With all rules in force the same scenario does not.
//!
//! `tests/simulator.rs` has those of the simulator. Among them are the scenarios in which a message must arrive
//! at one moment that no test of processes can be sure to meet.
#![cfg(debug_assertions)]

use std::fs;
use std::time::Duration;

use simple_dynamo::protocol::ring::NodeId;
use simple_dynamo::protocol::{Ballot, VoteReply, VoteRequest};
use simple_dynamo::testing::rules::Rule;
use simple_dynamo::transport::{Reply, Request};

use crate::support::cluster::{Cluster, FIVE, Plan, THREE, eventually};
use crate::support::folder;
use crate::support::impostor::Impostor;

/// Runs a scenario with all rules, and without one. The scenario returns whether the harm was done.
fn control(rule: Rule, scenario: impl Fn(&[(&str, &str)]) -> bool) {
    let name = format!("{rule:?}");
    assert!(!scenario(&[]), "the harm is done with all rules in force");
    let without = [("DYNAMO_LEAVE_OUT", name.as_str())];
    assert!(scenario(&without), "no harm is done without {name}");
}

/// A node that holds no replica of the key.
fn outsider(cluster: &Cluster, key: &str) -> u32 {
    let replicas = cluster.replicas(key);
    let mut outside = cluster.ids().filter(|id| !replicas.contains(id));
    outside.next().expect("not every node holds the key")
}

/// Waits until a node's log holds a text, synced or not.
fn await_in_log(cluster: &Cluster, id: u32, text: &str) {
    let holds = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let bytes = fs::read(&path).unwrap_or_default();
        name.starts_with("log.")
            && bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
    };
    eventually(&format!("{text} is in the log of {id}"), || {
        let mut files = fs::read_dir(cluster.data(id)).unwrap();
        let found = files.any(|file| holds(file.unwrap().path()));
        found.then_some(())
    });
}

/// The coordinator of `PUT k 1` has done it and cannot say so. `PUT k 2` is done meanwhile. Then
/// the first one is tried again elsewhere.
#[test]
fn without_the_dot_lookup_a_retry_is_applied_twice() {
    control(Rule::DotLookup, |switches| {
        let plan = Plan::of(&FIVE)
            .set("read_timeout_ms", 1200)
            .set("request_deadline_ms", 6000)
            .switched(switches)
            .proxied();
        let cluster = plan.start();
        let (coordinator, origin) = (cluster.replicas("k")[0], outsider(&cluster, "k"));
        let mut client = cluster.client(origin);
        cluster.network().cut(coordinator, origin);
        client.send(b"PUT k 1\n").unwrap();
        eventually("the first write is done", || cluster.get(coordinator, "k"));
        cluster.done(coordinator, "PUT k 2");
        assert_eq!(cluster.get(coordinator, "k").as_deref(), Some("2"));
        assert!(client.receive().unwrap().starts_with("OK "));
        cluster.get(coordinator, "k").as_deref() == Some("1")
    });
}

/// A `CAS` on its way to the coordinator is held up. The successor refuses its retry, and the client gets
/// the refusal. Later the condition is met, and the first try arrives.
#[test]
fn without_the_record_of_refusals_a_refusal_comes_true() {
    control(Rule::RefusalsRecorded, |switches| {
        let plan = Plan::of(&FIVE).set("read_timeout_ms", 300).proxied();
        let cluster = plan.switched(switches).start();
        let (coordinator, origin) = (cluster.replicas("k")[0], outsider(&cluster, "k"));
        cluster.done(coordinator, "PUT k old");
        cluster.network().cut(origin, coordinator);
        let refused = cluster.call(origin, "CAS k - new");
        assert!(refused.starts_with("CONFLICT "), "{refused}");
        cluster.done(coordinator, "DEL k");
        cluster.network().heal();
        cluster.await_sight(origin, coordinator, "up");
        // This delete waits for its turn behind the late request. There is something to delete only if the
        // late request has created the key.
        cluster.call(coordinator, "DEL k").starts_with("OK ")
    });
}

/// A write that reached nobody else is given up, and so is the next one.
#[test]
fn with_a_memory_that_outlives_a_failure_a_ballot_carries_two_states() {
    control(Rule::MemoryDropped, |switches| {
        let plan = Plan::of(&THREE).set("request_deadline_ms", 400);
        let cluster = plan.switched(switches).start();
        let [coordinator, others @ ..] = &cluster.replicas("k")[..] else {
            unreachable!("three nodes hold it")
        };
        cluster.done(*coordinator, "PUT k 1");
        others.iter().for_each(|&other| cluster.pause(other));
        for value in [2, 3] {
            let reply = cluster.call(*coordinator, &format!("PUT k {value}"));
            assert!(reply.starts_with("ERROR UNKNOWN "), "{reply}");
        }
        let log = cluster.log(*coordinator);
        log.contains("BROKEN INVARIANT: two states at ballot")
    });
}

/// Every disk hangs in a sync while a write is acknowledged. Then all processes are killed.
#[test]
fn with_votes_told_before_they_are_durable_an_acknowledged_write_is_lost() {
    control(Rule::AcceptDurable, |switches| {
        let plan = Plan::of(&THREE).set("request_deadline_ms", 400);
        let cluster = plan.switched(switches).lay_out();
        let slow = cluster.file(0).with_extension("slow");
        let switch = ("DYNAMO_SLOW_DISK", slow.to_str().unwrap());
        let all = || THREE.into_iter();
        all().for_each(|id| cluster.start_node_with(id, &[switch]));
        cluster.await_all_ready();
        let coordinator = cluster.replicas("k")[0];
        let mut client = cluster.client(coordinator);
        assert!(client.call("PUT k one").unwrap().starts_with("OK "));
        // A listing shows only what is durable, so no disk is still busy with the first write.
        all().for_each(|id| {
            let is_listed = || (!cluster.own_pairs(id).is_empty()).then_some(());
            eventually(&format!("the first write is durable on {id}"), is_listed);
        });
        fs::write(&slow, "60000").unwrap();
        client.call("PUT k two").unwrap();
        all().for_each(|id| await_in_log(&cluster, id, "two"));
        let acknowledged = client.call("PUT k three").unwrap().starts_with("OK ");
        all().for_each(|id| cluster.kill(id));
        all().for_each(|id| cluster.start_node(id));
        cluster.await_all_ready();
        acknowledged && cluster.get(coordinator, "k").as_deref() != Some("three")
    });
}

/// A replica promises, is killed while its disk hangs, and is asked for a lower ballot.
#[test]
fn with_promises_told_before_they_are_durable_a_promise_is_broken() {
    control(Rule::PromiseDurable, |switches| {
        let cluster = Plan::of(&THREE).switched(switches).lay_out();
        let (replica, peer) = (5554, 5556);
        let slow = cluster.file(0).with_extension("slow");
        let switch = ("DYNAMO_SLOW_DISK", slow.to_str().unwrap());
        let all = || THREE.into_iter();
        all().for_each(|id| cluster.start_node_with(id, &[switch]));
        cluster.await_all_ready();
        cluster.kill(peer);
        fs::write(&slow, "60000").unwrap();
        let mut impostor = Impostor::greet(&cluster, peer, replica);
        impostor.ask(prepare("another", 1));
        await_in_log(&cluster, replica, "another");
        let higher = impostor.ask(prepare("k", 9));
        let promised = is_promise(impostor.replies(), higher);
        cluster.kill(replica);
        fs::remove_file(&slow).unwrap();
        cluster.restart(replica);
        let mut impostor = Impostor::greet(&cluster, peer, replica);
        let lower = impostor.ask(prepare("k", 8));
        let mut replies = Vec::new();
        eventually("the lower ballot is answered", || {
            replies.extend(impostor.replies());
            replies.iter().any(|(id, _)| *id == lower).then_some(())
        });
        promised && is_promise(replies, lower)
    });
}

fn prepare(key: &str, round: u64) -> Request {
    Request::Vote {
        key: key.into(),
        vote: VoteRequest::Prepare(Ballot::first(round, NodeId(5556))),
    }
}

fn is_promise(replies: Vec<(u64, Reply)>, to: u64) -> bool {
    let promises = |(id, reply): (u64, Reply)| {
        id == to && matches!(reply, Reply::Vote(VoteReply::Promised(_)))
    };
    replies.into_iter().any(promises)
}

/// Two of three replicas overlap only with two of the same three.
#[test]
fn without_the_check_a_node_votes_on_keys_that_are_not_its_own() {
    control(Rule::OwnKeysOnly, |switches| {
        let cluster = Plan::of(&FIVE).switched(switches).start();
        let (outsider, peer) = (outsider(&cluster, "k"), cluster.replicas("k")[0]);
        cluster.kill(peer);
        let mut impostor = Impostor::greet(&cluster, peer, outsider);
        impostor.ask(Request::Vote {
            key: "k".into(),
            vote: VoteRequest::Read { state: false },
        });
        matches!(impostor.replies()[..], [(_, Reply::Vote(_))])
    });
}

/// A write is on two replicas. One of them comes back without its folder, and the other is down. The two that
/// are up know nothing of the write, and must not say that there is no such key.
#[test]
fn without_the_copy_a_node_that_lost_its_folder_votes_a_write_away() {
    control(Rule::LostFolderCopied, |switches| {
        let cluster = Cluster::start(&THREE);
        let [holder, loser, absent] = THREE;
        cluster.kill(absent);
        cluster.done(holder, "PUT k precious");
        cluster.kill(holder);
        cluster.kill(loser);
        cluster.wipe(loser);
        cluster.start_node(absent);
        cluster.start_node_with(loser, switches);
        cluster.await_answer(absent);
        cluster.await_answer(loser);
        cluster.await_sight(absent, loser, "up");
        cluster.await_sight(loser, absent, "up");
        cluster.call(absent, "GET k") == "NOT_FOUND"
    });
}

/// A write is on A and B alone, and A's folder is put back as it was before the write. Then B is cut off, and
/// A and C are a quorum that has never seen the write.
#[test]
fn with_votes_of_a_folder_that_was_put_back_an_acknowledged_write_is_lost() {
    control(Rule::OldFolderDiscarded, |switches| {
        let plan = Plan::of(&THREE).set("read_timeout_ms", 600).proxied();
        let plan = plan.set("request_deadline_ms", 3000).switched(switches);
        let cluster = plan.start();
        let [a, b, c] = THREE;
        let backup = cluster.data(a).with_extension("backup");
        cluster.terminate(a);
        folder::copy(&cluster.data(a), &backup);
        cluster.restart(a);
        cluster.kill(c);
        cluster.done(a, "PUT k precious");
        cluster.kill(a);
        cluster.wipe(a);
        folder::copy(&backup, &cluster.data(a));
        // C must not hear of the write, and A only after it votes.
        cluster.network().cut(b, c);
        cluster.network().delay(b, a, Duration::from_millis(200));
        cluster.start_node(c);
        cluster.start_node(a);
        cluster.await_vote(c);
        eventually("it votes, or knows that it must not", || {
            let votes = cluster.stat(a, "votes")? == "yes";
            let discards = cluster.log(a).contains("put back from an older copy");
            (votes || discards).then_some(())
        });
        cluster.network().isolate(b);
        cluster.call(c, "GET k") == "NOT_FOUND"
    });
}
