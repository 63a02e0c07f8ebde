//! `dynamo bench`: a closed loop of clients, and how long they wait.

mod drive;
mod fill;
mod group;
mod tally;

use std::error::Error;
use std::fmt::Display;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum, value_parser};

use super::arguments::{seconds, wrong};
use crate::bytes::MAX_VALUE;
use crate::client::Client;
use crate::client::routed::RoutedClient;
use crate::config::{Config, Member};
use crate::protocol::group::GroupName;
use crate::server::descriptors;
use drive::{Connection, drive};
use tally::Tally;

const PATIENCE: Duration = Duration::from_secs(10);
/// How long to leave a node alone that is busy or closes.
const PAUSE: Duration = Duration::from_millis(10);
/// Bytes of values that a connection may have in flight where it sends several requests ahead. A
/// node stops reading from a client that does not take its replies, and these clients take none
/// while they send.
const MOST_IN_FLIGHT: usize = 1 << 20;
/// Of a client's connection to one node: to send and to receive.
const FILES_PER_CONNECTION: u64 = 2;
/// Of all else.
const OTHER_FILES: u64 = 32;

/// Measures a running cluster.
///
/// Each connection sends a request, waits for the reply, and sends the next, or with --ahead keeps several requests
/// in flight. Connections are spread over the nodes in turn; a client whose node is down goes on with the next node.
///
/// The keys are bench:0, bench:1 and so on. If any of them will be read, all are put first. At the end all are
/// deleted. Neither is measured. The time begins when all are connected. Requests that end with an error are counted
/// separately.
#[derive(Args)]
#[command(after_help = "\
Examples:
  dynamo bench --reads 100
  dynamo bench --reads 0 --connections 1 --secs 10
  dynamo bench --route coordinator --ahead 16
  dynamo bench --group talk --members 5 --value 40")]
pub struct Load {
    // A negative number is a value that is out of bounds. Otherwise it would be taken for an option.
    /// How many of the requests are GET, the others PUT.
    #[arg(long, value_name = "PERCENT", default_value_t = 50)]
    #[arg(value_parser = value_parser!(u64).range(..=100), allow_negative_numbers = true)]
    reads: u64,
    /// How many clients there are, at most 10000.
    #[arg(long, default_value_t = 32)]
    #[arg(value_parser = Count::new().range(1..=10_000), allow_negative_numbers = true)]
    connections: usize,
    /// Requests that each connection keeps in flight, at most 64.
    #[arg(long, default_value_t = 1)]
    #[arg(value_parser = Count::new().range(1..=64), allow_negative_numbers = true)]
    ahead: usize,
    /// Which node a request is sent to.
    #[arg(long, value_enum, default_value_t = Route::Any)]
    route: Route,
    /// Keys are drawn evenly from so many.
    #[arg(long, default_value_t = 10_000)]
    #[arg(value_parser = value_parser!(u64).range(1..), allow_negative_numbers = true)]
    keys: u64,
    /// Length of the values, from 0.
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    #[arg(value_parser = Count::new().range(..=MAX_VALUE as u64), allow_negative_numbers = true)]
    value: usize,
    /// How long the measurement takes.
    #[arg(long = "secs", value_name = "SECONDS", default_value = "5")]
    #[arg(value_parser = seconds, allow_negative_numbers = true)]
    duration: Duration,
    /// The same seed draws the same requests.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Measure a group of this name: the clients say messages, and members are told them.
    #[arg(long, value_name = "NAME", value_parser = GroupName::parse)]
    #[arg(conflicts_with_all = ["reads", "ahead", "route", "keys", "seed"])]
    group: Option<GroupName>,
    /// How many members the group has, spread over the nodes in turn.
    #[arg(long, default_value_t = 5, requires = "group")]
    #[arg(value_parser = Count::new().range(..=10_000), allow_negative_numbers = true)]
    members: usize,
    /// Do not delete the keys, or the messages.
    #[arg(long)]
    keep: bool,
    #[arg(skip)]
    addresses: Vec<String>,
}

/// A number of something.
type Count = RangedU64ValueParser<usize>;

/// Which node a request is sent to.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Route {
    /// The client's, as with telnet.
    Any,
    /// Straight to the coordinator of its key.
    Coordinator,
}

impl Load {
    /// Open files that all clients take.
    fn files(&self) -> u64 {
        let nodes = match self.route {
            Route::Any => 1,
            Route::Coordinator => self.addresses.len(),
        };
        let connections = self.connections * nodes + self.members;
        OTHER_FILES + FILES_PER_CONNECTION * connections as u64
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
pub fn run(mut load: Load, config: &Config) -> Result<(), Box<dyn Error>> {
    let Load { ahead, value, .. } = load;
    if ahead > 1 && ahead * value > MOST_IN_FLIGHT {
        let text = format!(
            "--ahead {ahead} times --value {value} is over {MOST_IN_FLIGHT} bytes; take fewer or shorter ones"
        );
        return Err(wrong(&text).into());
    }
    let addresses = config.nodes.iter().map(Member::client_address);
    load.addresses = addresses.collect();
    let files = load.files();
    if descriptors::allow(files)? < files {
        let text = "--connections takes more open files than the system allows (ulimit -n)";
        return Err(text.into());
    }
    if let Some(group) = &load.group {
        return group::run(&load, group);
    }
    if load.reads > 0 {
        let began = Instant::now();
        let put = fill::put_all(&load)?;
        let elapsed = began.elapsed().as_secs_f64();
        println!("put {put} keys first, in {elapsed:.1} s");
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
            // Learns the ring from the first node that answers.
            Route::Coordinator => RoutedClient::connect(&load.addresses, PATIENCE)
                .map(Connection::Coordinator)
                .map_err(unreachable),
        })
        .collect::<Result<_, _>>()?;
    let (done, gate) = (&AtomicU64::new(0), &RwLock::new(()));
    thread::scope(|scope| {
        // Nobody begins before all are there. An error that ends this lets them go, too.
        let closed = gate.write();
        let mut threads = Vec::new();
        for (client, connection) in clients.into_iter().enumerate() {
            let run = move || {
                drop(gate.read());
                drive(load, client, connection, done)
            };
            threads.push(thread::Builder::new().spawn_scoped(scope, run)?);
        }
        drop(closed);
        let began = Instant::now();
        report_progress(load, done, began);
        let mut total = Tally::new();
        for thread in threads {
            total.add(thread.join().map_err(|_| "a client panicked")?);
        }
        Ok((total, began.elapsed()))
    })
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

fn unreachable(last: impl Display) -> String {
    format!("no node can be reached, the last: {last}; is the cluster up?")
}

/// One line a second.
fn report_progress(load: &Load, done: &AtomicU64, began: Instant) {
    let mut before = 0;
    for second in 1..=load.duration.as_secs() {
        let next = began + Duration::from_secs(second);
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let now = done.load(Ordering::Relaxed);
        println!("{second:>4} s  {:>8} requests/s", now - before);
        before = now;
    }
}
