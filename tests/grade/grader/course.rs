//! The five nodes that are graded, and what they should hold.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use simple_dynamo::client::Client;

use super::placement;
use super::score::Lost;
use crate::support::cluster::{Cluster, FIVE, Plan};

/// How long a copy may take to reach a replica that was not waited for.
const ARRIVAL: Duration = Duration::from_secs(3);

/// Keys and their values.
pub type Pairs = BTreeMap<String, String>;

/// What a reply must be.
pub enum Expected {
    /// `OK` and a version.
    Done,
    /// This value, at whatever version.
    Value(String),
    Missing,
    /// `OK` and a number.
    Count(usize),
}

impl Expected {
    /// The reply that a key's query must get.
    pub fn of(value: Option<&String>) -> Expected {
        value.map_or(Expected::Missing, |value| Expected::Value(value.clone()))
    }

    fn is_met(&self, reply: &str) -> bool {
        match self {
            Expected::Done => reply.starts_with("OK "),
            Expected::Missing => reply == "NOT_FOUND",
            Expected::Count(count) => reply == format!("OK {count}"),
            Expected::Value(value) => {
                let found = reply.strip_prefix("VALUE ");
                found.and_then(|rest| rest.split_once(' ')).map(|(_, v)| v) == Some(value)
            }
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Done => f.write_str("OK and the version"),
            Expected::Value(value) => write!(f, "VALUE, the version, and {value}"),
            Expected::Missing => f.write_str("NOT_FOUND"),
            Expected::Count(count) => write!(f, "OK {count}"),
        }
    }
}

/// Sends one request through `client`, a connection to `node`, and checks the reply.
pub fn ask(
    client: &mut Client,
    node: u32,
    request: &str,
    expected: &Expected,
) -> Result<String, Lost> {
    let reply = client.call(request);
    let reply = reply.unwrap_or_else(|error| format!("nothing: {error}"));
    if expected.is_met(&reply) {
        return Ok(reply);
    }
    let asked = format!("node {node}: {request}");
    Err(Lost::new(asked, reply, expected.to_string()))
}

/// The nodes, and what the phases so far have left in the store.
pub struct Course {
    pub cluster: Cluster,
    pub rng: Rng,
    pub pairs: Pairs,
    /// Where logs and histories go.
    pub folder: PathBuf,
    last_key: usize,
}

impl Course {
    /// Starts five nodes with nothing in them.
    pub fn start(seed: u64, switches: &[(&str, &str)], folder: &Path) -> Course {
        Course {
            folder: folder.to_owned(),
            cluster: Plan::of(&FIVE).switched(switches).start(),
            rng: Rng::with_seed(seed),
            pairs: Pairs::new(),
            last_key: 0,
        }
    }

    /// Starts the nodes that a phase that ended early has left down.
    pub fn mend(&self) {
        let down = FIVE.into_iter().filter(|id| !self.cluster.runs(*id));
        down.for_each(|id| self.cluster.start_node(id));
        self.cluster.await_all_ready();
    }

    /// Keeps what the nodes have logged.
    pub fn keep_logs(&self) {
        for id in FIVE {
            let file = self.folder.join(format!("{id}.log"));
            fs::write(file, self.cluster.log(id)).expect("the folder can be written to");
        }
    }

    /// A key that was never used.
    pub fn new_key(&mut self) -> String {
        self.last_key += 1;
        format!("{}-{:04x}", self.last_key, self.rng.u16(..))
    }

    /// A value that needs no quotes: several words, and not all of them ASCII.
    pub fn new_value(&mut self) -> String {
        let words = ["grün", "two words", "5554", "@", "{\"a\":1}", "x"];
        let word = words[self.rng.usize(..words.len())];
        format!("{word} {}", self.rng.u32(..))
    }

    pub fn any_node(&mut self) -> u32 {
        FIVE[self.rng.usize(..FIVE.len())]
    }

    /// The nodes that must hold a key, its coordinator first.
    pub fn replicas(&self, key: &str) -> Vec<u32> {
        placement::replicas(&FIVE, key)
    }

    /// What a node must hold of some pairs.
    pub fn share_of(&self, node: u32, pairs: &Pairs) -> Pairs {
        let held = |(key, _): &(&String, &String)| self.replicas(key).contains(&node);
        let share = pairs.iter().filter(held);
        share
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Sends one request on a connection of its own.
    pub fn ask(&self, node: u32, request: &str, expected: &Expected) -> Result<String, Lost> {
        let mut client = self.connect(node)?;
        ask(&mut client, node, request, expected)
    }

    pub fn connect(&self, node: u32) -> Result<Client, Lost> {
        self.cluster.try_client(node).map_err(|error| {
            let asked = format!("node {node}: a connection");
            Lost::new(asked, error.to_string(), "that it is accepted")
        })
    }

    pub fn insert(&mut self, node: u32, key: &str, value: &str) -> Result<(), Lost> {
        self.ask(node, &format!("PUT {key} {value}"), &Expected::Done)?;
        self.pairs.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    pub fn delete(&mut self, node: u32, key: &str) -> Result<(), Lost> {
        self.ask(node, &format!("DEL {key}"), &Expected::Done)?;
        self.pairs.remove(key);
        Ok(())
    }

    /// Checks that a key's query returns what `pairs` holds.
    pub fn query(&self, node: u32, key: &str) -> Result<(), Lost> {
        let expected = Expected::of(self.pairs.get(key));
        self.ask(node, &format!("GET {key}"), &expected).map(drop)
    }

    /// Checks that `GET @` of a node lists its share of `pairs`.
    pub fn query_own(&self, node: u32) -> Result<(), Lost> {
        let expected = self.share_of(node, &self.pairs);
        soon(|| self.query_listing(node, "GET @", &expected))
    }

    /// Checks how many keys a node holds. Unlike `GET @`, this does not make the node ask the others.
    pub fn query_count(&self, node: u32) -> Result<(), Lost> {
        let expected = format!("keys {}", self.share_of(node, &self.pairs).len());
        soon(|| {
            let keys = self.cluster.stat(node, "keys").unwrap_or_default();
            let keys = format!("keys {keys}");
            let lost = || Lost::new(asked(node, "STATS"), &keys, &expected);
            (keys == expected).then_some(()).ok_or_else(lost)
        })
    }

    /// Checks that `GET *` of a node lists all of `pairs`.
    pub fn query_all(&self, node: u32) -> Result<(), Lost> {
        self.query_listing(node, "GET *", &self.pairs)
    }

    /// Checks that a listing has each of these pairs once, and nothing else.
    pub fn query_listing(&self, node: u32, request: &str, expected: &Pairs) -> Result<(), Lost> {
        let listed = self.list(node, request)?;
        let mut found = Pairs::new();
        for (key, value) in &listed {
            if found.insert(key.clone(), value.clone()).is_some() {
                let answered = format!("{key} twice");
                return Err(Lost::new(asked(node, request), answered, "each key once"));
            }
        }
        let differs = |key: &&String| found.get(*key) != expected.get(*key);
        let Some(key) = found.keys().chain(expected.keys()).find(differs) else {
            return Ok(());
        };
        let describe = |pairs: &Pairs| match pairs.get(key) {
            Some(value) => format!("{} pairs, with {key} = {value}", pairs.len()),
            None => format!("{} pairs, without {key}", pairs.len()),
        };
        Err(Lost::new(
            asked(node, request),
            describe(&found),
            describe(expected),
        ))
    }

    /// The keys and values of a listing.
    pub fn list(&self, node: u32, request: &str) -> Result<Vec<(String, String)>, Lost> {
        let pair = |line: &String| {
            let mut words = line.strip_prefix("PAIR ")?.splitn(3, ' ');
            let (key, _version, value) = (words.next()?, words.next()?, words.next()?);
            Some((key.to_owned(), value.to_owned()))
        };
        let lines = self.connect(node)?.list(request);
        let mut lines = lines.unwrap_or_else(|error| vec![format!("nothing: {error}")]);
        let last = lines.pop().unwrap_or_default();
        let pairs: Option<Vec<_>> = lines.iter().map(pair).collect();
        match pairs {
            Some(pairs) if last == format!("END {}", pairs.len()) => Ok(pairs),
            _ => {
                let answered = format!("{} lines, then {last}", lines.len());
                let expected = "lines PAIR key version value, then END and their number";
                Err(Lost::new(asked(node, request), answered, expected))
            }
        }
    }
}

/// Checks again and again for a while: a copy that nobody waited for may arrive late.
fn soon(look: impl Fn() -> Result<(), Lost>) -> Result<(), Lost> {
    let began = Instant::now();
    loop {
        let result = look();
        if result.is_ok() || began.elapsed() > ARRIVAL {
            return result;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn asked(node: u32, request: &str) -> String {
    format!("node {node}: {request}")
}
