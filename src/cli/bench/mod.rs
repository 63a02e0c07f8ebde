//! `dynamo bench`: a closed loop of clients, and how long they wait.

mod drive;
mod fill;
mod tally;

use std::error::Error;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use super::arguments::{Argument, Arguments, UsageError};
use crate::bytes::MAX_VALUE;
use crate::client::Client;
use crate::client::routed::RoutedClient;
use crate::lock;
use crate::server::descriptors;
use drive::{Connection, drive};
use tally::Tally;

pub const HELP: &str = "\
Measures a running cluster: each connection sends a request, waits for the reply, and sends the
next, or with --ahead keeps several requests in flight. Connections are spread over the nodes in turn; a
client whose node is down goes on with the next node. The keys are bench:0, bench:1 and so on. If any of them will be read, all are put first. At the end all
are deleted. Neither is measured. The time begins when all are connected. Requests that end with an
error are counted separately.

usage: dynamo bench [options]

  --reads PERCENT      how many of the requests are GET, the others PUT; 50 by default
  --connections N      32 by default, at most 10000
  --ahead N            requests that each connection keeps in flight; 1 by default, at most 64
  --route WHERE        any: through the client's node, as telnet does, by default; coordinator: each request straight
                       to the coordinator of its key
  --keys N             keys are drawn evenly from so many; 10000 by default
  --value BYTES        length of the values, from 0; 100 by default
  --secs SECONDS       5 by default
  --keep               do not delete the keys
  --seed N             the same seed draws the same requests; 1 by default
  --cluster FILE       the cluster file; without it, the course's five nodes on 127.0.0.1

examples:
  dynamo bench --reads 100
  dynamo bench --reads 0 --connections 1 --secs 10
  dynamo bench --route coordinator --ahead 16
";

const PATIENCE: Duration = Duration::from_secs(10);
/// How long to leave a node alone that is busy or closes.
const PAUSE: Duration = Duration::from_millis(10);
const MOST_CONNECTIONS: usize = 10_000;
const MOST_AHEAD: usize = 64;
/// Bytes of values that a connection may have in flight where it sends several requests ahead. A
/// node stops reading from a client that does not take its replies, and these clients take none
/// while they send.
const MOST_IN_FLIGHT: usize = 1 << 20;
/// Of a client's connection to one node: to send and to receive.
const FILES_PER_CONNECTION: u64 = 2;
/// Of all else.
const OTHER_FILES: u64 = 32;

struct Load {
    /// Percent.
    reads: u64,
    connections: usize,
    /// Requests that each connection keeps in flight.
    ahead: usize,
    route: Route,
    keys: u64,
    value: usize,
    duration: Duration,
    seed: u64,
    keep: bool,
    addresses: Vec<String>,
}

/// Which node a request is sent to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Route {
    /// The client's.
    Any,
    /// The coordinator of its key.
    Coordinator,
}

impl FromStr for Route {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Route, Self::Err> {
        match word {
            "any" => Ok(Route::Any),
            "coordinator" => Ok(Route::Coordinator),
            _ => Err("it is any or coordinator"),
        }
    }
}

impl Load {
    /// Open files that all clients take.
    fn files(&self) -> u64 {
        let nodes = match self.route {
            Route::Any => 1,
            Route::Coordinator => self.addresses.len(),
        };
        OTHER_FILES + FILES_PER_CONNECTION * (self.connections * nodes) as u64
    }

    /// Checks that the options are within their bounds.
    fn check(&self) -> Result<(), UsageError> {
        for (name, value, least, most) in [
            ("reads", self.reads, 0, 100),
            (
                "connections",
                self.connections as u64,
                1,
                MOST_CONNECTIONS as u64,
            ),
            ("ahead", self.ahead as u64, 1, MOST_AHEAD as u64),
            ("keys", self.keys, 1, u64::MAX),
            ("value", self.value as u64, 0, MAX_VALUE as u64),
        ] {
            if !(least..=most).contains(&value) {
                let text = format!("--{name} must be from {least} to {most}, not {value}");
                return Err(UsageError(text));
            }
        }
        if self.ahead > 1 && self.ahead * self.value > MOST_IN_FLIGHT {
            let text = format!(
                "--ahead {} times --value {} is over {MOST_IN_FLIGHT} bytes; take fewer or shorter ones",
                self.ahead, self.value
            );
            return Err(UsageError(text));
        }
        Ok(())
    }

    /// A value as it is written on a line.
    fn written_value(&self) -> String {
        match self.value {
            0 => "\"\"".to_owned(),
            length => "x".repeat(length),
        }
    }
}

/// Runs the subcommand.
pub fn run(mut arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let Some(load) = parse(&mut arguments)? else {
        print!("{HELP}");
        return Ok(());
    };
    let files = load.files();
    if descriptors::allow(files)? < files {
        let text = "--connections takes more open files than the system allows (ulimit -n)";
        return Err(text.into());
    }
    if load.reads > 0 {
        let began = Instant::now();
        fill::put_all(&load)?;
        let elapsed = began.elapsed().as_secs_f64();
        println!("put {} keys first, in {elapsed:.1} s", load.keys);
    }
    let (total, elapsed) = measure(&load)?;
    total.print(elapsed.as_secs_f64());
    if !load.keep {
        let began = Instant::now();
        let deleted = fill::delete(&load, &total.put)?;
        let elapsed = began.elapsed().as_secs_f64();
        println!("deleted {deleted} keys, in {elapsed:.1} s; --keep lets them stay");
    }
    match total.first_error {
        Some(first) => Err(format!("{} errors, the first: {first}", total.errors).into()),
        None => Ok(()),
    }
}

/// Runs all clients to their end, adds up what they have seen, and tells how long that took.
fn measure(load: &Load) -> Result<(Tally, Duration), Box<dyn Error>> {
    let clients: Vec<Connection> = (0..load.connections)
        .map(|client| match load.route {
            Route::Any => connect(load, client).map(Connection::Any),
            Route::Coordinator => connect_routed(load).map(Connection::Coordinator),
        })
        .collect::<Result<_, _>>()?;
    let done = AtomicU64::new(0);
    let total = Mutex::new(Tally::new()?);
    let gate = RwLock::new(());
    let elapsed = std::thread::scope(|scope| -> Result<_, Box<dyn Error>> {
        // Nobody begins before all are there. An error that ends this lets them go, too.
        let closed = gate.write();
        for (client, connection) in clients.into_iter().enumerate() {
            let (done, total, gate) = (&done, &total, &gate);
            let run = move || {
                drop(gate.read());
                let seen = drive(load, client, connection, done).map_err(|error| error.to_string());
                let mut total = lock(total);
                match seen {
                    Ok(seen) => total
                        .add(seen)
                        .unwrap_or_else(|e| total.failed(e.to_string())),
                    Err(error) => total.failed(error),
                }
            };
            std::thread::Builder::new().spawn_scoped(scope, run)?;
        }
        drop(closed);
        let began = Instant::now();
        report_progress(load, &done, began);
        Ok(began)
    })?
    .elapsed();
    let total = total
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    Ok((total, elapsed))
}

fn parse(arguments: &mut Arguments) -> Result<Option<Load>, UsageError> {
    let mut load = Load {
        reads: 50,
        connections: 32,
        ahead: 1,
        route: Route::Any,
        keys: 10_000,
        value: 100,
        duration: Duration::from_secs(5),
        seed: 1,
        keep: false,
        addresses: Vec::new(),
    };
    while let Some(argument) = arguments.next_own()? {
        let Argument::Option(name) = &argument else {
            return Err(argument.unknown("bench"));
        };
        match name.as_str() {
            "reads" => load.reads = arguments.value("reads")?,
            "connections" => load.connections = arguments.value("connections")?,
            "ahead" => load.ahead = arguments.value("ahead")?,
            "route" => load.route = arguments.value("route")?,
            "keys" => load.keys = arguments.value("keys")?,
            "value" => load.value = arguments.value("value")?,
            "secs" => {
                load.duration = arguments.seconds("secs")?;
            }
            "seed" => load.seed = arguments.value("seed")?,
            "keep" => load.keep = true,
            "help" => return Ok(None),
            _ => return Err(argument.unknown("bench")),
        }
    }
    load.check()?;
    let config = arguments.config()?;
    load.addresses = config
        .nodes
        .iter()
        .map(|member| member.client_address())
        .collect();
    Ok(Some(load))
}

/// Connects to the client's node, or to the first after it that answers.
fn connect(load: &Load, client: usize) -> Result<Client, String> {
    let mut trouble = String::new();
    for place in client..client + load.addresses.len() {
        let address = &load.addresses[place % load.addresses.len()];
        match Client::connect(address, PATIENCE) {
            Ok(connection) => return Ok(connection),
            Err(error) => trouble = format!("{address}: {error}"),
        }
    }
    Err(unreachable(trouble))
}

/// Learns the ring from the first node that answers.
fn connect_routed(load: &Load) -> Result<RoutedClient, String> {
    RoutedClient::connect(&load.addresses, PATIENCE).map_err(unreachable)
}

fn unreachable(last: impl Display) -> String {
    format!("no node can be reached, the last: {last}; is the cluster up?")
}

/// One line a second.
fn report_progress(load: &Load, done: &AtomicU64, began: Instant) {
    let mut before = 0;
    for second in 1.. {
        let next = began + Duration::from_secs(second);
        if next > began + load.duration {
            return;
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let now = done.load(Ordering::Relaxed);
        println!("{second:>4} s  {:>8} requests/s", now - before);
        before = now;
    }
}
