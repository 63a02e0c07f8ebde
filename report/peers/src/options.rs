//! The command line.

use std::ffi::OsString;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

pub const HELP: &str = "\
Measures this store and etcd in turn with the same closed loop: each connection keeps so many
requests in flight, and sends another when a reply has come. This store is measured twice: through
any node, and by clients that know the ring and go straight to the coordinator of each key. Prints
the medians of all rounds and their ratios. compare.sh starts both and calls this.

usage: peers --store ADDRESSES --store-pids PIDS --etcd URLS --etcd-pids PIDS [options]

  --store HOST:PORT,...   the client ports of this store's nodes
  --store-pids PID,...    their processes, whose CPU time is measured
  --etcd URL,...          the client URLs of etcd's nodes, http://HOST:PORT
  --etcd-pids PID,...     their processes
  --rounds COUNT          how often each is measured; 3 by default
  --seconds SECONDS       how long each measurement takes; 5 by default
  --connections COUNT,... 32,1 by default
  --ahead COUNT,...       requests in flight per connection: 1,16 by default
  --keys COUNT            how many keys there are; 10000 by default
  --value BYTES           how long a value is; 100 by default
";

/// What to measure.
pub struct Options {
    /// This store through any node.
    pub store: Target,
    /// The same straight to the coordinator.
    pub straight: Target,
    pub etcd: Target,
    pub rounds: usize,
    /// How long one measurement takes.
    pub time: Duration,
    pub connections: Vec<usize>,
    /// Requests in flight per connection.
    pub ahead: Vec<usize>,
    pub keys: u64,
    /// In bytes.
    pub value: usize,
}

/// One of the two stores, or a way to ask it.
#[derive(Clone)]
pub struct Target {
    pub name: &'static str,
    pub protocol: Protocol,
    pub addresses: Vec<String>,
    /// The processes of its servers.
    pub pids: Vec<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// This store's lines of text.
    Text,
    /// The same, from clients that know the ring.
    Routed,
    Etcd,
}

impl Target {
    fn new(name: &'static str, protocol: Protocol) -> Target {
        Target {
            name,
            protocol,
            addresses: Vec::new(),
            pids: Vec::new(),
        }
    }
}

/// Reads the command line; `None` asks for help.
pub fn parse() -> Result<Option<Options>, String> {
    let mut options = Options {
        store: Target::new("this store", Protocol::Text),
        straight: Target::new("to the coordinator", Protocol::Routed),
        etcd: Target::new("etcd", Protocol::Etcd),
        rounds: 3,
        time: Duration::from_secs(5),
        connections: vec![32, 1],
        ahead: vec![1, 16],
        keys: 10_000,
        value: 100,
    };
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        let name = match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            Arg::Long(name) => name.to_owned(),
            other => return Err(other.unexpected().to_string()),
        };
        let value = parser.value().map_err(|error| error.to_string())?;
        set(&mut options, &name, value).map_err(|error| format!("--{name}: {error}"))?;
    }
    check(&options)?;
    options.straight.addresses = options.store.addresses.clone();
    options.straight.pids = options.store.pids.clone();
    Ok(Some(options))
}

fn set(options: &mut Options, name: &str, value: OsString) -> Result<(), String> {
    let text = value.string().map_err(|error| error.to_string())?;
    match name {
        "store" => options.store.addresses = list(&text)?,
        "store-pids" => options.store.pids = list(&text)?,
        "etcd" => options.etcd.addresses = list(&text)?,
        "etcd-pids" => options.etcd.pids = list(&text)?,
        "rounds" => options.rounds = number(&text, 1..=100)?,
        "seconds" => options.time = Duration::from_secs(number(&text, 1..=600)?),
        "connections" => options.connections = list(&text)?,
        "ahead" => options.ahead = list(&text)?,
        "keys" => options.keys = number(&text, 1..=10_000_000)?,
        "value" => options.value = number(&text, 1..=1_000_000)?,
        _ => return Err("there is no such option".to_owned()),
    }
    Ok(())
}

fn check(options: &Options) -> Result<(), String> {
    for (target, option) in [(&options.store, "store"), (&options.etcd, "etcd")] {
        if target.addresses.is_empty() || target.pids.is_empty() {
            return Err(format!("--{option} and --{option}-pids are needed"));
        }
    }
    // A node runs 64 requests of a connection at a time.
    for (name, counts, most) in [
        ("connections", &options.connections, 1000),
        ("ahead", &options.ahead, 64),
    ] {
        if counts.is_empty() || !counts.iter().all(|count| (1..=most).contains(count)) {
            return Err(format!("--{name}: between 1 and {most} each"));
        }
    }
    Ok(())
}

fn list<T: FromStr<Err: Display>>(text: &str) -> Result<Vec<T>, String> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    let parsed = parts.map(|part| part.parse().map_err(|error| format!("{part:?}: {error}")));
    parsed.collect()
}

fn number<T>(text: &str, possible: std::ops::RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr<Err: Display> + PartialOrd + Display,
{
    let number = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
    if possible.contains(&number) {
        return Ok(number);
    }
    let (least, most) = possible.into_inner();
    Err(format!("{number} is not between {least} and {most}"))
}
