//! Overload and hostile clients: whatever they do, a node's memory and open files stay within the
//! bounds that `report/limitations.md` names, and honest clients are served within the deadline.
//!
//! What a process holds is read from `/proc`.
#![cfg(target_os = "linux")]

mod support;

use std::collections::VecDeque;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use simple_dynamo::config::Config;
use simple_dynamo::peer::inbound::MOST_STRANGERS;
use support::asking::DEADLINE;
use support::cluster::{Cluster, Plan, THREE, eventually};
use support::raw::Raw;
use support::usage::Usage;
use support::workload::{Progress, StopWhenDone, Workload, assert_linearizable};

const MIB: usize = 1 << 20;
/// `client_memory_mib` of the nodes here: as little as may be.
const CLIENT_MEMORY: usize = 32;
/// Connections that a node keeps open for its peers, its data and its listeners.
const OWN_DESCRIPTORS: u64 = 60;
/// Connections that may wait to be accepted: beyond the system's bound they are tried again after
/// a second.
const MOST_AT_ONCE: usize = 100;
/// The node that is attacked.
const VICTIM: u32 = 5554;
/// Honest clients of each test, and the keys that they ask for.
const HONEST: u32 = 6;
const KEYS: [&str; 4] = ["foo", "key38", "key15", "hello"];

fn plan() -> Plan {
    Plan::of(&THREE).set("client_memory_mib", CLIENT_MEMORY)
}

/// Each attack has the machine for itself.
static MACHINE: Mutex<()> = Mutex::new(());

/// Starts nodes whose allocator gives large blocks back to the system at once: so their memory is
/// what they hold.
fn start(plan: Plan) -> (Cluster, MutexGuard<'static, ()>) {
    let alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = plan.lay_out();
    let blocks = ("MALLOC_MMAP_THRESHOLD_", "131072");
    cluster
        .ids()
        .for_each(|id| cluster.start_node_with(id, &[blocks]));
    cluster.await_all_ready();
    (cluster, alone)
}

fn usage(cluster: &Cluster, id: u32) -> Usage {
    Usage::of(cluster.pid(id)).expect("the process runs")
}

/// A node's memory at its peak, with so many connections of clients: their common budget, what
/// each has free, and what a node takes anyway. Replies on their way into the budget are in no
/// more hands than there are threads that bring them.
fn assert_memory_bounded(cluster: &Cluster, clients: usize) {
    let bound = (CLIENT_MEMORY + 96) * MIB + clients * 320 * 1024;
    for id in cluster.ids() {
        let peak = usage(cluster, id).peak as usize;
        assert!(
            peak < bound,
            "node {id} took {peak} bytes, and {bound} are allowed"
        );
    }
}

/// Attacks while honest clients ask every node; each of their requests must end well and within
/// the deadline, and all they were told be linearizable.
fn besiege<T>(cluster: &Cluster, attack: impl FnOnce(&Progress) -> T) -> T {
    let workload = Workload {
        cluster,
        clients: HONEST,
        keys: &KEYS,
        seed: 1,
    };
    let (observed, result) = workload.run(|progress| {
        progress.await_more(50);
        let result = attack(progress);
        progress.await_more(50);
        result
    });
    assert_eq!(observed.refused, 0, "{:?}", observed.examples);
    assert!(observed.longest < DEADLINE, "{:?}", observed.longest);
    assert_linearizable(&observed);
    result
}

/// Runs `attacker` on so many connections at once, each on a thread of its own.
fn at_once<T: Send>(
    cluster: &Cluster,
    count: usize,
    attacker: impl Fn(usize, Raw) -> T + Sync,
) -> Vec<T> {
    let address = cluster.address(VICTIM);
    let (address, attacker) = (&address, &attacker);
    thread::scope(|scope| {
        let attackers: Vec<_> = (0..count)
            .map(|number| scope.spawn(move || attacker(number, Raw::connect(address))))
            .collect();
        let joined = attackers.into_iter().map(|thread| thread.join().unwrap());
        joined.collect()
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A value that takes six times its length on a line.
fn control_characters(count: usize) -> String {
    format!("\"{}\"", "\\u0001".repeat(count))
}

/// How many of a crowd were served, and how many told that there is no room.
#[derive(Default, Debug)]
struct Told {
    served: usize,
    busy: usize,
}

/// Opens so many connections, in waves, and keeps them all open, while one that is inside is
/// served within the deadline. The node has `threads` threads for clients.
fn assert_crowd_bounded(cluster: &Cluster, threads: usize, connections: usize) {
    let before = usage(cluster, VICTIM);
    // The connections that looked whether the node is ready may still be ending.
    let mut honest = eventually("an honest client is in", || {
        let mut client = cluster.try_client(VICTIM).ok()?;
        (client.call("PING").ok()? == "PONG").then_some(client)
    });
    let stop = AtomicBool::new(false);
    let (longest, told) = thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let reply = honest.call("PUT k v").unwrap();
                assert!(reply.starts_with("OK "), "{reply}");
                longest = longest.max(began.elapsed());
            }
            longest
        });
        let stopping = StopWhenDone(&stop);
        let mut crowd = Vec::with_capacity(connections);
        let mut told = Told::default();
        while crowd.len() < connections {
            let wave = MOST_AT_ONCE.min(connections - crowd.len());
            let from = crowd.len();
            crowd.extend(join_crowd(cluster, wave));
            let full = usage(cluster, VICTIM);
            assert!(
                full.descriptors <= OWN_DESCRIPTORS + 2 * threads as u64,
                "{full:?}"
            );
            assert!(full.threads <= before.threads + threads as u64, "{full:?}");
            crowd[from..]
                .iter_mut()
                .for_each(|client| hear(client, threads, &mut told));
        }
        drop(stopping);
        (inside.join().unwrap(), told)
    });
    assert!(longest < DEADLINE, "{longest:?}");
    assert!(told.served < threads, "{told:?}");
    assert!(told.busy > connections - threads, "{told:?}");
    drop(honest);
    eventually("all that they took is given back", || {
        let after = usage(cluster, VICTIM);
        (after.descriptors <= before.descriptors).then_some(())
    });
    // Their lines are short, so they hold nothing of what a client may.
    assert_memory_bounded(cluster, 0);
}

/// New connections, of which half speak before they listen.
fn join_crowd(cluster: &Cluster, count: usize) -> Vec<Raw> {
    let address = cluster.address(VICTIM);
    let connect = |number| {
        let mut client = Raw::connect(&address);
        if number % 2 == 0 {
            client.send("PING\n");
        }
        client
    };
    (0..count).map(connect).collect()
}

fn hear(client: &mut Raw, threads: usize, told: &mut Told) {
    client.send("PING\n");
    let busy = format!("ERROR BUSY all {threads} threads for clients are taken; try again later\n");
    match client.line() {
        line if line == "PONG\n" => told.served += 1,
        line if line == busy => told.busy += 1,
        line => panic!("{line:?}"),
    }
}

#[test]
fn ten_times_more_clients_than_threads_are_told_busy_and_those_inside_are_served() {
    let threads = 20;
    let (cluster, _alone) = start(plan().set("max_clients", threads));
    assert_crowd_bounded(&cluster, threads, 10 * threads);
}

#[test]
fn ten_thousand_connections_are_served_or_told_busy_and_memory_and_files_stay_bounded() {
    let connections = 10_000;
    // As many threads for clients as a node has that is told nothing else.
    let threads = Config::course().max_clients;
    if !may_open(connections + OWN_DESCRIPTORS) {
        println!("skipped: the system does not allow {connections} open files (ulimit -Hn)");
        return;
    }
    let (cluster, _alone) = start(plan());
    assert_crowd_bounded(&cluster, threads, connections as usize);
}

/// Raises this process's limit of open files so far; false if the system does not allow it.
fn may_open(files: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= files);
    let raised = Rlimit {
        current: Some(files),
        ..limit
    };
    enough(limit.current) || (enough(limit.maximum) && setrlimit(Resource::Nofile, raised).is_ok())
}

#[test]
fn a_low_limit_of_open_files_makes_room_for_fewer_clients_and_ends_no_node() {
    let cluster = plan().lay_out();
    let (file, data) = (cluster.file(VICTIM), cluster.data(VICTIM));
    let limited = "ulimit -n 300 && exec \"$0\" node 5554 --cluster \"$1\" --data \"$2\"";
    let mut node = Command::new("sh")
        .args(["-c", limited, env!("CARGO_BIN_EXE_dynamo")])
        .args([file, data])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    cluster.await_answer(VICTIM);
    let address = cluster.address(VICTIM);
    let mut crowd: Vec<Raw> = (0..200).map(|_| Raw::connect(&address)).collect();
    let mut busy = 0;
    for client in &mut crowd {
        client.send("PING\nQUIT\n");
        let reply = text(&client.rest());
        assert!(
            reply == "PONG\nBYE\n" || reply.starts_with("ERROR BUSY "),
            "{reply}"
        );
        busy += usize::from(reply.starts_with("ERROR BUSY "));
    }
    assert!(busy > 100, "only {busy} were told");
    assert_eq!(node.try_wait().unwrap(), None);
    node.kill().unwrap();
    node.wait().unwrap();
}

#[test]
fn clients_that_never_read_their_replies_hold_no_more_than_their_budget() {
    let (cluster, _alone) = start(plan());
    let clients = 40;
    cluster.done(VICTIM, &format!("PUT big {}", control_characters(MIB / 2)));
    let greedy = besiege(&cluster, |progress| {
        let greedy = at_once(&cluster, clients, |_, mut client| {
            let pipeline = "GET big\n".repeat(1000);
            client.set_patience(Duration::from_millis(300));
            // Until nothing more is taken: it has long stopped to be served then.
            while client.try_send(&pipeline) {}
            client
        });
        progress.await_more(200);
        greedy
    });
    assert_memory_bounded(&cluster, clients);
    drop(greedy);
    // What they held is there for others.
    let reply = eventually("a long reply is sent again", || {
        let reply = cluster.call(VICTIM, "GET big");
        reply.starts_with("VALUE ").then_some(reply)
    });
    assert!(reply.len() > 3 * MIB);
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
                assert!(began.elapsed() < DEADLINE, "nobody ends it");
                thread::sleep(Duration::from_millis(20));
            }
            text(&client.rest())
        })
    });
    let late = "ERROR SYNTAX half a line, and no end of it within 500 ms\n";
    let busy = "ERROR BUSY too many clients send long lines at once; try again later\n";
    for (number, end) in ends.iter().enumerate() {
        // A connection that is closed while it sends may lose the reason.
        let expected = end == late || (number % 2 == 0 && (end == busy || end.is_empty()));
        assert!(expected, "{number}: {end:?}");
    }
    assert!(ends.iter().any(|end| end == busy), "{ends:?}");
    assert_memory_bounded(&cluster, clients);
}

#[test]
fn junk_and_endless_lines_are_told_what_they_are_and_leave_nothing_behind() {
    let (cluster, _alone) = start(plan());
    let clients = 40;
    besiege(&cluster, |_| {
        // One after the other, so that each long line is taken; and all stay.
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
                // No byte 255, with which telnet would swallow the rest.
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
fn big_values_from_many_at_once_are_written_or_told_busy_and_none_is_lost() {
    let (cluster, _alone) = start(plan());
    let (clients, length) = (30, MIB);
    let value = "v".repeat(length);
    let told = besiege(&cluster, |_| {
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
    let done = told.iter().filter(|reply| reply.starts_with("OK "));
    assert!(done.count() > 0, "{told:?}");
    for (number, reply) in told.iter().enumerate() {
        let read = cluster.call(THREE[number % 3], &format!("GET big{number}"));
        let whole = read.starts_with("VALUE ") && read.len() > length;
        match reply.split(' ').take(2).collect::<Vec<_>>()[..] {
            ["OK", _] => assert!(whole, "{number} is lost"),
            ["ERROR", "BUSY" | "UNAVAILABLE"] => assert_eq!(read, "NOT_FOUND"),
            ["ERROR", "UNKNOWN"] => assert!(whole || read == "NOT_FOUND"),
            // Closed while it still sent: the reason may be lost, and nothing was begun.
            _ => assert!(reply.is_empty() && read == "NOT_FOUND", "{number}: {reply}"),
        }
    }
    // Their messages between the nodes, and the values themselves.
    assert_memory_bounded(&cluster, 3 * clients + 2 * HONEST as usize);
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
        let full = besiege(&cluster, |_| {
            let peer = 5556;
            cluster.kill(peer);
            cluster.restart(peer);
            cluster.await_sight(peer, VICTIM, "up");
            usage(&cluster, VICTIM)
        });
        stop.store(true, Ordering::Relaxed);
        crowd.join().unwrap();
        // Some that were told to go are still on their way out.
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
