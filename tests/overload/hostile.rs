//! Clients and strangers who mean harm.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use simple_dynamo::transport::inbound::MOST_STRANGERS;

use super::siege::{
    CLIENT_MEMORY, HONEST, KEYS, MIB, OWN_DESCRIPTORS, VICTIM, assert_memory_bounded, at_once,
    besiege, control_characters, plan, start, text, usage,
};
use crate::support::asking::DEADLINE;
use crate::support::cluster::{THREE, eventually};
use crate::support::raw::Raw;
use crate::support::workload::StopWhenDone;

#[test]
fn clients_that_never_read_their_replies_hold_no_more_than_their_budget() {
    let (cluster, _alone) = start(plan());
    let clients = 40;
    // The node under attack coordinates these keys. Otherwise its links to their coordinator would be the
    // bottleneck.
    let keys = cluster.keys_of(VICTIM);
    let big: Vec<_> = keys
        .filter(|key| !KEYS.contains(&key.as_str()))
        .take(6)
        .collect();
    let value = control_characters(MIB / 2);
    big.iter().for_each(|key| {
        cluster.done(VICTIM, &format!("PUT {key} {value}"));
    });
    let gets: String = big.iter().map(|key| format!("GET {key}\n")).collect();
    let greedy = besiege(&cluster, |progress| {
        let greedy = at_once(&cluster, clients, |_, mut client| {
            let pipeline = gets.repeat(200);
            client.set_patience(Duration::from_millis(300));
            client.take_little();
            // The client sends until the node takes no more. By then the node has long stopped serving it.
            while client.try_send(&pipeline) {}
            client
        });
        progress.await_more(200);
        greedy
    });
    assert_memory_bounded(&cluster, clients);
    drop(greedy);
    // Others can use the memory that they held.
    let reply = eventually("a long reply is sent again", || {
        let reply = cluster.call(VICTIM, &format!("GET {}", big[0]));
        reply.starts_with("VALUE ").then_some(reply)
    });
    assert!(reply.len() > 3 * MIB);
}

/// The replies are short, so they fit into the client's budget, and the node goes on reading.
#[test]
fn a_client_that_sends_a_hundred_thousand_requests_before_it_reads_is_served() {
    let (cluster, _alone) = start(plan());
    let (requests, keys) = (100_000, 1000);
    let put = |number| format!("PUT key{} {number}\n", number % keys);
    let puts: String = (0..requests).map(put).collect();
    let mut client = Raw::connect(&cluster.address(VICTIM));
    client.set_patience(Duration::from_secs(120));
    client.send(puts + "QUIT\n");
    let replies = text(&client.rest());
    let done = replies.lines().filter(|line| line.starts_with("OK "));
    assert_eq!(done.count(), requests);
    assert!(replies.ends_with("\nBYE\n"));
    let last = cluster.get(THREE[1], "key7");
    assert_eq!(last, Some((requests - keys + 7).to_string()));
    assert_memory_bounded(&cluster, 1);
}

#[test]
fn clients_that_are_silent_after_a_long_request_hold_no_more_than_their_budget() {
    let (cluster, _alone) = start(plan());
    // The node under attack does not coordinate this key: the thread of the client forwards the request.
    let key = cluster.keys_of(THREE[1]).next().unwrap();
    let put = format!("PUT {key} {}\n", control_characters(MIB / 2));
    let address = cluster.address(VICTIM);
    let clients = 80;
    let silent: Vec<Raw> = (0..clients)
        .map(|_| {
            let mut client = Raw::connect(&address);
            client.send(&put);
            // On a busy machine so long a line may take longer than the request deadline.
            let reply = client.line();
            let sent = reply.starts_with("OK ") || reply.starts_with("ERROR UNKNOWN ");
            assert!(sent, "{reply}");
            client
        })
        .collect();
    assert_memory_bounded(&cluster, clients);
    drop(silent);
}

#[test]
fn a_listing_whose_long_pair_exceeds_the_budget_ends_with_busy_and_not_as_if_it_were_whole() {
    let (cluster, _alone) = start(plan());
    cluster.done(VICTIM, &format!("PUT big {}", "v".repeat(MIB)));
    let listed = || cluster.list(VICTIM, "GET *");
    assert_eq!(listed().map(|pairs| pairs.len()), Ok(1));
    // Each byte of a line counts four times, and a listing takes 8 MiB before its first pair.
    let free = CLIENT_MEMORY * MIB - 8 * MIB;
    let half_a_line = "x".repeat((free - MIB / 4) / 4);
    let connect = || {
        let mut greedy = Raw::connect(&cluster.address(VICTIM));
        greedy.send(&half_a_line);
        greedy
    };
    let mut greedy = connect();
    let busy = "ERROR BUSY too many clients are sent long replies at once; try again later";
    eventually(
        "the node has read the half line, and its budget is used up",
        || {
            // A listing that came first may have used up the budget, so that the node has closed the connection.
            if !greedy.try_send("x") {
                greedy = connect();
            }
            (listed().err()? == busy).then_some(())
        },
    );
    drop(greedy);
    eventually("the budget is free again", || listed().ok());
}

/// Telnet's "do timing mark", which is answered once all before it has been read, and the answer.
const MARK_THE_TIME: [u8; 3] = [255, 253, 6];
const MARK: [u8; 3] = [255, 252, 6];

/// The node ends the connection, since the client's next request might cost as much, for nothing.
#[test]
fn a_client_whose_long_reply_exceeds_the_budget_gets_busy_and_is_disconnected() {
    let (cluster, _alone) = start(plan());
    cluster.done(VICTIM, &format!("PUT big {}", "v".repeat(MIB)));
    // Each byte of a line counts four times.
    let half_a_line = "x".repeat((CLIENT_MEMORY * MIB - MIB / 4) / 4 / 2);
    let greedy = [(); 2].map(|()| {
        let mut greedy = Raw::connect(&cluster.address(VICTIM));
        greedy.send(&half_a_line);
        // When the second mark comes back, the node holds all that it had read before the first one.
        for _ in 0..2 {
            greedy.send(MARK_THE_TIME);
            greedy.expect(MARK);
        }
        greedy
    });
    let busy = "ERROR BUSY too many clients are sent long replies at once; try again later\n";
    for requests in ["GET big\nPING\n", "GET big\n"] {
        let mut client = Raw::connect(&cluster.address(VICTIM));
        client.send(requests);
        client.expect(busy);
        client.expect_end();
    }
    drop(greedy);
}

#[test]
fn half_lines_and_bytes_now_and_then_take_no_more_than_the_budget_and_end_in_time() {
    let (cluster, _alone) = start(plan().set("line_timeout_ms", 500));
    let clients = 40;
    let ends = besiege(&cluster, |_| {
        at_once(&cluster, clients, |number, mut client| {
            client.send(format!("PUT k{number} "));
            if number % 2 == 0 {
                client.send(vec![b'x'; 4 * MIB]);
            }
            let began = Instant::now();
            while client.try_send("x") {
                assert!(
                    began.elapsed() < DEADLINE,
                    "the node does not end the connection"
                );
                thread::sleep(Duration::from_millis(20));
            }
            text(&client.rest())
        })
    });
    let late = "ERROR SYNTAX the line did not end within 500 ms\n";
    let busy = "ERROR BUSY too many clients send long lines at once; try again later\n";
    for (number, end) in ends.iter().enumerate() {
        // A client whose connection is closed while it sends may not receive the reason.
        let expected = end == late || (number % 2 == 0 && (end == busy || end.is_empty()));
        assert!(expected, "{number}: {end:?}");
    }
    assert!(ends.iter().any(|end| end == busy), "{ends:?}");
    assert_memory_bounded(&cluster, clients);
}

#[test]
fn junk_and_endless_lines_get_errors_and_leave_nothing_behind() {
    let (cluster, _alone) = start(plan());
    let clients = 40;
    besiege(&cluster, |_| {
        // They connect one after the other, so that the node takes each long line, and all stay connected.
        let mut kept = Vec::new();
        for _ in 0..clients {
            let mut client = Raw::connect(&cluster.address(VICTIM));
            client.send(vec![b'x'; 3 * MIB]);
            client.send("\nhalf a line");
            client.expect("ERROR SYNTAX unknown command");
            kept.push(client);
        }
        let ends = at_once(&cluster, clients, |number, mut client| {
            let mut rng = fastrand::Rng::with_seed(number as u64);
            if number % 2 == 0 {
                client.send(vec![b'x'; 8 * MIB]);
            } else {
                // Byte 255 is left out: it begins a command of telnet, which would swallow what follows.
                let junk: Vec<u8> = (0..MIB / 4).map(|_| rng.u8(..0xff)).collect();
                client.send(junk);
                client.send("\nQUIT\n");
            }
            text(&client.rest())
        });
        for (number, end) in ends.iter().enumerate() {
            let mut lines: Vec<&str> = end.lines().collect();
            if number % 2 == 1 {
                assert_eq!(lines.pop(), Some("BYE"), "{number}");
            }
            let error = |line: &&str| line.starts_with("ERROR ");
            assert!(lines.iter().all(error), "{number}: {lines:?}");
        }
        drop(kept);
    });
    assert_memory_bounded(&cluster, 2 * clients);
}

#[test]
fn big_values_from_many_clients_at_once_are_written_or_refused_with_busy_and_none_is_lost() {
    let (cluster, _alone) = start(plan());
    let (clients, length) = (30, MIB);
    let value = "v".repeat(length);
    let replies = besiege(&cluster, |_| {
        let address: Vec<String> = cluster.ids().map(|id| cluster.address(id)).collect();
        let (address, value) = (&address, &value);
        thread::scope(|scope| {
            let writers: Vec<_> = (0..clients)
                .map(|number| {
                    scope.spawn(move || {
                        let mut client = Raw::connect(&address[number % address.len()]);
                        client.send(format!("PUT big{number} {value}\nQUIT\n"));
                        text(&client.rest())
                    })
                })
                .collect();
            let joined = writers.into_iter().map(|thread| thread.join().unwrap());
            joined.collect::<Vec<_>>()
        })
    });
    let done = replies.iter().filter(|reply| reply.starts_with("OK "));
    assert!(done.count() > 0, "{replies:?}");
    for (number, reply) in replies.iter().enumerate() {
        let read = cluster.call(THREE[number % 3], &format!("GET big{number}"));
        let whole = read.starts_with("VALUE ") && read.len() > length;
        match reply.split(' ').take(2).collect::<Vec<_>>()[..] {
            ["OK", _] => assert!(whole, "{number} is lost"),
            ["ERROR", "BUSY" | "UNAVAILABLE"] => assert_eq!(read, "NOT_FOUND"),
            ["ERROR", "UNKNOWN"] => assert!(whole || read == "NOT_FOUND"),
            // The node closed the connection while the client still sent. The reason may be lost, and
            // nothing was begun.
            _ => assert!(reply.is_empty() && read == "NOT_FOUND", "{number}: {reply}"),
        }
    }
    // Beside the clients' budget, memory holds the messages between the nodes, and the values themselves.
    assert_memory_bounded(&cluster, 3 * clients + 2 * HONEST as usize);
}

#[test]
fn a_big_value_waits_for_another_that_hangs_and_is_told_busy_and_a_small_one_does_not_wait() {
    let (cluster, _alone) = start(plan());
    let put = |key: &str, length: usize| {
        let mut client = Raw::connect(&cluster.address(VICTIM));
        client.send(format!("PUT {key} {}\n", "v".repeat(length)));
        client
    };
    THREE[1..].iter().for_each(|id| cluster.kill(*id));
    // The node writes only one of the two at a time. The second one gives up before the first does.
    let mut big = ["one", "other"].map(|key| put(key, MIB * 2 / 3));
    let mut small = put("small", 9);
    let mut replies = big.each_mut().map(Raw::line);
    replies.sort();
    let busy = "ERROR BUSY clients of node 5554 write too many large values at once; nothing was \
                changed: try again later\n";
    assert_eq!(replies[0], busy);
    let not_done = |reply: &str| !reply.starts_with("OK") && !reply.starts_with("ERROR BUSY");
    assert!(not_done(&replies[1]), "{}", replies[1]);
    assert!(not_done(&small.line()));
    THREE[1..].iter().for_each(|id| cluster.restart(*id));
    for client in &mut big {
        client.send(format!("PUT again {}\n", "v".repeat(MIB)));
        let reply = client.line();
        assert!(reply.starts_with("OK "), "{reply}");
    }
}

#[test]
fn strangers_on_the_port_for_peers_keep_no_peer_out() {
    let (cluster, _alone) = start(plan());
    let before = usage(&cluster, VICTIM);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let crowd = scope.spawn(|| {
            let mut crowd = VecDeque::new();
            while !stop.load(Ordering::Relaxed) {
                crowd.push_back(TcpStream::connect(cluster.peer_address(VICTIM)).unwrap());
                if crowd.len() > 3 * MOST_STRANGERS {
                    crowd.pop_front();
                }
            }
        });
        let stop_the_crowd = StopWhenDone(&stop);
        let full = besiege(&cluster, |_| {
            let peer = 5556;
            cluster.kill(peer);
            cluster.restart(peer);
            cluster.await_sight(peer, VICTIM, "up");
            usage(&cluster, VICTIM)
        });
        drop(stop_the_crowd);
        crowd.join().unwrap();
        // Some strangers whom the node has dismissed have not left yet.
        let most = 2 * MOST_STRANGERS as u64;
        assert!(
            full.threads <= before.threads + u64::from(HONEST) + most,
            "{full:?}"
        );
        let clients = 2 * u64::from(HONEST);
        assert!(
            full.descriptors <= OWN_DESCRIPTORS + clients + 3 * most,
            "{full:?}"
        );
    });
    assert_memory_bounded(&cluster, 0);
}
