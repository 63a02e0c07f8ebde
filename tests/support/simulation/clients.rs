//! The clients. Each sends one request at a time to any node, and notes the reply.

use std::collections::{BTreeMap, HashMap};

use fastrand::Rng;
use simple_dynamo::bytes::Key;
use simple_dynamo::error::Failure;
use simple_dynamo::protocol::version::VectorClock;
use simple_dynamo::protocol::{Change, Outcome, Verdict};

use super::super::history::{Current, End, Operation, Reply, Request};
use super::plan::{COUNTER, Plan, pick, share};

pub struct Clients {
    pub history: Vec<Operation>,
    /// For each client that waits, its operation and the node that it asked.
    waiting: BTreeMap<u32, (usize, usize)>,
    /// Requests that each client has still to make.
    left: Vec<u32>,
    /// The clock of the history: every call and every return is a moment of its own.
    moment: u64,
    /// For each key the versions that clients have seen, the newest last.
    versions: HashMap<String, Vec<String>>,
}

impl Clients {
    pub fn new(plan: &Plan) -> Clients {
        Clients {
            history: Vec::new(),
            waiting: BTreeMap::new(),
            left: vec![plan.requests; plan.clients as usize],
            moment: 0,
            versions: HashMap::new(),
        }
    }

    pub fn are_done(&self) -> bool {
        self.waiting.is_empty() && self.left.iter().all(|&left| left == 0)
    }

    /// Makes the client's next request, if it has any left. Returns its number in the history.
    pub fn call(&mut self, client: u32, node: usize, plan: &Plan, rng: &mut Rng) -> Option<usize> {
        let left = self.left.get_mut(client as usize)?;
        *left = left.checked_sub(1)?;
        let key = pick(rng, &plan.keys).to_string();
        let request = self.choose(&key, plan.reads, rng);
        Some(self.ask(client, node, key, request))
    }

    pub fn ask(&mut self, client: u32, node: usize, key: String, request: Request) -> usize {
        self.moment += 1;
        self.history.push(Operation {
            client,
            key,
            request,
            called: self.moment,
            end: End::Unknown,
        });
        let operation = self.history.len() - 1;
        self.waiting.insert(client, (operation, node));
        operation
    }

    fn choose(&self, key: &str, reads: f64, rng: &mut Rng) -> Request {
        let value = format!("v{}", self.history.len());
        if share(rng, reads) {
            return Request::Get;
        }
        if key == COUNTER {
            let is_add = |operation: &&Operation| matches!(operation.request, Request::Add { .. });
            let adds = self.history.iter().filter(is_add).count();
            return Request::Add { more: 1 << adds };
        }
        match rng.u8(..10) {
            0..4 => Request::Put { value },
            4 | 5 => Request::Delete,
            _ => {
                let seen = self.versions.get(key).map_or(&[][..], Vec::as_slice);
                // Most expect the newest version. Otherwise hardly any compare-and-set would succeed.
                let newest = &seen[seen.len().saturating_sub(*pick(rng, &[1, 1, 1, 3]))..];
                let expected = if newest.is_empty() || rng.u8(..5) == 0 {
                    None
                } else {
                    Some(pick(rng, newest).clone())
                };
                Request::CompareAndSet { expected, value }
            }
        }
    }

    /// The request as the node sees it.
    pub fn request(&self, operation: usize) -> (Key, Option<Change>) {
        let operation = &self.history[operation];
        let change = match &operation.request {
            Request::Get => None,
            Request::Put { value } => Some(Change::Put(value.as_str().into())),
            Request::Delete => Some(Change::Delete),
            Request::Add { more } => Some(add(*more)),
            Request::CompareAndSet { expected, value } => Some(Change::CompareAndSet {
                expected: expected
                    .as_ref()
                    .map(|text| text.parse().expect("a version")),
                value: value.as_str().into(),
            }),
        };
        (operation.key.as_str().into(), change)
    }

    /// Notes the node's answer. Returns the client, if it still waited for the answer.
    pub fn answered(
        &mut self,
        operation: usize,
        result: Result<Outcome, Failure>,
    ) -> Result<Option<u32>, String> {
        self.moment += 1;
        let end = self.end(operation, result)?;
        let client = self.history[operation].client;
        if self
            .waiting
            .get(&client)
            .is_none_or(|waiting| waiting.0 != operation)
        {
            return Ok(None);
        }
        self.waiting.remove(&client);
        if let End::Returned {
            reply:
                Reply::Found { version, .. }
                | Reply::Done {
                    version: Some(version),
                },
            ..
        } = &end
        {
            let key = self.history[operation].key.clone();
            self.versions.entry(key).or_default().push(version.clone());
        }
        self.history[operation].end = end;
        Ok(Some(client))
    }

    fn end(&self, operation: usize, result: Result<Outcome, Failure>) -> Result<End, String> {
        let operation = &self.history[operation];
        let reply = match result {
            Err(Failure::Unknown(_)) => return Ok(End::Unknown),
            Err(_) => return Ok(End::Failed),
            Ok(Outcome::Found { value, version }) => Reply::Found {
                value: value.to_string(),
                version: version.to_string(),
            },
            Ok(Outcome::Missing) => Reply::Missing,
            Ok(Outcome::Decided(Verdict::Applied(version))) => Reply::Done {
                version: version.map(|version| version.to_string()),
            },
            Ok(Outcome::Decided(Verdict::Refused(version))) => match &operation.request {
                Request::CompareAndSet { expected, .. } => Reply::Conflict {
                    current: current(expected.as_deref(), version)?,
                },
                _ => Reply::Missing,
            },
            Ok(Outcome::Decided(Verdict::RefusedBefore)) => match &operation.request {
                Request::CompareAndSet { .. } => Reply::Conflict {
                    current: Current::Unsaid,
                },
                _ => Reply::Missing,
            },
            Ok(Outcome::Decided(Verdict::Answered(sum))) => Reply::Sum(sum.to_string()),
            Ok(other) => return Err(format!("a client received {other:?}")),
        };
        let at = self.moment;
        Ok(End::Returned { at, reply })
    }

    /// Ends the client's wait, if it still waits. What it asked for may yet be done.
    pub fn give_up(&mut self, operation: usize) -> Option<u32> {
        let client = self.history[operation].client;
        let waits = self
            .waiting
            .get(&client)
            .is_some_and(|waiting| waiting.0 == operation);
        waits.then(|| {
            self.waiting.remove(&client);
            client
        })
    }

    /// Ends the waits of a crashed node's clients, and returns these clients.
    pub fn cut_off(&mut self, node: usize) -> Vec<u32> {
        let lost: Vec<u32> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.1 == node)
            .map(|(&client, _)| client)
            .collect();
        for client in &lost {
            self.waiting.remove(client);
        }
        lost
    }
}

/// A release has no such change, and simulates nothing.
fn add(more: i64) -> Change {
    #[cfg(debug_assertions)]
    return Change::Add(more);
    #[cfg(not(debug_assertions))]
    unreachable!("a release cannot add {more}");
}

/// The key's version as a conflict names it. It must not be the version that was expected.
fn current(expected: Option<&str>, version: Option<VectorClock>) -> Result<Current, String> {
    let version = version.map(|version| version.to_string());
    match version {
        version if version.as_deref() == expected => {
            Err(format!("refused with the expected version {version:?}"))
        }
        Some(version) => Ok(Current::Version(version)),
        None => Ok(Current::Missing),
    }
}
