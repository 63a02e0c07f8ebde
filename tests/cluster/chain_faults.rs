//! Members of chains that are killed, stopped, cut off, or whose disk hangs.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::chain::{chain_of, chained, key_at};
use crate::support::asking::DEADLINE;
use crate::support::cluster::{Cluster, FIVE, THREE, eventually};
use crate::support::raw::Raw;
use crate::support::workload::{Habits, Workload, assert_linearizable};

/// A sync that does not end while a test runs.
const HANGS: Duration = Duration::from_secs(600);
/// How many reads a stopped tail finds before the write, and after it.
const READS: usize = 5;

#[test]
fn any_one_member_of_a_chain_is_killed_and_requests_go_on_and_nothing_is_lost() {
    let cluster = chained(&FIVE).start();
    let keys = ["foo", "key38", "key15", "hello", "key0", "alice"];
    let workload = Workload {
        cluster: &cluster,
        clients: 6,
        keys: &keys,
        seed: 8,
    };
    let (observed, ()) = workload.run(|progress| {
        for id in chain_of(&cluster, "foo") {
            progress.await_more(50);
            cluster.kill(id);
            progress.await_more(300);
            cluster.start_node(id);
            cluster.await_whole_chains(id);
        }
    });
    assert_eq!(observed.refused, 0, "{:?}", observed.examples);
    assert!(observed.longest < DEADLINE, "{:?}", observed.longest);
    assert_linearizable(&observed);
    let there = |key: &&str| cluster.get(5554, key).is_some();
    let there: Vec<String> = keys.iter().copied().filter(there).map(Into::into).collect();
    for id in chain_of(&cluster, "foo") {
        cluster.assert_own_keys(id, &there);
    }
}

/// The tail is stopped with reads in its socket, the others form a chain and write a new value, and the tail goes
/// on. Returns how often it answered with the old value.
fn stale_replies_of_a_tail_that_was_stopped(cluster: &Cluster, round: usize) -> usize {
    let [head, _, tail] = chain_of(cluster, "foo");
    let mut client = Raw::connect(&cluster.address(tail));
    cluster.done(head, &format!("PUT foo old{round}"));
    client.send("GET foo\n");
    let old = client.line();
    assert!(old.ends_with(&format!(" old{round}\n")), "{old}");
    cluster.pause(tail);
    client.send("GET foo\n".repeat(READS));
    cluster.done(head, &format!("PUT foo new{round}"));
    client.send("GET foo\n".repeat(READS));
    cluster.resume(tail);
    let replies: Vec<String> = (0..2 * READS).map(|_| client.line()).collect();
    let stale = replies.iter().filter(|reply| **reply == old).count();
    let is_new = |reply: &String| reply.ends_with(&format!(" new{round}\n"));
    let is_known = |reply: &String| is_new(reply) || reply.starts_with("ERROR UNAVAILABLE ");
    let known = replies.iter().filter(|reply| is_known(reply)).count();
    assert_eq!(stale + known, replies.len(), "{replies:?}");
    stale
}

/// Kills all nodes and starts them again: all are in their chains at once, and none remembers for how long it is
/// to stay away.
fn begin_anew(cluster: &Cluster) {
    cluster.ids().for_each(|id| cluster.kill(id));
    cluster.ids().for_each(|id| cluster.start_node(id));
    cluster.await_all_ready();
}

/// There are 20 rounds, or as many as the environment variable `DYNAMO_ROUNDS` says.
#[test]
fn a_tail_that_was_stopped_answers_no_read_with_a_value_that_another_chain_has_replaced() {
    let rounds = std::env::var("DYNAMO_ROUNDS").ok();
    let rounds: usize = rounds.map_or(20, |text| text.parse().expect("a number"));
    let at_a_time = 4;
    thread::scope(|scope| {
        for first in 0..at_a_time {
            scope.spawn(move || {
                let cluster = chained(&THREE).start();
                for round in (first..rounds).step_by(at_a_time) {
                    let stale = stale_replies_of_a_tail_that_was_stopped(&cluster, round);
                    assert_eq!(stale, 0, "stale replies in round {round}");
                    begin_anew(&cluster);
                }
            });
        }
    });
}

#[test]
#[cfg(debug_assertions)]
fn without_the_confirmation_of_reads_a_tail_that_was_stopped_answers_with_the_old_value() {
    let without = [("DYNAMO_LEAVE_OUT", "ReadsConfirmed")];
    let cluster = chained(&THREE).switched(&without).start();
    let mut rounds = 0..10;
    let is_stale = |round| {
        let stale = stale_replies_of_a_tail_that_was_stopped(&cluster, round) > 0;
        begin_anew(&cluster);
        stale
    };
    assert!(rounds.any(is_stale), "no stale reply in any round");
}

/// Sends requests through each node that is up while two of a key's replicas are dead, and then starts one of the
/// two. Returns whether any was acknowledged before that.
fn is_acknowledged_with_one_copy(switches: &[(&str, &str)]) -> bool {
    let cluster = chained(&FIVE).switched(switches).start();
    let [head, middle, tail] = chain_of(&cluster, "foo");
    let version = cluster.done(head, "PUT foo 1");
    cluster.kill(middle);
    cluster.kill(tail);
    let requests = ["PUT foo 2".into(), "GET foo".into(), "DEL foo".into()];
    let swap = format!("CAS foo {version} 3");
    let mut acknowledged = false;
    thread::scope(|scope| {
        let running = FIVE.into_iter().filter(|id| ![middle, tail].contains(id));
        let replies = running.map(|id| {
            let requests = requests.iter().chain([&swap]);
            let each = requests.map(|request: &String| {
                let cluster = &cluster;
                scope.spawn(move || cluster.timed(id, request).0)
            });
            Vec::from_iter(each)
        });
        for reply in Vec::from_iter(replies).into_iter().flatten() {
            let reply = reply.join().unwrap();
            let errors = ["ERROR UNAVAILABLE ", "ERROR UNKNOWN "];
            acknowledged |= !errors.iter().any(|error| reply.starts_with(error));
        }
    });
    cluster.start_node(middle);
    cluster.await_answer(middle);
    eventually("two replicas are enough", || {
        let done = cluster.call(head, "PUT foo 4").starts_with("OK ");
        done.then_some(())
    });
    eventually("the other one of the two reads it", || {
        let read = cluster.call(middle, "GET foo");
        (read.starts_with("VALUE ") && read.ends_with(" 4")).then_some(())
    });
    acknowledged
}

#[test]
fn with_two_of_three_members_dead_nothing_is_acknowledged_until_one_of_them_is_back() {
    assert!(!is_acknowledged_with_one_copy(&[]));
}

#[test]
#[cfg(debug_assertions)]
fn without_the_least_length_of_a_chain_a_write_is_acknowledged_with_one_copy() {
    assert!(is_acknowledged_with_one_copy(&[(
        "DYNAMO_LEAVE_OUT",
        "TwoCopies"
    )]));
}

#[test]
fn a_member_whose_disk_hangs_is_left_out_of_each_of_its_chains_within_a_second() {
    let cluster = chained(&FIVE).start();
    let hangs = 5558;
    let keys = [0, 1, 2].map(|place| key_at(&cluster, hangs, place));
    let origins = FIVE.into_iter().filter(|id| *id != hangs);
    cluster.slow_disk(hangs, HANGS);
    let put = |key: &str, origin: u32| {
        let (reply, took) = cluster.timed(origin, &format!("PUT {key} v"));
        assert!(reply.starts_with("OK "), "{key} after {took:?}: {reply}");
        took
    };
    for (place, (key, origin)) in keys.iter().zip(origins.clone()).enumerate() {
        let took = put(key, origin);
        println!("with a disk that hangs at place {place} of the chain a write took {took:?}");
        assert!(took < Duration::from_secs(1), "place {place}: {took:?}");
    }
    for key in &keys {
        let mut times: Vec<Duration> = origins.clone().map(|origin| put(key, origin)).collect();
        times.sort_unstable();
        assert!(times[1] < Duration::from_millis(200), "{key}: {times:?}");
        assert_eq!(cluster.get(5554, key).as_deref(), Some("v"));
    }
    let log = cluster.log(hangs);
    assert!(
        log.contains("the disk hangs: this node serves no chain"),
        "{log}"
    );
    cluster.heal_disk(hangs);
    cluster.await_whole_chains(hangs);
}

/// How many chains have begun so far, by the head of the whole chain.
fn chains_begun(cluster: &Cluster) -> BTreeMap<String, usize> {
    let mut begun = BTreeMap::new();
    for id in cluster.ids() {
        let log = cluster.log(id);
        let begins = log.lines().filter(|line| line.contains(" begins, "));
        for line in begins {
            let (_, rest) = line.split_once("range of ").expect("it names the range");
            let (owner, _) = rest.split_once(": ").expect("it tells the epoch");
            *begun.entry(owner.to_owned()).or_default() += 1;
        }
    }
    begun
}

#[test]
fn a_one_way_cut_changes_no_chain_more_than_once_a_second_and_requests_go_on() {
    let cluster = chained(&FIVE).proxied().start();
    let [head, middle, _] = chain_of(&cluster, "foo");
    let seconds = 10;
    let before = chains_begun(&cluster);
    assert_eq!(before.len(), FIVE.len(), "{before:?}");
    let workload = Workload {
        cluster: &cluster,
        clients: 6,
        keys: &["foo", "key38", "key15", "hello", "key0", "alice"],
        seed: 9,
    };
    let habits = Habits {
        think: Duration::from_millis(40),
        settled: false,
    };
    let (observed, after) = workload.run_with(habits, |progress| {
        cluster.network().cut(head, middle);
        for second in 1..=seconds {
            let answered = progress.answered();
            thread::sleep(Duration::from_secs(1));
            let more = progress.answered() - answered;
            assert!(
                more > 0,
                "nothing is answered in second {second} of the cut"
            );
        }
        let after = chains_begun(&cluster);
        cluster.network().heal();
        cluster.await_sight(head, middle, "up");
        after
    });
    for (owner, count) in after {
        let changes = count - before.get(&owner).copied().unwrap_or(0);
        println!("the chain of {owner} changed {changes} times in {seconds} s");
        assert!(changes < seconds, "{owner}: {changes}");
    }
    println!("refused: {} {:?}", observed.refused, observed.examples);
    assert!(observed.longest < DEADLINE, "{:?}", observed.longest);
    assert_linearizable(&observed);
    cluster.ids().for_each(|id| cluster.await_whole_chains(id));
}

#[test]
fn who_waits_for_the_tail_of_a_chain_is_not_taken_for_silent() {
    // Long enough that no node of a busy machine seems silent, and shorter than the time after which nodes that
    // have nothing to say ask each other for a sign of life.
    let plan = chained(&FIVE).set("read_timeout_ms", 250);
    let cluster = plan.start();
    let [head, middle, tail] = chain_of(&cluster, "foo");
    cluster.done(head, "PUT foo 1");
    cluster.pause(tail);
    let began = Instant::now();
    cluster.done(head, "PUT foo 2");
    let took = began.elapsed();
    assert!(took > Duration::from_millis(200), "nobody waited: {took:?}");
    cluster.await_sight(middle, tail, "suspect");
    for id in FIVE.into_iter().filter(|id| *id != tail) {
        let log = cluster.log(id);
        let mut suspicions = log.lines().filter(|line| line.ends_with(": suspect"));
        let of_tail = format!("{tail} is silent for ");
        assert!(suspicions.all(|line| line.contains(&of_tail)), "{log}");
    }
    cluster.resume(tail);
}
