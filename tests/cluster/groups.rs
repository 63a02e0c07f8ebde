//! Groups: every member is told the same messages in the same order, whatever happens to nodes and clients.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, FIVE, eventually};
use crate::support::members::Member;
use crate::support::usage::Usage;
use crate::support::waiting::SURELY;
use crate::support::workload::StopWhenDone;

const SENDERS: usize = 32;

/// The node that a sender talks to.
fn node_of(sender: usize) -> u32 {
    FIVE[sender % FIVE.len()]
}

/// Says something and asserts nothing. Returns the number if it is known.
fn number_of(reply: &str) -> Option<u64> {
    reply.strip_prefix("OK ")?.parse().ok()
}

#[test]
fn five_members_are_told_one_order_that_keeps_the_order_of_each_sender() {
    const EACH: usize = 200;
    let cluster = Cluster::start(&FIVE);
    let mut members: Vec<Member> = FIVE
        .iter()
        .map(|&id| Member::join(&cluster, id, "g", ""))
        .collect();
    let acknowledged: BTreeMap<u64, String> = thread::scope(|scope| {
        let speak = |sender: usize| {
            let mut client = cluster.client(node_of(sender));
            scope.spawn(move || {
                let say = |text: String| {
                    let reply = client.call(&format!("SAY g {text}")).unwrap();
                    (number_of(&reply).expect(&reply), text)
                };
                let texts = (0..EACH).map(|place| format!("{sender}.{place}"));
                texts.map(say).collect::<Vec<_>>()
            })
        };
        let senders: Vec<_> = (0..SENDERS).map(speak).collect();
        let said = senders
            .into_iter()
            .flat_map(|sender| sender.join().unwrap());
        said.collect()
    });
    let count = (SENDERS * EACH) as u64;
    assert_eq!(acknowledged.len() as u64, count, "a number was given twice");
    let expected: Vec<String> = acknowledged.into_values().collect();
    for member in &mut members {
        assert_eq!(member.up_to(count), expected);
        assert!(member.missed.is_empty());
    }
    for sender in 0..SENDERS {
        let start = format!("{sender}.");
        let own = expected.iter().filter_map(|text| text.strip_prefix(&start));
        let places: Vec<usize> = own.map(|place| place.parse().unwrap()).collect();
        assert!(
            places.is_sorted() && places.len() == EACH,
            "sender {sender}"
        );
    }
    assert_eq!(cluster.history(5560, "g", 0), expected);
}

#[test]
fn a_group_works_while_any_two_nodes_are_dead_that_leave_its_quorum() {
    let cluster = Cluster::start(&FIVE);
    let replicas = cluster.replicas("#g");
    let mut said = 0;
    for (place, first) in FIVE.into_iter().enumerate() {
        for &second in &FIVE[place + 1..] {
            let dead = [first, second];
            if dead.iter().all(|id| replicas.contains(id)) {
                continue;
            }
            let alive: Vec<u32> = cluster.ids().filter(|id| !dead.contains(id)).collect();
            let mut member = Member::join(&cluster, alive[0], "g", "");
            dead.iter().for_each(|&id| cluster.kill(id));
            for place in 0..200 {
                let id = alive[place % alive.len()];
                let say =
                    || number_of(&cluster.call(id, &format!("SEND g {said}/{said}/1 {said}")));
                // A suspicion that is just being formed may cost an answer, and not the message.
                eventually("it is said", say);
                said += 1;
            }
            let last = member.up_to(said).last().cloned();
            assert_eq!(last, Some((said - 1).to_string()));
            dead.iter().for_each(|&id| cluster.start_node(id));
            cluster.await_all_ready();
        }
    }
    let texts = cluster.history(5554, "g", 0);
    assert!(texts.iter().map(|text| text.parse()).eq((0..said).map(Ok)));
}

#[test]
fn a_group_is_the_same_after_all_nodes_were_killed_and_its_numbers_go_on() {
    let cluster = Cluster::start(&FIVE);
    let acknowledged: Vec<(u64, String)> = thread::scope(|scope| {
        let speak = |sender: usize| {
            let mut client = cluster.client(node_of(sender));
            scope.spawn(move || {
                let mut done = Vec::new();
                for place in 0.. {
                    let text = format!("{sender}.{place}");
                    let reply = client.call(&format!("SAY g {text}"));
                    match reply.ok().as_deref().and_then(number_of) {
                        Some(number) => done.push((number, text)),
                        // All nodes are dead.
                        None => break,
                    }
                }
                done
            })
        };
        let senders: Vec<_> = (0..SENDERS).map(speak).collect();
        let mut member = Member::join(&cluster, 5554, "g", "");
        member.up_to(member.last + 300);
        FIVE.iter().for_each(|&id| cluster.kill(id));
        let said = senders
            .into_iter()
            .flat_map(|sender| sender.join().unwrap());
        said.collect()
    });
    FIVE.iter().for_each(|&id| cluster.start_node(id));
    cluster.await_all_ready();
    let texts = cluster.history(5554, "g", 0);
    for (number, text) in &acknowledged {
        assert_eq!(
            texts.get(*number as usize - 1),
            Some(text),
            "message {number}"
        );
    }
    for id in FIVE {
        assert_eq!(cluster.history(id, "g", 0), texts, "at {id}");
    }
    assert_eq!(cluster.say(5560, "g", "on"), texts.len() as u64 + 1);
}

#[test]
fn a_message_is_there_once_through_whichever_nodes_it_is_sent_again() {
    let cluster = Cluster::start(&FIVE);
    let send = |id: u32, rest: &str| cluster.call(id, &format!("SEND g {rest}"));
    // One message through two nodes at once.
    for round in 0..20 {
        let request = format!("s/0/{} {round}", round + 1);
        let replies = thread::scope(|scope| {
            let both = [5554, 5560].map(|id| scope.spawn(move || send(id, &request_of(round))));
            both.map(|one| one.join().unwrap())
        });
        let expected = format!("OK {}", round + 1);
        for reply in replies {
            assert!(reply == expected || reply == "OK ?", "{request}: {reply}");
        }
    }
    assert_eq!(send(5556, "s/0/20 other"), "CONFLICT 20");
    assert_eq!(send(5556, "s/0/22 x"), "CONFLICT 22");
    assert!(send(5556, "t/99/1 x").starts_with("ERROR SYNTAX nobody was shown message 99"));
    // The session is still known after 127 others, and forgotten after one more.
    for other in 0..127 {
        assert_eq!(
            send(5558, &format!("o{other}/0/1 x")),
            format!("OK {}", 21 + other)
        );
    }
    assert_eq!(send(5562, "s/0/20 19"), "OK 20");
    assert_eq!(send(5562, "last/0/1 x"), "OK 148");
    assert_eq!(send(5562, "s/0/20 19"), "GONE 20");
    assert_eq!(send(5562, "s2/20/1 again"), "OK 149");
    assert_eq!(cluster.history(5554, "g", 0).len(), 149);
}

fn request_of(round: usize) -> String {
    format!("s/0/{} {round}", round + 1)
}

/// A connection that has joined the group g, and whose buffers are small.
fn join_with_little_room(cluster: &Cluster, id: u32) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(cluster.address(id)).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 64 << 10).unwrap();
    stream.set_read_timeout(Some(SURELY)).unwrap();
    (&stream).write_all(b"JOIN g\n").unwrap();
    let mut member = BufReader::new(stream);
    assert_eq!(next_line(&mut member), "JOINED g 0\n");
    member
}

fn next_line(member: &mut impl BufRead) -> String {
    let mut line = String::new();
    member.read_line(&mut line).unwrap();
    line
}

#[test]
fn a_member_that_reads_late_gets_all_and_one_that_never_does_is_closed_and_goes_on_later() {
    /// How long the late one does not read.
    const LATE: Duration = Duration::from_secs(5);
    const MESSAGES: u64 = 16 << 10;
    let cluster = Cluster::start(&FIVE);
    let before = Usage::of(cluster.pid(5556)).unwrap().resident;
    let mut late = join_with_little_room(&cluster, 5556);
    let never = join_with_little_room(&cluster, 5556);
    let began = Instant::now();
    thread::scope(|scope| {
        for sender in 0..16 {
            let mut client = cluster.client(node_of(sender));
            scope.spawn(move || {
                let text = "x".repeat(1000);
                for _ in 0..MESSAGES / 16 {
                    let reply = client.call(&format!("SAY g {text}")).unwrap();
                    assert!(number_of(&reply).is_some(), "{reply}");
                }
            });
        }
        thread::sleep(LATE);
        // Its own request is served in the middle of what it is told.
        late.get_mut().write_all(b"PUT k v\n").unwrap();
        let (mut number, mut before_reply) = (0, None);
        while number < MESSAGES || before_reply.is_none() {
            let line = next_line(&mut late);
            if line.starts_with("OK ") {
                before_reply = Some(number);
                continue;
            }
            number += 1;
            assert!(line.starts_with(&format!("MSG g {number} ")), "{line}");
        }
        assert!(
            before_reply < Some(MESSAGES),
            "it was served only at the end"
        );
    });
    eventually("the one that takes nothing is closed", || {
        let members = cluster.list(5556, "WHO g").unwrap();
        (members.len() == 1).then_some(())
    });
    assert!(began.elapsed() > Duration::from_secs(10));
    drop(never);
    let taken = Usage::of(cluster.pid(5556)).unwrap().peak - before;
    assert!(taken < 64 << 20, "the node grew by {taken} bytes");
    let mut goes_on = Member::join(&cluster, 5558, "g", "AFTER 7");
    assert_eq!(goes_on.up_to(MESSAGES).len() as u64, MESSAGES - 7);
}

#[test]
fn a_member_that_comes_late_is_told_what_is_kept_and_what_it_missed() {
    const MESSAGES: u64 = 40_000;
    let cluster = Cluster::start(&FIVE);
    thread::scope(|scope| {
        for id in FIVE {
            let mut client = cluster.client(id);
            scope.spawn(move || {
                for _ in 0..MESSAGES / 5 / 50 {
                    client.send("SAY g x\n".repeat(50).as_bytes()).unwrap();
                    for _ in 0..50 {
                        let reply = client.receive().unwrap();
                        assert!(number_of(&reply).is_some(), "{reply}");
                    }
                }
            });
        }
    });
    let before = Usage::of(cluster.pid(5556)).unwrap().resident;
    let mut member = Member::join(&cluster, 5556, "g", "AFTER 0");
    assert_eq!(member.last, 0);
    let told = member.up_to(MESSAGES).len() as u64;
    // The ring has 1024 pages of 32, and the messages after the last page are in the group's state.
    let [(1, to)] = member.missed[..] else {
        panic!("{:?}", member.missed);
    };
    assert_eq!(told, MESSAGES - to);
    assert_eq!(to % 32, 0);
    assert!((1022 * 32..=1028 * 32).contains(&told), "{told}");
    let taken = Usage::of(cluster.pid(5556))
        .unwrap()
        .peak
        .saturating_sub(before);
    assert!(taken < 64 << 20, "the node grew by {taken} bytes");
    assert_eq!(cluster.done(5560, "TRIM g"), MESSAGES.to_string());
    let history = cluster.client(5554).list("HISTORY g AFTER 39000");
    let missed = format!("MISSED g 39001 {MESSAGES}");
    assert_eq!(history.unwrap(), [missed.as_str(), "END 0"]);
}

#[test]
fn messages_that_are_sent_ahead_keep_their_order_and_a_read_behind_them_sees_them_all() {
    const AHEAD: u64 = 40;
    let cluster = Cluster::start(&FIVE);
    let mut client = cluster.client(5558);
    for round in 0..20 {
        let says: String = (1..=AHEAD)
            .map(|place| format!("SAY g {place}\n"))
            .collect();
        client.send(format!("{says}GET #g\n").as_bytes()).unwrap();
        for place in 1..=AHEAD {
            let number = round * AHEAD + place;
            assert_eq!(client.receive().unwrap(), format!("OK {number}"));
        }
        let next = (round + 1) * AHEAD + 1;
        let group = client.receive().unwrap();
        assert!(group.contains(&format!("{{\"next\":{next},")), "{group}");
    }
    let texts = cluster.history(5554, "g", 0);
    let expected = (0..20).flat_map(|_| (1..=AHEAD).map(|place| place.to_string()));
    assert!(texts.into_iter().eq(expected));
}

#[test]
fn no_message_cuts_into_a_reply_of_several_lines_and_none_is_lost_for_that() {
    let cluster = Cluster::start(&FIVE);
    let value = "x".repeat(1000);
    (0..300).for_each(|key| drop(cluster.done(5554, &format!("PUT k{key} {value}"))));
    let over = AtomicBool::new(false);
    let mut member = Member::join(&cluster, 5556, "g", "");
    thread::scope(|scope| {
        let speaking = scope.spawn(|| {
            let mut said = 0;
            while !over.load(Ordering::Relaxed) {
                said = cluster.say(5554, "g", "x");
            }
            said
        });
        let stopping = StopWhenDone(&over);
        for _ in 0..20 {
            let (first, _) = member.call("GET *");
            assert!(first.starts_with("PAIR "), "{first}");
            for _ in 1..300 {
                let line = member.client.receive().unwrap();
                assert!(line.starts_with("PAIR "), "{line}");
            }
            assert_eq!(member.client.receive().unwrap(), "END 300");
        }
        drop(stopping);
        let said = speaking.join().unwrap();
        member.up_to(said);
    });
}

#[test]
fn while_each_node_in_turn_stands_still_for_three_seconds_nobody_else_waits_long_and_all_are_told()
{
    const STILL: Duration = Duration::from_secs(3);
    let cluster = Cluster::start(&FIVE);
    let mut members: Vec<Member> = FIVE
        .iter()
        .map(|&id| Member::join(&cluster, id, "g", ""))
        .collect();
    for victim in FIVE {
        cluster.pause(victim);
        let until = Instant::now() + STILL;
        thread::scope(|scope| {
            for id in cluster.ids().filter(|id| *id != victim) {
                let mut client = cluster.client(id);
                scope.spawn(move || {
                    for seq in 1.. {
                        let began = Instant::now();
                        let request = format!("SEND g {victim}-{id}/0/{seq} {victim}.{id}.{seq}");
                        let reply = client.call(&request).unwrap();
                        let waited = began.elapsed();
                        assert!(number_of(&reply).is_some(), "{request}: {reply}");
                        assert!(waited < Duration::from_secs(1), "{request}: {waited:?}");
                        if Instant::now() >= until {
                            break;
                        }
                    }
                });
            }
        });
        cluster.resume(victim);
    }
    let resumed = Instant::now();
    let last = cluster.say(5554, "g", "the end");
    let told: Vec<_> = members
        .iter_mut()
        .map(|member| member.up_to(last))
        .collect();
    assert!(
        resumed.elapsed() < Duration::from_secs(3),
        "{:?}",
        resumed.elapsed()
    );
    assert!(told.iter().all(|texts| *texts == told[0]));
    let distinct: std::collections::BTreeSet<_> = told[0].iter().collect();
    assert_eq!(distinct.len() as u64, last, "a message is there twice");
}
