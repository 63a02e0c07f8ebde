//! Which operations of a history may be left out without making the rest harder to explain.

use std::collections::HashMap;
use std::ops::Range;

use crate::support::history::{Current, End, Operation, Reply, Request};

/// A history of one key, ascending by call, some of which is left out.
pub struct Piece<'a> {
    operations: &'a [Operation],
    kept: Vec<bool>,
    /// Which write made which version, where a reply shows it.
    made: HashMap<&'a str, &'a str>,
    /// For each written value the operations that name it.
    seen_by: HashMap<&'a str, Vec<usize>>,
    /// The longest time that an operation took, among those that returned.
    longest: u64,
    /// The operations of unknown outcome.
    unknown: Vec<usize>,
}

/// What an answer demands of the state, beyond the writes that it names.
#[derive(Default)]
struct Demand {
    a_value: bool,
    no_value: bool,
}

impl<'a> Piece<'a> {
    pub fn of(operations: &'a [Operation]) -> Piece<'a> {
        let took = |operation: &Operation| Some(operation.returned()? - operation.called);
        let mut piece = Piece {
            operations,
            kept: vec![true; operations.len()],
            made: operations.iter().filter_map(shown).collect(),
            seen_by: HashMap::new(),
            longest: operations.iter().filter_map(took).max().unwrap_or(0),
            unknown: (0..operations.len())
                .filter(|&index| operations[index].end == End::Unknown)
                .collect(),
        };
        for (index, operation) in operations.iter().enumerate() {
            let versions = named_versions(operation);
            let values = versions.filter_map(|version| piece.made.get(version).copied());
            for value in values.chain(found(operation)) {
                piece.seen_by.entry(value).or_default().push(index);
            }
        }
        piece
    }

    /// The piece without those operations of `run` that may be left out.
    pub fn without(mut self, run: Range<usize>) -> Vec<Operation> {
        loop {
            let before = self.kept.iter().filter(|kept| **kept).count();
            for index in run.clone() {
                let gone = self.with_all_that_saw_it(index);
                if self.may_go(&gone) {
                    gone.into_iter().for_each(|index| self.kept[index] = false);
                }
            }
            // An operation that is gone may have kept others from being left out.
            let kept = self.operations.iter().zip(&self.kept);
            let kept = kept.filter(|(_, kept)| **kept);
            if kept.clone().count() == before {
                return kept.map(|(operation, _)| operation.clone()).collect();
            }
        }
    }

    /// An operation, and if it wrote something all operations whose answers need that write.
    fn with_all_that_saw_it(&self, index: usize) -> Vec<usize> {
        let mut gone = Vec::from_iter(self.kept[index].then_some(index));
        let mut next = 0;
        while let Some(&index) = gone.get(next) {
            next += 1;
            let value = self.operations[index].written();
            let seen_by = value.and_then(|value| self.seen_by.get(value));
            for &other in seen_by.into_iter().flatten() {
                if self.kept[other] && !gone.contains(&other) {
                    gone.push(other);
                }
            }
        }
        gone
    }

    /// Whether all these operations may be left out. Those that changed nothing may. Without a write the state
    /// before it lasts longer. So no operation that stays and may come right after the write may demand that
    /// there is a value, if the write made one, or that there is none, if it was a delete.
    fn may_go(&self, gone: &[usize]) -> bool {
        let writes = gone
            .iter()
            .filter(|&&index| changes(&self.operations[index]));
        writes.into_iter().all(|&write| {
            let made_a_value = self.operations[write].written().is_some();
            !self.may_follow(write, gone).any(|index| {
                let demand = self.demand(&self.operations[index]);
                if made_a_value {
                    demand.a_value
                } else {
                    demand.no_value
                }
            })
        })
    }

    /// The operations that stay and may come after a write without any other write in between. An operation
    /// that was called after a later write had returned is not among them, if that write stays.
    fn may_follow(&self, write: usize, gone: &[usize]) -> impl Iterator<Item = usize> {
        let all = self.operations;
        let stays = |index: usize| self.kept[index] && !gone.contains(&index);
        let called_by = |moment: u64| all.partition_point(|other| other.called <= moment);
        let Operation { called, .. } = all[write];
        let left = called_by(all[write].returned().unwrap_or(u64::MAX));
        let mut hidden = u64::MAX;
        for index in (left..all.len()).filter(|index| stays(*index)) {
            if all[index].called > hidden {
                break;
            }
            if changes(&all[index]) {
                hidden = hidden.min(all[index].returned().unwrap_or(u64::MAX));
            }
        }
        let first = called_by(called.saturating_sub(self.longest + 1));
        let last = called_by(hidden);
        let returned = (first..last).filter(move |&index| all[index].returned() > Some(called));
        let unknown = self.unknown.iter().copied();
        let unknown = unknown.filter(move |&index| index < last);
        returned.chain(unknown).filter(move |&index| stays(index))
    }

    fn demand(&self, operation: &Operation) -> Demand {
        let reply = match &operation.end {
            End::Returned { reply, .. } => Some(reply),
            End::Unknown => None,
            End::Failed => return Demand::default(),
        };
        let unseen = |version: &str| !self.made.contains_key(version);
        let (a_value, no_value) = match (&operation.request, reply) {
            (Request::Get | Request::Delete, Some(Reply::Missing)) => (false, true),
            (Request::Delete, _) => (true, false),
            (Request::CompareAndSet { .. }, Some(Reply::Conflict { current })) => match current {
                Current::Missing => (false, true),
                Current::Version(version) => (unseen(version), unseen(version)),
                Current::Unsaid => (true, true),
            },
            (Request::CompareAndSet { expected, .. }, _) => match expected {
                None => (false, true),
                Some(version) => (unseen(version), false),
            },
            (Request::Get | Request::Put { .. }, _) => (false, false),
            (Request::Add { .. }, _) => unreachable!("no client can ask for it"),
        };
        Demand { a_value, no_value }
    }
}

/// The version and the value that a reply shows together.
pub fn shown(operation: &Operation) -> Option<(&str, &str)> {
    match &operation.end {
        End::Returned {
            reply: Reply::Found { value, version },
            ..
        } => Some((version, value)),
        End::Returned {
            reply: Reply::Done {
                version: Some(version),
            },
            ..
        } => Some((version, operation.written()?)),
        _ => None,
    }
}

/// The value that an operation read.
fn found(operation: &Operation) -> Option<&str> {
    let read = |(_, value)| (operation.request == Request::Get).then_some(value);
    shown(operation).and_then(read)
}

/// The versions that an operation expected or was refused with.
fn named_versions(operation: &Operation) -> impl Iterator<Item = &str> {
    let expected = match &operation.request {
        Request::CompareAndSet { expected, .. } => expected.as_deref(),
        _ => None,
    };
    let current = match &operation.end {
        End::Returned {
            reply:
                Reply::Conflict {
                    current: Current::Version(version),
                },
            ..
        } => Some(version.as_str()),
        _ => None,
    };
    expected.into_iter().chain(current)
}

/// Whether it made another state, or may have.
pub fn changes(operation: &Operation) -> bool {
    match &operation.end {
        End::Returned { reply, .. } => matches!(reply, Reply::Done { .. }),
        End::Unknown => operation.request != Request::Get,
        End::Failed => false,
    }
}
