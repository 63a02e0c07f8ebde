//! Bad clients and strange connections: each gets an error that says what is wrong, and the others are
//! served.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use simple_dynamo::server::command::HELP;

use crate::support::cluster::{Cluster, Plan, THREE, eventually};
use crate::support::raw::Raw;

const MIB: usize = 1 << 20;

fn raw(cluster: &Cluster) -> Raw {
    Raw::connect(&cluster.address(THREE[0]))
}

#[test]
fn a_wrong_line_gets_an_error_that_says_what_is_wrong_and_the_connection_stays_usable() {
    let cluster = Cluster::start(&THREE);
    let mut client = raw(&cluster);
    let cases: [(&[u8], &str); 9] = [
        (
            b"FROB x\n",
            "ERROR SYNTAX unknown command \"FROB\"; HELP lists the commands\n",
        ),
        (
            b"\n",
            "ERROR SYNTAX an empty line; HELP lists the commands\n",
        ),
        (
            b"PUT k\r\n",
            "ERROR SYNTAX expected: PUT key value; write the empty value as \"\"\n",
        ),
        (
            b"PUT @ v\n",
            "ERROR SYNTAX @ and * are not keys: they stand for many keys in GET and DEL\n",
        ),
        (
            b"GET a b\n",
            "ERROR SYNTAX expected: GET key, GET @ or GET *\n",
        ),
        (
            b"CAS k 7 v\n",
            "ERROR SYNTAX \"7\" is not a version such as 5554:12,5556:3, or - for none\n",
        ),
        (
            b"GET \xc3\x28\n",
            "ERROR SYNTAX the line is not UTF-8; this protocol is text\n",
        ),
        (
            b"PUT \"k v\n",
            "ERROR SYNTAX what starts with a double quote must be a JSON string: EOF while parsing a \
             string\n",
        ),
        (b"ping\n", "PONG\n"),
    ];
    for (sent, expected) in cases {
        client.send(sent);
        client.expect(expected);
    }
    let (key, value) = ("k".repeat(1025), "v".repeat(MIB + 1));
    client.send(format!("GET {key}\nPUT k {value}\nGET k\nQUIT\n"));
    client.expect("ERROR TOO_LARGE the key has 1025 bytes; at most 1024 are allowed\n");
    client.expect("ERROR TOO_LARGE the value has 1048577 bytes; at most 1048576 are allowed\n");
    client.expect("NOT_FOUND\nBYE\n");
    client.expect_end();
}

#[test]
fn an_endless_line_and_a_web_browser_lose_their_connections() {
    let cluster = Cluster::start(&THREE);
    let mut client = raw(&cluster);
    client.send(vec![b'x'; 8 * MIB]);
    client.expect("ERROR TOO_LARGE the line has more than 6302720 bytes\n");
    client.expect_end();
    let mut browser = raw(&cluster);
    browser.send("POST / HTTP/1.1\r\nHost: x\r\n\r\nDEL *\r\n");
    browser.expect("ERROR DENIED this is not a web server\n");
    browser.expect_end();
    assert_eq!(cluster.call(5554, "PING"), "PONG");
}

#[test]
fn a_connection_that_begins_like_a_request_of_http_is_closed_before_anything_is_done() {
    let cluster = Cluster::start(&THREE);
    let mut browser = raw(&cluster);
    browser.send("PUT /x HTTP/1.1\r\nHost: x\r\n\r\n");
    browser.expect("ERROR DENIED this is not a web server\n");
    browser.expect_end();
    let mut client = raw(&cluster);
    client.send("GET /x\nPUT /x HTTP/1.1\nGET /x\n");
    client.expect("NOT_FOUND\nOK 5554:1\nVALUE 5554:1 HTTP/1.1\n");
}

#[test]
fn half_a_line_and_then_silence_loses_its_connection_and_silence_alone_does_not() {
    let cluster = Plan::of(&THREE).set("line_timeout_ms", 300).start();
    let mut silent = raw(&cluster);
    let mut half = raw(&cluster);
    half.send("PUT k ");
    half.expect("ERROR SYNTAX the line did not end within 300 ms\n");
    half.expect_end();
    // Neither a byte now and then keeps the connection open, nor telnet's command "no operation".
    for now_and_then in [&b"x"[..], b"\xff\xf1"] {
        let mut slow = raw(&cluster);
        slow.send("x");
        eventually("it is closed", || {
            (!slow.try_send(now_and_then)).then_some(())
        });
    }
    silent.send("PING\n");
    silent.expect("PONG\n");
}

/// The client would take an error that came first for the reply to the earlier request.
#[test]
fn the_error_for_half_a_line_comes_after_the_reply_to_the_request_before_it() {
    let plan = Plan::of(&THREE).set("line_timeout_ms", 100);
    let cluster = plan.set("request_deadline_ms", 1000).start();
    let mut client = raw(&cluster);
    cluster.pause(THREE[1]);
    cluster.pause(THREE[2]);
    client.send("PUT k v\nPUT ");
    let reply = client.line();
    assert!(reply.starts_with("ERROR UNKNOWN "), "{reply}");
    client.expect("ERROR SYNTAX the line did not end within 100 ms\n");
    client.expect_end();
}

#[test]
fn ctrl_c_in_telnet_voids_the_line_and_is_answered() {
    let cluster = Plan::of(&THREE).set("line_timeout_ms", 100).start();
    let mut telnet = raw(&cluster);
    // The options that a client may offer at first are dropped.
    telnet.send(b"\xff\xfd\x03\xff\xfb\x18PING\r\n");
    telnet.expect("PONG\n");
    telnet.send(b"PUT k v\xff\xf4\xff\xfd\x06");
    telnet.expect(b"\xff\xfc\x06");
    // No line has begun on this connection since then, so none has to end in time. Meanwhile two others time
    // out.
    for _ in 0..2 {
        let mut half = raw(&cluster);
        half.send("x");
        half.expect("ERROR SYNTAX the line did not end within 100 ms\n");
    }
    telnet.send(b"GET k\r\n");
    telnet.expect("NOT_FOUND\n");
}

#[test]
fn one_client_too_many_gets_busy_and_the_others_are_served() {
    let cluster = Plan::of(&THREE).set("max_clients", 3).start();
    let busy = "ERROR BUSY all 3 threads for clients are taken; try again later\n";
    // The connections that looked whether the node is ready may still be ending.
    let mut clients = Vec::new();
    while clients.len() < 3 {
        let mut client = cluster.client(5554);
        if client.call("PING").is_ok_and(|reply| reply == "PONG") {
            clients.push(client);
        }
    }
    let mut refused = raw(&cluster);
    refused.expect(busy);
    refused.expect_end();
    for client in &mut clients {
        assert_eq!(client.call("GET k").unwrap(), "NOT_FOUND");
    }
    clients.pop();
    eventually("another client is served", || {
        let reply = cluster.try_client(5554).ok()?.call("PING").ok()?;
        (reply == "PONG").then_some(())
    });
}

#[test]
fn replies_come_in_the_order_of_the_requests_and_each_sees_those_before_it() {
    let cluster = Cluster::start(&THREE);
    let mut client = raw(&cluster);
    client.send(
        "PUT k a\nGET k\nCAS k 5554:1 b\nCAS k 5554:1 c\nGET k\nDEL k\nDEL k\nGET k\nCAS k - d\n\
         GET @\nFROB\nGET *\nQUIT\nGET k\n",
    );
    client.expect("OK 5554:1\nVALUE 5554:1 a\nOK 5554:2\nCONFLICT 5554:2\nVALUE 5554:2 b\n");
    client.expect("OK 5554:4\nNOT_FOUND\nNOT_FOUND\nOK 5554:6\nPAIR k 5554:6 d\nEND 1\n");
    client.expect("ERROR SYNTAX unknown command \"FROB\"; HELP lists the commands\n");
    client.expect("PAIR k 5554:6 d\nEND 1\nBYE\n");
    client.expect_end();
}

#[test]
fn a_client_that_reads_late_gets_every_reply_and_stops_nobody() {
    let cluster = Cluster::start(&THREE);
    let value = "v".repeat(MIB);
    let version = cluster.done(5554, &format!("PUT k {value}"));
    let requests = 64;
    let mut late = TcpStream::connect(cluster.address(5554)).unwrap();
    late.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let burst = "GET k\n".repeat(requests) + "PING\n";
    late.write_all(burst.as_bytes()).unwrap();
    // While this client does not read, others are served.
    let mut other = cluster.client(5554);
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        let began = Instant::now();
        assert_eq!(other.call("GET other").unwrap(), "NOT_FOUND");
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    let mut lines = BufReader::new(late).lines();
    for number in 0..requests {
        let line = lines
            .next()
            .unwrap()
            .unwrap_or_else(|e| panic!("reply {number}: {e}"));
        let start = &line[..line.len().min(60)];
        assert_eq!(
            line.len(),
            format!("VALUE {version} {value}").len(),
            "reply {number}: {start}"
        );
    }
    assert_eq!(lines.next().unwrap().unwrap(), "PONG");
}

/// All that comes until the node closes the connection. The node must not reset it.
fn until_the_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    let ended = stream.read_to_end(&mut received);
    let count = received.len();
    ended.unwrap_or_else(|error| panic!("after {count} bytes: {error}"));
    received
}

/// A connection whose system receives little ahead of the reader.
fn reading_late(cluster: &Cluster) -> TcpStream {
    let late = TcpStream::connect(cluster.address(THREE[0])).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&late, 64 << 10).unwrap();
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(&late, Some(Duration::from_secs(20))).unwrap();
    }
    late
}

/// Closing a connection with unread bytes would reset it, and replies under way would be lost.
#[test]
fn replies_arrive_though_more_was_sent_behind_quit() {
    let cluster = Cluster::start(&THREE);
    let value = "v".repeat(MIB / 4);
    let version = cluster.done(5554, &format!("PUT k {value}"));
    let mut client = reading_late(&cluster);
    let burst = "GET k\n".repeat(7) + "QUIT\n" + &"x".repeat(24 << 10);
    client.write_all(burst.as_bytes()).unwrap();
    eventually("all requests are done", || {
        (cluster.stat(5554, "requests")? == "8").then_some(())
    });
    // This gives the node time to reach its close. It still waits for the client to read then.
    thread::sleep(Duration::from_millis(100));
    let expected = format!("VALUE {version} {value}\n").repeat(7) + "BYE\n";
    let received = until_the_end(&mut client);
    assert!(
        received == expected.as_bytes(),
        "{} bytes and not {}",
        received.len(),
        expected.len()
    );
}

#[test]
fn replies_arrive_though_the_node_ends_with_more_requests_to_come() {
    let cluster = Cluster::start(&THREE);
    let version = cluster.done(5554, &format!("PUT k {}", "v".repeat(MIB)));
    let mut client = reading_late(&cluster);
    // These are more than a node reads at a time.
    let burst = "GET k\n".repeat(10_000);
    client.write_all(burst.as_bytes()).unwrap();
    let mut first = [0];
    client.read_exact(&mut first).unwrap();
    let (received, status) = thread::scope(|scope| {
        let ending = scope.spawn(|| cluster.terminate(5554));
        eventually("the node is about to end", || {
            let ends = cluster.log(5554).contains("ends on ");
            ends.then_some(())
        });
        let received = until_the_end(&mut client);
        drop(client);
        (received, ending.join().unwrap())
    });
    assert!(status.success(), "{status}");
    let reply = format!("VALUE {version} ").len() + MIB + 1;
    assert_eq!((first.len() + received.len()) % reply, 0, "whole replies");
}

#[test]
fn one_client_too_many_gets_busy_though_it_sends_before_it_reads() {
    let cluster = Plan::of(&THREE).set("max_clients", 1).start();
    let _inside = eventually("one is in", || {
        let mut client = cluster.try_client(5554).ok()?;
        (client.call("PING").ok()? == "PONG").then_some(client)
    });
    // The client's bytes arrive before the node accepts the connection.
    cluster.pause(5554);
    let mut refused = reading_late(&cluster);
    refused.write_all(&[b'x'; 10_000]).unwrap();
    cluster.resume(5554);
    let reply = String::from_utf8(until_the_end(&mut refused)).unwrap();
    let busy = "ERROR BUSY all 1 threads for clients are taken; try again later\n";
    assert_eq!(reply, busy);
}

/// Otherwise each side would wait for the other to read.
#[test]
fn twenty_megabytes_of_requests_are_answered_though_no_reply_is_read_before_all_are_written() {
    let cluster = Cluster::start(&THREE);
    let end = format!("END {}\n", HELP.len());
    let reply = end.len() + HELP.iter().map(|line| line.len() + 1).sum::<usize>();
    // The replies are more than the system buffers, and few enough for the node to hold the rest.
    let requests = 6_000_000 / reply;
    let line = format!("HELP{}\n", " ".repeat(20_000_000 / requests));
    let mut client = reading_late(&cluster);
    client.write_all(line.repeat(requests).as_bytes()).unwrap();
    client.write_all(b"PING\nQUIT\n").unwrap();
    let received = until_the_end(&mut client);
    assert!(received.ends_with(b"PONG\nBYE\n"));
    let received = String::from_utf8(received).unwrap();
    assert_eq!(received.matches(&end).count(), requests);
}
