//! A node that lost its folder has forgotten its votes. It copies everything before it votes again.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;
use simple_dynamo::protocol::ring::NodeId;
use simple_dynamo::protocol::{Accepted, Ballot, Operation, Outcome, Record, State, Why};
use simple_dynamo::storage::LogPosition;
use simple_dynamo::storage::PageEntry;
use simple_dynamo::storage::{Page, Standing};
use simple_dynamo::transport::message::{Known, Recognition, Reply, Request};

use crate::support::cluster::{Cluster, FIVE, Plan, THREE, eventually};
use crate::support::impostor::{Impostor, play};

#[test]
fn a_fresh_folder_in_a_running_cluster_is_filled_before_the_node_votes() {
    let cluster = Cluster::start(&FIVE);
    let lost = 5558;
    let keys: Vec<_> = (0..300).map(|number| format!("key{number}")).collect();
    let mut client = cluster.client(5554);
    for key in &keys {
        assert!(
            client
                .call(&format!("PUT {key} 1"))
                .unwrap()
                .starts_with("OK ")
        );
    }
    let before = cluster.assert_own_keys(lost, &keys);
    assert!(!before.is_empty());
    let storage = cluster.stat(lost, "storage").unwrap();
    cluster.kill(lost);
    cluster.wipe(lost);
    cluster.start_node(lost);
    // Requests go on meanwhile.
    for key in &keys[..100] {
        assert!(
            client
                .call(&format!("PUT {key} 2"))
                .unwrap()
                .starts_with("OK ")
        );
    }
    cluster.await_ready(lost);
    assert_ne!(cluster.stat(lost, "storage"), Some(storage));
    assert_eq!(
        cluster.stat(lost, "storage_standing").as_deref(),
        Some("whole")
    );
    let log = cluster.log(lost);
    let place = |text: &str| {
        log.rfind(text)
            .unwrap_or_else(|| panic!("no {text:?} in the log"))
    };
    let copying = place("an older data folder was lost: copying everything before voting");
    let copied = place("copied from all other replicas");
    let votes = place(&format!("{lost}: votes"));
    assert!(copying < copied && copied < votes);
    assert_eq!(cluster.own_keys(lost), before);
    // The copy counts: it is one of the two that remain.
    let own = cluster
        .keys_of(lost)
        .find(|key| keys.contains(key))
        .unwrap();
    let other = cluster.replicas(&own)[1];
    let value = cluster.get(5554, &own);
    cluster.kill(other);
    assert_eq!(cluster.get(lost, &own), value);
}

#[test]
fn a_node_that_lost_its_folder_does_not_vote_a_write_away() {
    let cluster = Cluster::start(&THREE);
    let (a, b, c) = (5554, 5556, 5558);
    // The write is on A and B alone,
    cluster.kill(c);
    let version = cluster.done(a, "PUT k precious");
    // B loses it, and A, who still has it, is down.
    cluster.kill(a);
    cluster.kill(b);
    cluster.wipe(b);
    cluster.start_node(c);
    cluster.start_node(b);
    cluster.await_answer(b);
    cluster.await_answer(c);
    cluster.await_sight(b, c, "up");
    cluster.await_sight(c, b, "up");
    for id in [b, c] {
        let read = cluster.call(id, "GET k");
        assert!(
            read.starts_with("ERROR UNAVAILABLE "),
            "through {id}: {read}"
        );
        let created = cluster.call(id, "CAS k - usurper");
        // The outcome is unknown if the request went to the killed node before the end of its connection was
        // noticed.
        assert!(created.starts_with("ERROR UN"), "through {id}: {created}");
    }
    assert_eq!(cluster.stat(b, "votes").as_deref(), Some("no"));
    cluster.restart(a);
    cluster.await_ready(b);
    for id in THREE {
        assert_eq!(
            cluster.call(id, "GET k"),
            format!("VALUE {version} precious"),
            "through {id}"
        );
    }
    assert_eq!(
        cluster.stat(b, "storage_standing").as_deref(),
        Some("whole")
    );
}

#[test]
fn a_node_of_a_new_cluster_votes_as_soon_as_it_has_met_the_others() {
    let cluster = Plan::of(&THREE).lay_out();
    cluster.start_node(5554);
    cluster.start_node(5556);
    cluster.await_answer(5554);
    cluster.await_answer(5556);
    cluster.await_sight(5554, 5556, "up");
    // The third node might know an older folder of theirs.
    for id in [5554, 5556] {
        assert_eq!(cluster.stat(id, "votes").as_deref(), Some("no"));
        assert_eq!(cluster.stat(id, "storage_standing").as_deref(), Some("new"));
        let reply = cluster.call(id, "PUT k v");
        assert!(reply.starts_with("ERROR UNAVAILABLE "), "{reply}");
        eventually("it logs for whom it waits", || {
            let log = cluster.log(id);
            log.contains("waits for node 5558").then_some(())
        });
    }
    cluster.restart(5558);
    cluster.await_all_ready();
    assert_eq!(cluster.call(5554, "GET k"), "NOT_FOUND");
    for id in THREE {
        assert_eq!(
            cluster.stat(id, "storage_standing").as_deref(),
            Some("whole")
        );
        cluster.done(id, "PUT k v");
    }
}

/// Nothing is lost with a folder that never had a vote. Otherwise each would wait for the other's records.
#[test]
fn folders_that_are_replaced_before_they_had_a_vote_are_new_ones() {
    let cluster = Plan::of(&THREE).lay_out();
    let (one, other, last) = (5554, 5556, 5558);
    cluster.start_node(one);
    cluster.start_node(other);
    for replaced in [one, other] {
        cluster.await_answer(one);
        cluster.await_answer(other);
        cluster.await_sight(one, other, "up");
        cluster.await_sight(other, one, "up");
        cluster.kill(replaced);
        cluster.wipe(replaced);
        cluster.start_node(replaced);
    }
    cluster.start_node(last);
    cluster.await_all_ready();
    for id in THREE {
        assert!(!cluster.log(id).contains("folder was lost"), "{id}");
        cluster.done(id, "PUT k v");
    }
}

#[test]
fn a_node_that_lost_its_folder_does_not_call_its_listing_complete_before_it_votes() {
    let cluster = Cluster::start(&THREE);
    let (holder, loser, absent) = (5554, 5556, 5558);
    cluster.kill(absent);
    cluster.done(holder, "PUT k precious");
    cluster.kill(holder);
    cluster.kill(loser);
    cluster.wipe(loser);
    cluster.start_node(absent);
    cluster.start_node(loser);
    cluster.await_answer(loser);
    cluster.await_sight(loser, absent, "up");
    // It can compare only with a replica that missed the write, too.
    eventually("it has compared all ranges", || {
        let compared: u64 = cluster.stat(loser, "ranges_compared")?.parse().ok()?;
        let waits = cluster.stat(loser, "ranges_up_to_date")? == "0";
        (compared >= 3 || waits).then_some(())
    });
    let listing = cluster
        .list(loser, "GET @")
        .expect_err("GET @ lacks a write, and is called complete");
    assert!(listing.starts_with("ERROR UNAVAILABLE "), "{listing}");
    cluster.restart(holder);
    cluster.await_ready(loser);
    assert_eq!(cluster.own_keys(loser).len(), 1);
}

/// A number of the life before names a write that the replicas know. They would take the new write for a
/// retry of that one, and not do it.
#[test]
fn a_node_that_lost_its_folder_never_uses_a_number_twice() {
    let cluster = Cluster::start(&FIVE);
    let lost = 5558;
    // The node holds none of these keys, so it copies none of them.
    let keys: Vec<String> = cluster.keys_of(5562).take(10).collect();
    assert!(!cluster.replicas(&keys[0]).contains(&lost));
    for key in &keys {
        cluster.done(lost, &format!("PUT {key} old"));
    }
    cluster.kill(lost);
    cluster.wipe(lost);
    cluster.start_node(lost);
    cluster.await_ready(lost);
    for key in &keys {
        cluster.done(lost, &format!("PUT {key} new"));
        assert_eq!(cluster.get(5554, key).as_deref(), Some("new"));
    }
}

/// Each write takes a number at its origin, and no replica ever sees the numbers of these writes.
#[test]
fn a_node_that_lost_its_folder_numbers_on_above_writes_that_were_refused_as_busy() {
    let cluster = Plan::of(&THREE).set("data_memory_mib", 1).start();
    let lost = 5554;
    let mut keys = cluster.keys_of(lost);
    let (large, new) = (keys.next().unwrap(), keys.next().unwrap());
    cluster.done(lost, &format!("PUT {large} {}", "v".repeat(1 << 20)));
    eventually("it is full", || {
        (cluster.stat(lost, "full")? == "yes").then_some(())
    });
    let refused = 120_000;
    let client = TcpStream::connect(cluster.address(lost)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let requests = format!("PUT {new} x\n").repeat(refused);
            (&client).write_all(requests.as_bytes()).unwrap();
        });
        let replies = BufReader::new(&client).lines().take(refused);
        let busy = replies.filter(|reply| reply.as_ref().unwrap().starts_with("ERROR BUSY "));
        assert_eq!(busy.count(), refused);
    });
    cluster.kill(lost);
    cluster.wipe(lost);
    cluster.restart(lost);
    let version = cluster.done(lost, &format!("DEL {large}"));
    let number = version.strip_prefix("5554:").expect("its own number");
    assert!(number.parse::<usize>().unwrap() > refused, "{version}");
}

/// One page is of the node's former life, and the other page is of another replica from after the loss. The
/// two replicas may never have held that state at the same time, so it may not be chosen.
#[test]
fn a_listing_does_not_count_a_page_from_before_a_folder_was_lost() {
    // The time-out is long, so that no node that only takes long is suspected.
    let plan = Plan::of(&THREE).set("read_timeout_ms", 5000);
    let cluster = plan.set("request_deadline_ms", 20_000).lay_out();
    let [lists, slow, lost] = THREE;
    let ballot = Ballot {
        round: 1,
        node: NodeId(slow),
        step: 0,
    };
    let state = State {
        value: Some("v".into()),
        ..State::default()
    };
    let accepted = Accepted {
        ballot,
        state: state.into(),
    };
    let entry = PageEntry {
        key: cluster.keys_of(lists).next().unwrap().as_str().into(),
        accepted: ballot,
        size: 1,
        record: Some(Record {
            promised: ballot,
            accepted: Some(accepted),
        }),
    };
    let range = cluster.range_of(&entry.key);
    let (asked, is_asked) = bounded(1);
    let (go_on, may_go_on) = bounded(0);
    let played = [slow, lost].map(|id| {
        let (asked, may_go_on) = (asked.clone(), may_go_on.clone());
        let (entry, first) = (entry.clone(), AtomicBool::new(true));
        play(&cluster, id, move |request| match request {
            Request::Join(_) => Reply::Known(Known {
                recognition: Recognition::Accepted,
                storage: None,
                start_number: 0,
                highest_number: 0,
                cluster_id: None,
                standing: Standing::Whole,
            }),
            Request::Ping => Reply::Pong(LogPosition::default()),
            Request::Scan(scan) => {
                let mut page = Page::default();
                if scan.range == range && first.swap(false, Ordering::Relaxed) {
                    if id == slow {
                        asked.send(()).unwrap();
                        may_go_on.recv().unwrap();
                    }
                    page.entries.push(entry.clone());
                }
                Reply::Page(page)
            }
            _ => Reply::Abstain,
        })
    });
    cluster.start_node(lists);
    cluster.await_vote(lists);
    let listed = thread::scope(|scope| {
        let listing = scope.spawn(|| cluster.list(lists, "GET *"));
        is_asked.recv().unwrap();
        let [_, process] = played;
        Impostor::greet_as(process, &cluster, lost, lists).join("another", false);
        go_on.send(()).unwrap();
        listing.join().unwrap()
    });
    assert_eq!(listed, Ok(vec![]));
}

/// The votes that it has counted so far may be of the forgotten life.
#[test]
fn a_coordinator_that_hears_of_a_lost_folder_ends_what_it_counts_votes_for() {
    let plan = Plan::of(&FIVE).set("read_timeout_ms", 5000);
    let cluster = plan.set("request_deadline_ms", 20_000).start();
    let replicas = cluster.replicas("k");
    let [coordinator, lost, silent] = replicas[..] else {
        panic!("{replicas:?}");
    };
    let origin = FIVE.into_iter().find(|id| !replicas.contains(id)).unwrap();
    cluster.kill(origin);
    cluster.kill(lost);
    // The coordinator waits for this vote.
    cluster.pause(silent);
    let mut client = Impostor::greet(&cluster, origin, coordinator);
    let mut loser = Impostor::greet(&cluster, lost, coordinator);
    let asked = client.ask(Request::Coordinate {
        key: "k".into(),
        operation: Operation::Get,
        seen: None,
        vouched: None,
    });
    assert!(client.replies().is_empty(), "it is under way");
    loser.join("another", false);
    let (answered, reply) = eventually("the answer", || client.replies().pop());
    assert_eq!(answered, asked);
    let Reply::Outcome(Outcome::Failed { why, .. }) = reply else {
        panic!("{reply:?}");
    };
    assert_eq!(why, Why::StartedOver);
}

/// It asks the others again and again while one of them is away. Only the first time is news to them and ends
/// what they coordinate. So even writes that take long come to their end.
#[test]
fn a_node_that_cannot_finish_its_copy_does_not_keep_the_others_from_writing() {
    let cluster = Cluster::start(&FIVE);
    let (lost, down) = (5554, 5562);
    let held = |key: &String| {
        let replicas = cluster.replicas(key);
        !replicas.contains(&lost) || !replicas.contains(&down)
    };
    let keys: Vec<_> = (0..)
        .map(|n| format!("key{n}"))
        .filter(held)
        .take(5)
        .collect();
    cluster.done(lost, "PUT before 1");
    cluster.kill(down);
    cluster.kill(lost);
    cluster.wipe(lost);
    cluster.start_node(lost);
    let others = [5556, 5558, 5560];
    for id in others {
        // A write takes longer than the pause between two inquiries of the node that lost its folder.
        cluster.slow_disk(id, Duration::from_millis(40));
        eventually(&format!("{id} knows of the loss"), || {
            cluster
                .log(id)
                .contains("has lost its data folder")
                .then_some(())
        });
    }
    let voters = |key: &&String| {
        let replicas = cluster.replicas(key);
        others.iter().filter(|id| replicas.contains(id)).count() >= 2
    };
    for key in keys.iter().filter(voters) {
        for id in others {
            cluster.done(id, &format!("PUT {key} {id}"));
        }
    }
    for id in others {
        let lines = cluster.log(id).matches("has lost its data folder").count();
        assert_eq!(lines, 1, "{id} took the loss for news more than once");
    }
}
