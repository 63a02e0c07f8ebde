//! Clients that send several requests before they read a reply. Requests for different keys run at the same
//! time. Yet each client gets its replies in order, and each request sees those before it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use crate::support::cluster::{Cluster, FIVE, Plan, THREE, eventually};
use crate::support::raw::Raw;

/// How many requests of a connection may run at a time.
const MOST: usize = 64;

fn raw(cluster: &Cluster) -> Raw {
    Raw::connect(&cluster.address(5554))
}

/// Asserts that nothing has come on a connection yet.
fn assert_silent(stream: &TcpStream) {
    stream.set_nonblocking(true).unwrap();
    let nothing = (&*stream).read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
}

/// The first request hangs, since most replicas of its key are paused. The second is for a key of live nodes.
#[test]
fn a_request_does_not_wait_for_one_for_another_key_and_its_reply_does() {
    let cluster = Plan::of(&FIVE).set("request_deadline_ms", 15_000).start();
    let key = |fits: &dyn Fn(&[u32]) -> bool| {
        let mut keys = (0..).map(|number| format!("key{number}"));
        keys.find(|key| fits(&cluster.replicas(key))).unwrap()
    };
    let quick = key(&|replicas| replicas.contains(&5554));
    let paused: Vec<u32> = {
        let live = cluster.replicas(&quick);
        FIVE.into_iter().filter(|id| !live.contains(id)).collect()
    };
    let hanging = key(&|replicas| paused.iter().all(|id| replicas.contains(id)));
    paused.iter().for_each(|&id| cluster.pause(id));
    let mut client = TcpStream::connect(cluster.address(5554)).unwrap();
    let requests = format!("PUT {hanging} v\nPUT {quick} w\n");
    client.write_all(requests.as_bytes()).unwrap();
    eventually("the second request is done", || {
        (cluster.call(5554, &format!("GET {quick}")).ends_with(" w")).then_some(())
    });
    assert_silent(&client);
    paused.iter().for_each(|&id| cluster.resume(id));
    client.write_all(b"QUIT\n").unwrap();
    let mut replies = String::new();
    client.read_to_string(&mut replies).unwrap();
    let words: Vec<_> = replies.split_whitespace().collect();
    assert_eq!(words[..3], ["OK", "5554:1", "OK"], "{replies}");
    assert!(replies.ends_with("\nBYE\n"), "{replies}");
}

/// The network lets messages straggle, so that requests end in any order.
#[test]
fn replies_come_in_order_and_each_request_sees_those_before_it_for_its_key() {
    let cluster = Plan::of(&THREE).proxied().start();
    for (from, to) in [(5554, 5556), (5556, 5554), (5554, 5558), (5558, 5554)] {
        let network = cluster.network();
        network.straggle(from, to, Duration::from_millis(20));
    }
    let mut rng = Rng::with_seed(7);
    let mut values = [const { None::<usize> }; 20];
    let (mut requests, mut expected) = (String::new(), Vec::new());
    for number in 0..600 {
        let key = rng.usize(..values.len());
        if rng.bool() {
            requests += &format!("PUT key{key} {number}\n");
            values[key] = Some(number);
            expected.push(String::new());
        } else {
            requests += &format!("GET key{key}\n");
            let value = values[key].map(|value| format!(" {value}"));
            expected.push(value.unwrap_or("NOT_FOUND".to_owned()));
        }
    }
    let mut client = raw(&cluster);
    client.send(requests);
    for (number, value) in expected.into_iter().enumerate() {
        let reply = client.line();
        let fits = match value.as_str() {
            "" => reply.starts_with("OK "),
            value => reply.ends_with(&format!("{value}\n")),
        };
        assert!(fits, "request {number}: {reply} and not {value:?}");
    }
}

#[test]
fn what_is_not_about_one_key_sees_all_requests_before_it_and_none_after_it() {
    let cluster = Cluster::start(&THREE);
    let mut client = raw(&cluster);
    let puts = |word: &str| -> String {
        let put = |number| format!("PUT {word}{number} v\n");
        (0..30).map(put).collect()
    };
    let (first, second) = (puts("first"), puts("second"));
    client.send(format!(
        "{first}GET *\n{second}GET @\nSTATS\n{first}DEL *\nGET *\n{second}PING\nGET *\n"
    ));
    let mut skip = |line: &str| {
        let lines = std::iter::repeat_with(|| client.line());
        let before: Vec<_> = lines.take_while(|it| it != line).collect();
        before
    };
    assert_eq!(skip("END 30\n").len(), 60);
    let listed = skip("END 60\n");
    assert_eq!(listed.len(), 90);
    let stats = skip("OK 60\n");
    let shows = |line: &str| stats.iter().any(|it| it == line);
    assert!(shows("requests 60\n"), "{stats:?}");
    assert!(shows("requests_in_flight 0\n"), "{stats:?}");
    assert_eq!(skip("END 0\n").len(), 0);
    assert_eq!(skip("PONG\n").len(), 30);
    assert_eq!(skip("END 30\n").len(), 30);
}

#[test]
fn a_client_has_no_more_requests_under_way_than_may_be() {
    let cluster = Plan::of(&THREE).set("request_deadline_ms", 15_000).start();
    let mut client = raw(&cluster);
    let warm = 30;
    client.send("GET k\n".repeat(warm));
    client.expect("NOT_FOUND\n".repeat(warm));
    THREE[1..].iter().for_each(|&id| cluster.pause(id));
    let many = 200;
    let gets: String = (0..many).map(|number| format!("GET k{number}\n")).collect();
    client.send(gets);
    let in_flight = || cluster.stat(5554, "requests_in_flight").unwrap();
    eventually("as many requests run as may", || {
        (in_flight() == MOST.to_string()).then_some(())
    });
    let requests = || cluster.stat(5554, "requests").unwrap();
    for _ in 0..20 {
        assert_eq!(requests(), (warm + MOST).to_string());
    }
    THREE[1..].iter().for_each(|&id| cluster.resume(id));
    client.expect("NOT_FOUND\n".repeat(many));
}

#[test]
fn a_node_with_enough_to_do_takes_one_request_of_each_connection_at_a_time() {
    let cluster = Plan::of(&THREE).set("request_deadline_ms", 15_000).start();
    let (enough, connections, warm) = (512, 20, 30);
    let mut clients: Vec<Raw> = (0..connections).map(|_| raw(&cluster)).collect();
    // A connection begins few requests beside each other before it has seen that replies are short.
    for client in &mut clients {
        client.send("GET k\n".repeat(warm));
        client.expect("NOT_FOUND\n".repeat(warm));
    }
    THREE[1..].iter().for_each(|&id| cluster.pause(id));
    let gets: String = (0..MOST).map(|number| format!("GET k{number}\n")).collect();
    clients.iter_mut().for_each(|client| client.send(&gets));
    let in_flight = || -> usize {
        let stat = cluster.stat(5554, "requests_in_flight").unwrap();
        stat.parse().unwrap()
    };
    let settled = eventually("as many run as may", || {
        let count = in_flight();
        (count >= enough && count == in_flight()).then_some(count)
    });
    assert!(settled <= enough + connections, "{settled}");
    THREE[1..].iter().for_each(|&id| cluster.resume(id));
    for mut client in clients {
        client.expect("NOT_FOUND\n".repeat(MOST));
    }
}

#[test]
fn what_was_under_way_when_the_node_ends_is_answered_and_nothing_else_is_done() {
    let cluster = Cluster::start(&THREE);
    let mut client = raw(&cluster);
    let count = 20_000;
    let puts: String = (0..count)
        .map(|number| format!("PUT k{number} v\n"))
        .collect();
    let mut sending = client.share();
    let replies = thread::scope(|scope| {
        // The node stops reading when it ends.
        scope.spawn(move || sending.try_send(puts));
        let first = client.line();
        let ending = scope.spawn(|| cluster.terminate(5554));
        let rest = client.rest();
        assert!(ending.join().unwrap().success());
        first + &String::from_utf8(rest).unwrap()
    });
    let done = replies.lines().count();
    assert!(replies.ends_with('\n') && done < count, "{done} of {count}");
    assert!(replies.lines().all(|reply| reply.starts_with("OK ")));
    let mut other = cluster.client(5556);
    let mut is_there = |number: usize| other.call(&format!("GET k{number}")).unwrap();
    assert_eq!(is_there(done), "NOT_FOUND");
    assert_eq!(is_there(done + 1), "NOT_FOUND");
    for number in (0..done).rev().take(2 * MOST) {
        assert!(is_there(number).starts_with("VALUE "), "{number} of {done}");
    }
}
