//! The strategy chain, as clients and operators see it: what is refused, what is told, how a node comes back, and
//! that what is deleted stays deleted. `chain_faults.rs` has the failures of members.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::cluster::{Cluster, FIVE, Plan, THREE, dynamo, eventually};
use crate::support::process;
use crate::tombstones;

/// A cluster that runs chains.
pub fn chained(ids: &[u32]) -> Plan {
    Plan::of(ids).set("strategy", "chain")
}

/// The members of a key's chain, from head to tail, while all are there.
pub fn chain_of(cluster: &Cluster, key: &str) -> [u32; 3] {
    let replicas = cluster.replicas(key);
    replicas.try_into().expect("three nodes hold it")
}

/// A key that a node holds at this place of the preference list: 0 for the head, 2 for the tail.
pub fn key_at(cluster: &Cluster, id: u32, place: usize) -> String {
    let mut all = (0..).map(|number| format!("key{number}"));
    all.find(|key| cluster.replicas(key)[place] == id).unwrap()
}

/// The chain of a key as a node tells it: `3.5554: 5554 -> 5556 -> 5558` for epoch 3.5554.
fn told(cluster: &Cluster, id: u32, key: &str) -> Option<String> {
    let reply = cluster.call(id, &format!("WHERE {key}"));
    let (_, chain) = reply.split_once(" epoch ")?;
    Some(chain.to_owned())
}

/// Waits until a node tells that a key's chain is this one.
fn await_chain(cluster: &Cluster, id: u32, key: &str, chain: &str) -> String {
    eventually(&format!("node {id} tells {chain}"), || {
        let told = told(cluster, id, key)?;
        let (epoch, members) = told.split_once(": ")?;
        (members == chain).then(|| epoch.to_owned())
    })
}

/// Puts these keys through a node, and asserts that it is done.
fn put_all(cluster: &Cluster, id: u32, keys: &[String], value: &str) {
    let mut client = cluster.client(id);
    for key in keys {
        let reply = client.call(&format!("PUT {key} {value}")).unwrap();
        assert!(reply.starts_with("OK "), "PUT {key} through {id}: {reply}");
    }
}

/// What the program says of a cluster file that it refuses.
fn refusal(plan: Plan) -> String {
    let cluster = plan.lay_out();
    let output = process::run(&mut dynamo(&["nodes"], &cluster.file(5554)), "");
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_cluster_file_that_makes_no_sense_for_a_chain_is_refused_and_says_why() {
    let text = refusal(Plan::of(&THREE).set("strategy", "chains"));
    let words = "strategy: unknown variant `chains`, expected `quorum` or `chain`";
    assert!(text.contains(words), "{text}");
    for quorum in ["read_quorum", "write_quorum"] {
        let text = refusal(chained(&THREE).set(quorum, 2));
        let no_meaning = format!("{quorum} has no meaning with the strategy chain");
        assert!(text.contains(&no_meaning), "{text}");
        assert!(
            text.contains("all members of a chain hold each write"),
            "{text}"
        );
    }
    for replicas in [2, 4, 5] {
        let text = refusal(chained(&FIVE).set("replicas", replicas));
        assert!(
            text.contains(&format!("replicas is {replicas}: ")),
            "{text}"
        );
        assert!(!text.contains("_quorum"), "{text}");
    }
}

#[test]
fn a_data_folder_of_the_other_strategy_is_refused_by_name() {
    let plans = ["quorum", "chain"].map(|name| Plan::of(&THREE).set("strategy", name).lay_out());
    for (made, now) in [(0, 1), (1, 0)] {
        let (made, now) = (&plans[made], &plans[now]);
        made.start_node(5554);
        made.await_answer(5554);
        made.terminate(5554);
        let folder = made.data(5554);
        let options = ["node", "5554", "--data", folder.to_str().unwrap()];
        let output = process::run(&mut dynamo(&options, &now.file(5554)), "");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        let named = ["made with the strategy quorum", "cluster file says chain"];
        let reversed = ["made with the strategy chain", "cluster file says quorum"];
        let holds = |words: [&str; 2]| words.iter().all(|word| text.contains(word));
        assert!(holds(named) || holds(reversed), "{text}");
    }
}

#[test]
fn a_peer_of_the_other_strategy_is_refused_and_the_log_says_so() {
    let cluster = chained(&THREE).lay_out();
    let file = fs::read_to_string(cluster.file(5556)).unwrap();
    fs::write(cluster.file(5556), file.replace("\"chain\"", "\"quorum\"")).unwrap();
    cluster.start_node(5554);
    cluster.start_node(5556);
    for (id, [first, second]) in [
        (
            5554,
            ["node 5556 runs the strategy quorum", "node 5554 chain"],
        ),
        (
            5556,
            ["node 5554 runs the strategy chain", "node 5556 quorum"],
        ),
    ] {
        let why = format!("{first}, and {second}: give all nodes the same cluster file");
        eventually("the node logs it", || {
            cluster.log(id).contains(&why).then_some(())
        });
    }
}

#[test]
fn where_and_stats_and_the_log_tell_who_is_in_the_chain_of_a_key() {
    let cluster = chained(&FIVE).start();
    let [head, middle, tail] = chain_of(&cluster, "foo");
    let whole = format!("{head} -> {middle} -> {tail}");
    let short = format!("{head} -> {tail}");
    let first = await_chain(&cluster, head, "foo", &whole);
    let line = format!("epoch {first}: {whole}");
    assert_eq!(cluster.stat(tail, &format!("chain_{head}")), Some(line));
    cluster.kill(middle);
    cluster.done(head, "PUT foo 1");
    let without = format!("{short}, without {middle} (silent)");
    for id in [head, tail] {
        let epoch = await_chain(&cluster, id, "foo", &without);
        let begins = format!(
            "range of {head}: epoch {epoch} of {short} begins, proposed by this node without {middle}: moved "
        );
        eventually("the log of one node says so", || {
            let logs: String = cluster.ids().map(|id| cluster.log(id)).collect();
            let start = format!("range of {head}: epoch {epoch} ");
            assert!(logs.matches(&start).count() <= 1, "{logs}");
            logs.contains(&begins).then_some(())
        });
    }
    cluster.start_node(middle);
    await_chain(
        &cluster,
        head,
        "foo",
        &format!("{short}, without {middle} (catching up)"),
    );
    for id in [head, middle, tail] {
        await_chain(&cluster, id, "foo", &whole);
    }
    // Who is no replica knows no chain.
    let outside = FIVE
        .into_iter()
        .find(|id| ![head, middle, tail].contains(id));
    assert_eq!(told(&cluster, outside.unwrap(), "foo"), None);
}

#[test]
fn a_node_that_returns_while_thousands_of_keys_are_written_has_them_all_and_serves() {
    let (writers, each) = (4, 500);
    let cluster = chained(&FIVE).start();
    let back = 5558;
    let others = FIVE.map(|id| if id == back { 5560 } else { id });
    cluster.kill(back);
    let keys: Vec<String> = (0..writers * each).map(|it| format!("key{it}")).collect();
    let written = AtomicUsize::new(0);
    thread::scope(|scope| {
        for (id, keys) in others.into_iter().zip(keys.chunks(each)) {
            let (cluster, written) = (&cluster, &written);
            scope.spawn(move || {
                for some in keys.chunks(10) {
                    put_all(cluster, id, some, "v");
                    written.fetch_add(some.len(), Ordering::Relaxed);
                }
            });
        }
        eventually("some are written", || {
            (written.load(Ordering::Relaxed) > keys.len() / 10).then_some(())
        });
        cluster.start_node(back);
    });
    cluster.await_ready(back);
    cluster.await_whole_chains(back);
    cluster.assert_own_keys(back, &keys);
    for place in 0..3 {
        let key = key_at(&cluster, back, place);
        cluster.done(back, &format!("PUT {key} served"));
        assert_eq!(cluster.get(back, &key).as_deref(), Some("served"));
    }
}

/// A node that is away holds what was deleted.
#[test]
fn in_a_chain_tombstones_are_dropped_everywhere_and_a_deleted_key_stays_deleted() {
    let cluster = tombstones::soon().set("strategy", "chain").start();
    let keys: Vec<String> = cluster.keys_of(5554).take(20).collect();
    let away = chain_of(&cluster, &keys[0])[1];
    for deleted_while_away in [false, true] {
        put_all(&cluster, 5554, &keys, "there");
        if deleted_while_away {
            cluster.kill(away);
        }
        for key in &keys {
            // The deadline is short, and the chain may be changing.
            eventually("the key is deleted", || {
                let reply = cluster.call(5554, &format!("DEL {key}"));
                (reply.starts_with("OK ") || reply == "NOT_FOUND").then_some(())
            });
        }
        if deleted_while_away {
            tombstones::await_looks(&cluster, 5554);
            assert_eq!(cluster.stat(5554, "tombstones").as_deref(), Some("20"));
            cluster.restart(away);
        }
        tombstones::await_no_tombstones(&cluster, &FIVE);
        for id in FIVE {
            assert_eq!(cluster.own_keys(id), BTreeSet::new());
            assert_eq!(cluster.get(id, &keys[0]), None);
        }
    }
}

#[test]
fn in_a_chain_a_node_that_lost_its_folder_copies_everything_and_is_in_its_chains_again() {
    let cluster = chained(&FIVE).start();
    let lost = 5558;
    let keys: Vec<String> = (0..200).map(|number| format!("key{number}")).collect();
    put_all(&cluster, 5554, &keys, "1");
    cluster.kill(lost);
    cluster.wipe(lost);
    put_all(&cluster, 5554, &keys, "2");
    cluster.start_node(lost);
    put_all(&cluster, 5554, &keys[..100], "3");
    cluster.await_ready(lost);
    cluster.await_whole_chains(lost);
    let log = cluster.log(lost);
    assert!(log.contains("copied from all other replicas"), "{log}");
    cluster.assert_own_keys(lost, &keys);
    // Its copy is one of the two that remain.
    let [_, other, _] = chain_of(&cluster, &key_at(&cluster, lost, 0));
    cluster.kill(other);
    for (number, key) in keys.iter().enumerate() {
        let value = if number < 100 { "3" } else { "2" };
        if cluster.replicas(key).contains(&lost) {
            assert_eq!(cluster.get(lost, key).as_deref(), Some(value), "{key}");
        }
    }
}

/// A value of quotes and of bytes without a sign takes several times its length between nodes. Two of them are more
/// than one message.
#[test]
fn a_member_takes_long_values_of_which_no_two_go_into_one_message() {
    let cluster = chained(&THREE).start();
    let [head, _, tail] = chain_of(&cluster, "foo");
    let keys: Vec<String> = cluster.keys_of(head).take(2).collect();
    cluster.await_whole_chains(head);
    cluster.kill(tail);
    let value = format!("\"{}\"", "\\u0001\\\"\\\"\\\"\\\"".repeat(209_715));
    for key in &keys {
        eventually("it is put", || {
            let reply = cluster.call(head, &format!("PUT {key} {value}"));
            reply.starts_with("OK ").then_some(())
        });
    }
    cluster.restart(tail);
    cluster.await_whole_chains(tail);
    for key in &keys {
        assert_eq!(cluster.get(tail, key), cluster.get(head, key));
    }
}
