//! One client of a measurement: it keeps as many requests in flight as it may.

use std::collections::VecDeque;
use std::error::Error;
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
///
/// # Errors
/// A time that no histogram holds.
pub fn drive(
    load: &Load,
    client: usize,
    connection: Connection,
    done: &AtomicU64,
) -> Result<Tally, Box<dyn Error>> {
    let mut driver = Driver {
        load,
        random: fastrand::Rng::with_seed(load.seed.wrapping_mul(1_000_003) + client as u64),
        value: load.written_value(),
        in_flight: VecDeque::with_capacity(load.ahead),
        seen: Tally::new()?,
        done,
    };
    let until = Instant::now() + load.duration;
    match connection {
        Connection::Any(connection) => driver.through_a_node(client, connection, until)?,
        Connection::Coordinator(connection) => driver.straight(connection, until)?,
    }
    Ok(driver.seen)
}

impl Driver<'_> {
    /// Sends everything to one node, or to the next if that ends.
    fn through_a_node(
        &mut self,
        client: usize,
        mut connection: Client,
        until: Instant,
    ) -> Result<(), Box<dyn Error>> {
        loop {
            let requests = self.draw_until(until);
            if self.in_flight.is_empty() {
                return Ok(());
            }
            let lines: String = requests.iter().flat_map(|one| [&one.line, "\n"]).collect();
            // All replies that are there are taken before more is sent: that saves system calls.
            let mut usable = self.take(connection.send(lines.as_bytes()), &mut connection)?;
            while usable && connection.has_line() {
                usable = self.take(Ok(()), &mut connection)?;
            }
            if !usable {
                self.in_flight.clear();
                std::thread::sleep(PAUSE);
                match connect(self.load, client) {
                    Ok(another) => connection = another,
                    Err(trouble) => {
                        self.seen.failed(trouble);
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Sends as many requests as may be in flight together, each to its coordinator, and the next when all are answered.
    fn straight(&mut self, mut client: RoutedClient, until: Instant) -> Result<(), Box<dyn Error>> {
        loop {
            let requests = self.draw_until(until);
            if requests.is_empty() {
                return Ok(());
            }
            for reply in client.call_all(&requests) {
                self.record(reply)?;
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
    fn take(
        &mut self,
        before: io::Result<()>,
        connection: &mut Client,
    ) -> Result<bool, Box<dyn Error>> {
        let reply = before.and_then(|()| connection.receive());
        let Some(reply) = self.seen.usable(reply) else {
            return Ok(false);
        };
        self.record(reply)?;
        Ok(true)
    }

    /// Counts the reply to the oldest request in flight.
    fn record(&mut self, reply: String) -> Result<(), Box<dyn Error>> {
        let sent = self.in_flight.pop_front();
        let Sent { read, at } = sent.ok_or("a node sent a line that is no reply")?;
        let micros = at.elapsed().as_micros() as u64;
        if reply.starts_with("ERROR") {
            self.seen.failed(reply);
            return Ok(());
        } else if reply == "NOT_FOUND" {
            self.seen.missing += 1;
        }
        let times = if read {
            &mut self.seen.reads
        } else {
            &mut self.seen.writes
        };
        times.record(micros)?;
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
