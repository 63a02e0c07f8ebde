//! What each reply to a client demands of the register.

use std::collections::{HashMap, HashSet};

use super::super::history::{Current, End, Operation, Reply, Request};
use super::{Need, State, Step};

/// Which write made which version.
pub struct Versions<'a> {
    writers: HashMap<&'a str, usize>,
    /// For each version the write that made it, or `None` for a delete, whose version is never that of a
    /// value.
    made: HashMap<&'a str, State>,
    named: HashSet<usize>,
}

impl<'a> Versions<'a> {
    pub fn of(operations: &[&'a Operation]) -> Result<Versions<'a>, String> {
        let mut versions = Versions {
            writers: HashMap::new(),
            made: HashMap::new(),
            named: HashSet::new(),
        };
        for (index, operation) in operations.iter().enumerate() {
            if let Some(value) = operation.written()
                && versions.writers.insert(value, index).is_some()
            {
                return Err(format!(
                    "the history is of no use: {value} is written twice"
                ));
            }
        }
        for (index, operation) in operations.iter().enumerate() {
            let End::Returned { reply, .. } = &operation.end else {
                continue;
            };
            match reply {
                Reply::Found { value, version } => {
                    let Some(&writer) = versions.writers.get(value.as_str()) else {
                        return Err(format!("nobody wrote what was read: {operation}"));
                    };
                    versions.name(version, Some(writer), operation)?;
                }
                Reply::Done {
                    version: Some(version),
                } => {
                    let state = operation.written().map(|_| index);
                    versions.name(version, state, operation)?;
                }
                _ => {}
            }
        }
        Ok(versions)
    }

    /// Notes that a write made a version. A version belongs to one write, and a write has one version.
    fn name(&mut self, version: &'a str, state: State, by: &Operation) -> Result<(), String> {
        match self.made.insert(version, state) {
            Some(before) if before != state => {
                return Err(format!("one version stands for two states: {by}"));
            }
            Some(_) => return Ok(()),
            None => {}
        }
        match state {
            Some(write) if !self.named.insert(write) => {
                Err(format!("one write has two versions: {by}"))
            }
            _ => Ok(()),
        }
    }

    pub fn translate(&self, operations: &[&Operation]) -> Result<Vec<Step>, String> {
        let step = |(index, operation): (usize, &&Operation)| {
            let (need, becomes) = match &operation.end {
                End::Returned { reply, .. } => self.answered(index, &operation.request, reply)?,
                End::Unknown => self.unanswered(index, &operation.request),
                End::Failed => (Need::Impossible, None),
            };
            Ok(Step {
                called: operation.called,
                returned: operation.returned(),
                need,
                becomes,
                named: self.named.contains(&index),
                void: operation.returned().is_none() && becomes.is_none(),
            })
        };
        operations.iter().enumerate().map(step).collect()
    }

    fn answered(
        &self,
        index: usize,
        request: &Request,
        reply: &Reply,
    ) -> Result<(Need, Option<State>), String> {
        Ok(match (request, reply) {
            (Request::Get, Reply::Found { value, .. }) => {
                (Need::Exactly(Some(self.writers[value.as_str()])), None)
            }
            (Request::Get | Request::Delete, Reply::Missing) => (Need::Exactly(None), None),
            (Request::Put { .. }, Reply::Done { .. }) => (Need::Anything, Some(Some(index))),
            (Request::Delete, Reply::Done { .. }) => (Need::Present, Some(None)),
            (Request::CompareAndSet { expected, .. }, Reply::Done { .. }) => {
                (self.met(expected.as_deref()), Some(Some(index)))
            }
            (Request::CompareAndSet { expected, .. }, Reply::Conflict { current }) => {
                (self.unmet(expected.as_deref(), current), None)
            }
            _ => return Err(format!("{reply} is no answer to {request:?}")),
        })
    }

    fn unanswered(&self, index: usize, request: &Request) -> (Need, Option<State>) {
        match request {
            Request::Get => (Need::Anything, None),
            Request::Put { .. } => (Need::Anything, Some(Some(index))),
            Request::Delete => (Need::Present, Some(None)),
            Request::Add { .. } => unreachable!("counters are checked by themselves"),
            Request::CompareAndSet { expected, .. } => {
                let need = match self.met(expected.as_deref()) {
                    Need::Unnamed => Need::Anything,
                    need => need,
                };
                (need, Some(Some(index)))
            }
        }
    }

    fn met(&self, expected: Option<&str>) -> Need {
        match expected.map(|version| self.made.get(version)) {
            None => Need::Exactly(None),
            Some(Some(&Some(write))) => Need::Exactly(Some(write)),
            Some(Some(None)) => Need::Impossible,
            Some(None) => Need::Unnamed,
        }
    }

    fn unmet(&self, expected: Option<&str>, current: &Current) -> Need {
        let named = match current {
            Current::Missing => Need::Exactly(None),
            Current::Version(version) if expected == Some(version) => Need::Impossible,
            Current::Version(version) => self.met(Some(version)),
            Current::Unsaid => Need::Anything,
        };
        match (named, self.met(expected)) {
            (Need::Exactly(one), Need::Exactly(other)) if one == other => Need::Impossible,
            (Need::Anything | Need::Unnamed, Need::Exactly(state)) => Need::Other(state),
            (Need::Unnamed, _) => Need::Anything,
            (named, _) => named,
        }
    }
}
