//! Requests to the nodes of a cluster, and waits until the nodes are in the wanted state.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use simple_dynamo::client::Client;

use super::cluster::Cluster;
use super::waiting::eventually;

/// How long a client waits for a reply: longer than any request may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// The deadline of any request, and a second more for a busy machine.
pub const DEADLINE: Duration = Duration::from_millis(2000 + 1000);
/// How many lines of each node's log a failed test prints.
const LOG_TAIL: usize = 30;

impl Cluster {
    pub fn try_client(&self, id: u32) -> std::io::Result<Client> {
        Client::connect(self.address(id), PATIENCE)
    }

    pub fn client(&self, id: u32) -> Client {
        self.try_client(id)
            .unwrap_or_else(|error| panic!("node {id}: {error}"))
    }

    /// Sends one request on a connection of its own. Returns the reply.
    pub fn call(&self, id: u32, request: &str) -> String {
        let reply = self.client(id).call(request);
        reply.unwrap_or_else(|error| panic!("node {id}: {}: {error}", start_of(request)))
    }

    /// Sends one request, which must end within the deadline. Returns the reply, and how long it took.
    pub fn timed(&self, id: u32, request: &str) -> (String, Duration) {
        let began = Instant::now();
        let reply = self.call(id, request);
        let took = began.elapsed();
        assert!(
            took < DEADLINE,
            "{request} through {id} took {took:?}: {reply}"
        );
        (reply, took)
    }

    /// Sends a request that must succeed. Returns what follows the `OK`.
    pub fn done(&self, id: u32, request: &str) -> String {
        let reply = self.call(id, request);
        match reply.strip_prefix("OK ") {
            Some(version) => version.to_owned(),
            None => panic!("node {id}: {}: {}", start_of(request), start_of(&reply)),
        }
    }

    /// The value that a node reads, or `None` if there is no such key.
    pub fn get(&self, id: u32, key: &str) -> Option<String> {
        let reply = self.call(id, &format!("GET {key}"));
        match reply
            .strip_prefix("VALUE ")
            .and_then(|rest| rest.split_once(' '))
        {
            Some((_, value)) => Some(value.to_owned()),
            None => {
                assert_eq!(reply, "NOT_FOUND", "node {id}: GET {key}");
                None
            }
        }
    }

    /// The lines of a listing without its end, or the error line if it ended with one.
    pub fn list(&self, id: u32, request: &str) -> Result<Vec<String>, String> {
        let mut lines = self
            .client(id)
            .list(request)
            .map_err(|error| error.to_string())?;
        let last = lines.pop().unwrap_or_default();
        if last != format!("END {}", lines.len()) {
            return Err(last);
        }
        Ok(lines)
    }

    /// Waits until the node calls its `GET @` complete, and returns the pairs.
    pub fn own_pairs(&self, id: u32) -> Vec<String> {
        eventually(&format!("node {id} answers GET @"), || {
            self.list(id, "GET @").ok()
        })
    }

    /// Waits until the node calls its `GET @` complete, and returns the keys.
    pub fn own_keys(&self, id: u32) -> BTreeSet<String> {
        let key = |pair: String| pair.split(' ').nth(1).unwrap_or_default().to_owned();
        self.own_pairs(id).into_iter().map(key).collect()
    }

    /// Asserts that `GET @` lists just those keys of `all` that the node is a replica of, and returns them.
    /// The listing must be complete although a write is acknowledged when two of three replicas have it.
    pub fn assert_own_keys<'a>(
        &self,
        id: u32,
        all: impl IntoIterator<Item = &'a String>,
    ) -> BTreeSet<String> {
        let held = |key: &&String| self.replicas(key).contains(&id);
        let held: BTreeSet<String> = all.into_iter().filter(held).cloned().collect();
        assert_eq!(self.own_keys(id), held, "GET @ of {id}");
        held
    }

    /// The value of one line of `STATS`, or `None` if the node does not answer.
    pub fn stat(&self, id: u32, name: &str) -> Option<String> {
        let stats = self.stats(id)?;
        let value = stats
            .get(name)
            .unwrap_or_else(|| panic!("STATS has no {name}"));
        Some(value.clone())
    }

    /// All lines of `STATS`, or `None` if the node does not answer or does not serve yet.
    pub fn stats(&self, id: u32) -> Option<BTreeMap<String, String>> {
        let lines = self.try_client(id).ok()?.list("STATS").ok()?;
        if lines[0].starts_with("ERROR UNAVAILABLE ") {
            return None;
        }
        let named = |line: &String| {
            line.split_once(' ')
                .map(|(name, value)| (name.into(), value.into()))
        };
        Some(lines.iter().filter_map(named).collect())
    }

    fn ready(&self, id: u32) -> bool {
        self.stats(id).is_some_and(|stats| {
            stats["votes"] == "yes" && stats["ranges_up_to_date"] == stats["ranges"]
        })
    }

    /// Waits until a node holds so many keys. Unlike `GET @`, this does not make the node ask the others.
    pub fn await_keys(&self, id: u32, count: usize) {
        eventually(&format!("node {id} holds {count} keys"), || {
            (self.stat(id, "keys")?.parse() == Ok(count)).then_some(())
        });
    }

    /// Waits until a node votes and has what it missed.
    pub fn await_ready(&self, id: u32) {
        eventually(&format!("node {id} is ready"), || {
            self.assert_runs(id);
            self.ready(id).then_some(())
        });
    }

    /// Waits until a node serves all of its chains, and nobody is left out of any. Without chains nobody is.
    pub fn await_whole_chains(&self, id: u32) {
        eventually(&format!("the chains of {id} are whole"), || {
            self.assert_runs(id);
            let stats = self.stats(id)?;
            let mut chains = stats.iter().filter(|(name, _)| name.starts_with("chain_"));
            let is_whole = chains.all(|(_, chain)| !chain.contains(", "));
            is_whole.then_some(())
        });
    }

    /// Waits until a node serves clients, whatever it still lacks.
    pub fn await_answer(&self, id: u32) {
        eventually(&format!("node {id} answers"), || {
            self.assert_runs(id);
            self.stats(id)
        });
    }

    /// Waits until a node votes. A node that lost its folder first copies what it may have voted on.
    pub fn await_vote(&self, id: u32) {
        eventually(&format!("node {id} votes"), || {
            self.assert_runs(id);
            let votes = self.stat(id, "votes")? == "yes";
            votes.then_some(())
        });
    }

    pub fn await_all_ready(&self) {
        self.ids().for_each(|id| self.await_ready(id));
    }

    /// Waits until a node sees another as `up` or as `suspect`.
    pub fn await_sight(&self, id: u32, of: u32, state: &str) {
        let start = format!("NODE {of} ");
        eventually(&format!("node {id} sees {of} as {state}"), || {
            let ring = self.list(id, "RING").ok()?;
            let line = ring.iter().find(|line| line.starts_with(&start))?;
            line.ends_with(&format!(" {state}")).then_some(())
        });
    }

    /// What a node has logged.
    pub fn log(&self, id: u32) -> String {
        fs::read_to_string(self.folder.join(format!("{id}.log"))).unwrap_or_default()
    }

    /// The last lines of a node's log.
    pub fn end_of_log(&self, id: u32) -> String {
        let log = self.log(id);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
    }
}

/// The start of a text, since a value may be long.
fn start_of(text: &str) -> String {
    text.chars().take(300).collect()
}
