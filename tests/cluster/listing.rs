//! `@` and `*` are complete, without duplicates and without old pairs, and do not wait for a node that is
//! down.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::asking::DEADLINE;
use crate::support::cluster::{Cluster, FIVE, Plan, THREE, eventually};
use crate::support::workload::StopWhenDone;

/// Key and value of each line. A key that comes twice fails the test.
fn pairs(lines: Vec<String>) -> BTreeMap<String, String> {
    let mut pairs = BTreeMap::new();
    for line in lines {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let ["PAIR", key, _, value] = words[..] else {
            panic!("{line:?} is no pair");
        };
        let before = pairs.insert(key.to_owned(), value.to_owned());
        assert!(before.is_none(), "{key} is there twice");
    }
    pairs
}

fn all_pairs(cluster: &Cluster, id: u32) -> BTreeMap<String, String> {
    pairs(cluster.list(id, "GET *").unwrap())
}

fn own_pairs(cluster: &Cluster, id: u32) -> BTreeMap<String, String> {
    pairs(cluster.own_pairs(id))
}

/// Writes `key0`, `key1` and so on.
fn write(cluster: &Cluster, id: u32, count: usize, value: &str) -> BTreeMap<String, String> {
    let mut client = cluster.client(id);
    let mut written = BTreeMap::new();
    for number in 0..count {
        let key = format!("key{number}");
        let reply = client.call(&format!("PUT {key} {value}")).unwrap();
        assert!(reply.starts_with("OK "), "PUT {key}: {reply}");
        written.insert(key, value.to_owned());
    }
    written
}

#[test]
fn each_node_lists_the_keys_of_its_three_ranges_and_every_node_lists_all() {
    let cluster = Cluster::start(&FIVE);
    for id in FIVE {
        assert_eq!(cluster.list(id, "GET *").unwrap(), [""; 0]);
        assert_eq!(cluster.own_pairs(id), [""; 0]);
    }
    let written = write(&cluster, 5554, 100, "v");
    for id in FIVE {
        assert_eq!(all_pairs(&cluster, id), written, "through {id}");
        cluster.assert_own_keys(id, written.keys());
    }
}

/// A write may reach the third replica after it was acknowledged. A listing that did not ask the other
/// replicas would lack it.
#[test]
fn what_was_just_acknowledged_is_in_the_listing_of_each_replica() {
    let cluster = Cluster::start(&THREE);
    let mut clients = THREE.map(|id| cluster.client(id));
    for number in 0..50 {
        let reply = clients[number % 3].call(&format!("PUT key{number} v"));
        assert!(reply.unwrap().starts_with("OK "));
        for id in THREE {
            let listed = cluster.list(id, "GET @").unwrap().len();
            assert_eq!(listed, number + 1, "on {id}");
        }
    }
}

#[test]
fn a_node_that_is_cut_off_does_not_call_its_listing_complete() {
    let cluster = Plan::of(&THREE).proxied().start();
    cluster.done(5554, "PUT before v");
    for cut in THREE {
        cluster.network().isolate(cut);
        let other = THREE.into_iter().find(|id| *id != cut).unwrap();
        cluster.done(other, &format!("PUT without-{cut} v"));
        // The first time the node may not have noticed yet that it is cut off. The second time it has.
        for sight in ["up or suspect", "suspect"] {
            for request in ["GET @", "DEL @"] {
                let reply = cluster.call(cut, request);
                let expected = format!("ERROR UNAVAILABLE node {cut} may lack writes: ");
                assert!(reply.starts_with(&expected), "{request}, {sight}: {reply}");
            }
            cluster.await_sight(cut, other, "suspect");
        }
        // The others are each other's witness.
        assert!(own_pairs(&cluster, other).contains_key(&format!("without-{cut}")));
        cluster.network().heal();
        assert!(own_pairs(&cluster, cut).contains_key(&format!("without-{cut}")));
        THREE.iter().for_each(|&id| cluster.await_ready(id));
    }
}

#[test]
fn with_one_node_down_or_paused_all_pairs_are_listed_once_and_fresh() {
    let cluster = Cluster::start(&FIVE);
    write(&cluster, 5554, 100, "old");
    for (value, pause) in [("killed", false), ("paused", true)] {
        if pause {
            cluster.pause(5556);
        } else {
            cluster.kill(5556);
        }
        let began = Instant::now();
        all_pairs(&cluster, 5554);
        let took = began.elapsed();
        assert!(
            took < Duration::from_secs(3),
            "with a node {value} GET * took {took:?}"
        );
        let written = write(&cluster, 5558, 100, value);
        for id in FIVE.into_iter().filter(|id| *id != 5556) {
            assert_eq!(
                all_pairs(&cluster, id),
                written,
                "through {id}, a node {value}"
            );
        }
        if pause {
            cluster.resume(5556);
        } else {
            cluster.start_node(5556);
            cluster.await_answer(5556);
        }
        // The node lacks all these writes, and must not list the old values instead.
        let fresh = eventually("GET * through the one that is back", || {
            cluster.list(5556, "GET *").ok()
        });
        assert_eq!(pairs(fresh), written);
        for (key, value) in own_pairs(&cluster, 5556) {
            assert_eq!(value, written[&key], "{key}");
        }
        // While the others still suspect the node, they would not notice that it is paused next.
        for id in FIVE.into_iter().filter(|id| *id != 5556) {
            cluster.await_sight(id, 5556, "up");
        }
    }
}

#[test]
fn with_two_replicas_of_a_range_down_all_pairs_are_refused_and_the_text_says_why() {
    let cluster = Cluster::start(&FIVE);
    write(&cluster, 5554, 20, "v");
    cluster.kill(5556);
    cluster.kill(5562);
    let error = cluster.list(5554, "GET *").unwrap_err();
    assert!(
        error.starts_with("ERROR UNAVAILABLE only 1 of the 2 replicas needed of "),
        "{error}"
    );
    let reply = cluster.call(5554, "DEL *");
    assert!(reply.starts_with("ERROR UN"), "{reply}");
}

#[test]
fn where_some_keys_cannot_be_deleted_the_reply_says_how_many_were_and_that_others_may_be() {
    let cluster = Cluster::start(&FIVE);
    let written = write(&cluster, 5554, 30, "v");
    // Node 5554 holds keys of three ranges. Its own range is left with one disk that works, the others with two.
    let own = cluster.assert_own_keys(5554, written.keys());
    cluster.kill(5558);
    cluster.slow_disk(5560, Duration::from_secs(20));
    let (lost, left): (Vec<_>, Vec<_>) = own
        .into_iter()
        .partition(|key| cluster.replicas(key)[0] == 5554);
    assert!(!lost.is_empty() && !left.is_empty());
    let reply = cluster.call(5554, "DEL @");
    let expected = format!(
        "ERROR UNKNOWN {} keys are deleted, and others may",
        left.len()
    );
    assert!(reply.starts_with(&expected), "{reply}");
    for key in left {
        assert_eq!(cluster.get(5556, &key), None, "{key}");
    }
}

#[test]
fn what_was_deleted_with_a_star_while_a_node_was_down_stays_deleted() {
    let cluster = Plan::of(&FIVE).set("anti_entropy_ms", 200).start();
    let written = write(&cluster, 5554, 200, "v");
    cluster.kill(5556);
    assert_eq!(cluster.call(5554, "DEL *"), format!("OK {}", written.len()));
    assert_eq!(cluster.call(5558, "DEL *"), "OK 0");
    cluster.done(5558, "PUT after v");
    cluster.restart(5556);
    for id in FIVE {
        assert_eq!(
            all_pairs(&cluster, id).into_keys().collect::<Vec<_>>(),
            ["after"]
        );
        for (key, _) in own_pairs(&cluster, id) {
            assert_eq!(key, "after", "on {id}");
        }
        assert_eq!(cluster.get(id, "key7"), None);
    }
}

#[test]
fn deleting_what_one_node_holds_leaves_the_rest() {
    let cluster = Cluster::start(&FIVE);
    let written = write(&cluster, 5554, 200, "v");
    let own = cluster.assert_own_keys(5560, written.keys());
    assert_eq!(cluster.call(5560, "DEL @"), format!("OK {}", own.len()));
    let expected: BTreeMap<_, _> = written
        .into_iter()
        .filter(|(key, _)| !own.contains(key))
        .collect();
    for id in FIVE {
        assert_eq!(all_pairs(&cluster, id), expected, "through {id}");
    }
    assert_eq!(own_pairs(&cluster, 5560), BTreeMap::new());
}

/// Sends all lines before it reads a reply. The replies come in the order of the requests.
fn write_in_one_go(cluster: &Cluster, id: u32, numbers: &[usize]) {
    let mut client = cluster.client(id);
    let line = |number: &usize| format!("PUT key{number} {number}\n");
    let lines: String = numbers.iter().map(line).collect();
    client.send(lines.as_bytes()).unwrap();
    for number in numbers {
        let reply = client.receive().unwrap();
        assert!(reply.starts_with("OK "), "PUT key{number}: {reply}");
    }
}

#[test]
fn ten_thousand_pairs_are_written_in_one_go_and_listed_while_writes_go_on() {
    let cluster = Plan::of(&THREE).start();
    let count = 10_000;
    let numbers: Vec<usize> = (0..count).collect();
    thread::scope(|scope| {
        for (part, id) in numbers.chunks(1250).zip(THREE.into_iter().cycle()) {
            let cluster = &cluster;
            scope.spawn(move || write_in_one_go(cluster, id, part));
        }
    });
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut client = cluster.client(5556);
            let mut written = 0;
            while !stop.load(Ordering::Relaxed) {
                let number = written % count;
                let reply = client
                    .call(&format!("PUT key{number} {}", number + count))
                    .unwrap();
                assert!(reply.starts_with("OK "), "{reply}");
                written += 1;
            }
            written
        });
        let stop_writing = StopWhenDone(&stop);
        let listings = THREE.map(|id| all_pairs(&cluster, id));
        drop(stop_writing);
        for listing in listings {
            assert_eq!(listing.len(), count, "all pairs are there, each once");
            for (key, value) in listing {
                let number: usize = key.strip_prefix("key").unwrap().parse().unwrap();
                let value: usize = value.parse().unwrap();
                assert!(
                    value == number || value == number + count,
                    "{key} is {value}"
                );
            }
        }
        assert!(writer.join().unwrap() > 0);
    });
    assert_eq!(own_pairs(&cluster, 5558).len(), count);
}

#[test]
fn a_disk_that_hangs_holds_no_listing_up_for_longer_than_a_request_may_take() {
    let cluster = Cluster::start(&THREE);
    cluster.await_all_ready();
    cluster.slow_disk(5554, Duration::from_secs(20));
    let written = write(&cluster, 5556, 1, "v");
    let expected = "ERROR UNAVAILABLE the disk of node 5554 does not keep up";
    eventually(
        "the write is on its way to the disk, and GET @ says so",
        || {
            let error = cluster.list(5554, "GET @").err()?;
            error.starts_with(expected).then_some(())
        },
    );
    let began = Instant::now();
    assert_eq!(all_pairs(&cluster, 5554), written);
    let took = began.elapsed();
    assert!(took < DEADLINE, "{took:?}");
}

#[test]
fn listing_all_pairs_waits_within_the_deadline_for_a_replica_that_comes_back() {
    let cluster = Plan::of(&THREE).set("request_deadline_ms", 20_000).start();
    cluster.done(5554, "PUT key value");
    for id in [5556, 5558] {
        cluster.kill(id);
        cluster.await_sight(5554, id, "suspect");
    }
    let pairs = thread::scope(|scope| {
        let listing = scope.spawn(|| cluster.list(5554, "GET *"));
        cluster.restart(5558);
        listing.join().unwrap()
    });
    assert_eq!(pairs.map(|pairs| pairs.len()), Ok(1));
}
