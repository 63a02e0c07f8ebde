//! One client of a measurement: it keeps as many requests in flight as it may.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::tally::Tally;
use super::{Load, PAUSE, connect};
use crate::client::Client;
use crate::client::routed::{Request, RoutedClient};

/// What one client draws, sends and sees.
struct Driver<'a> {
    load: &'a Load,
    random: fastrand::Rng,
    /// As it is written on a line.
    value: String,
    /// Requests whose replies have not come, in the order in which they were sent.
    in_flight: VecDeque<Sent>,
    seen: Tally,
    done: &'a AtomicU64,
}

struct Sent {
    read: bool,
    at: Instant,
}

/// How one client reaches the nodes.
pub enum Connection {
    Any(Client),
    Coordinator(RoutedClient),
}

/// Runs one client until the time is over and the last reply has come.
pub fn drive(load: &Load, client: usize, connection: Connection, done: &AtomicU64) -> Tally {
    let mut driver = Driver {
        load,
        random: fastrand::Rng::with_seed(load.seed.wrapping_mul(1_000_003) + client as u64),
        value: load.written_value(),
        in_flight: VecDeque::with_capacity(load.ahead),
        seen: Tally::new(),
        done,
    };
    let until = Instant::now() + load.duration;
    match connection {
        Connection::Any(connection) => driver.through_a_node(client, connection, until),
        Connection::Coordinator(connection) => driver.straight(connection, until),
    }
    driver.seen
}

impl Driver<'_> {
    /// Sends everything to one node, or to the next if that ends.
    fn through_a_node(&mut self, client: usize, mut connection: Client, until: Instant) {
        loop {
            let requests = self.draw_until(until);
            if self.in_flight.is_empty() {
                return;
            }
            let lines: String = requests.iter().flat_map(|one| [&one.line, "\n"]).collect();
            // All replies that are there are taken before more is sent: that saves system calls.
            let mut usable = self.take(connection.send(lines.as_bytes()), &mut connection);
            while usable && connection.has_line() {
                usable = self.take(Ok(()), &mut connection);
            }
            if !usable {
                self.in_flight.clear();
                std::thread::sleep(PAUSE);
                match connect(self.load, client) {
                    Ok(another) => connection = another,
                    Err(trouble) => return self.seen.failed(trouble),
                }
            }
        }
    }

    /// Sends as many requests as may be in flight together, each to its coordinator, and the next when all are answered.
    fn straight(&mut self, mut client: RoutedClient, until: Instant) {
        loop {
            let requests = self.draw_until(until);
            if requests.is_empty() {
                return;
            }
            for reply in client.call_all(&requests) {
                self.record(reply);
            }
        }
    }

    /// As many requests as may be in flight beside those that are; none once the time is over.
    fn draw_until(&mut self, until: Instant) -> Vec<Request> {
        let mut requests = Vec::new();
        let at = Instant::now();
        while at < until && self.in_flight.len() < self.load.ahead {
            let number = self.random.u64(0..self.load.keys);
            let read = self.random.u64(0..100) < self.load.reads;
            let key = format!("bench:{number}");
            let line = if read {
                format!("GET {key}")
            } else {
                format!("PUT {key} {}", self.value)
            };
            if !read && self.load.reads == 0 {
                self.seen.put.insert(number);
            }
            let key = key.into();
            requests.push(Request { key, line });
            self.in_flight.push_back(Sent { read, at });
        }
        requests
    }

    /// Takes the next reply, if what comes before it went well; false if the connection is of no use any more.
    fn take(&mut self, before: io::Result<()>, connection: &mut Client) -> bool {
        match before.and_then(|()| connection.receive()) {
            Err(_) => self.seen.lost += 1,
            // The node may have closed the connection with it.
            Ok(busy) if busy.starts_with("ERROR BUSY") => self.seen.failed(busy),
            Ok(reply) => {
                self.record(reply);
                return true;
            }
        }
        false
    }

    /// Counts the reply to the oldest request in flight.
    fn record(&mut self, reply: String) {
        let Some(Sent { read, at }) = self.in_flight.pop_front() else {
            return self
                .seen
                .failed(format!("no request has the reply {reply}"));
        };
        let micros = at.elapsed().as_micros() as u64;
        if reply.starts_with("ERROR") {
            return self.seen.failed(reply);
        }
        self.seen.missing += u64::from(reply == "NOT_FOUND");
        if read {
            self.seen.reads += micros;
        } else {
            self.seen.writes += micros;
        }
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}
