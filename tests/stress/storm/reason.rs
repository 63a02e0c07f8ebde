//! Why the smallest piece of a history is impossible, in words for people.
//!
//! The store starts empty, and no value is written twice. So each reason below is certain where it is given.
//! The first that fits says most.

use std::collections::HashMap;

use super::piece::{changes, shown};
use crate::support::history::{Current, End, Operation, Reply, Request};

/// What a key holds: the value that was written, or nothing.
type State<'a> = Option<&'a str>;

/// At some moment of an operation the key was in a state.
#[derive(Clone, Copy)]
struct Sight<'a> {
    state: State<'a>,
    by: &'a Operation,
    returned: u64,
}

/// The reason in a sentence or two, or `None` if none of the usual reasons fits.
pub fn reason(piece: &[Operation]) -> Option<String> {
    let piece = Reasons::of(piece);
    let text = piece
        .not_written()
        .or_else(|| piece.one_version_of_two())
        .or_else(|| piece.replaced_twice())
        .or_else(|| piece.came_back())
        .or_else(|| piece.outlived_its_successor())
        .or_else(|| piece.gone_without_a_delete())
        .or_else(|| piece.too_often())
        .or_else(|| piece.refused_for_nothing())?;
    let mut letters = text.chars();
    let first = letters.next()?.to_uppercase();
    Some(first.chain(letters).collect())
}

struct Reasons<'a> {
    operations: &'a [Operation],
    /// The states of the key that the operations show.
    sights: Vec<Sight<'a>>,
    /// Which value has which version, where a reply shows it.
    values: HashMap<&'a str, &'a str>,
}

impl<'a> Reasons<'a> {
    fn of(operations: &'a [Operation]) -> Reasons<'a> {
        let values = operations.iter().filter_map(shown).collect();
        let mut reasons = Reasons {
            operations,
            sights: Vec::new(),
            values,
        };
        reasons.sights = operations
            .iter()
            .flat_map(|by| {
                let states = reasons.states(by);
                states.into_iter().map(move |state| (state, by))
            })
            .filter_map(|(state, by)| {
                let returned = by.returned()?;
                Some(Sight {
                    state,
                    by,
                    returned,
                })
            })
            .collect();
        reasons
    }

    /// The states in which an operation found or left the key, as far as its reply shows them.
    fn states(&self, operation: &'a Operation) -> Vec<State<'a>> {
        let End::Returned { reply, .. } = &operation.end else {
            return Vec::new();
        };
        let of_version = |version: &str| self.values.get(version).map(|value| Some(*value));
        match (&operation.request, reply) {
            (_, Reply::Found { value, .. }) => vec![Some(value.as_str())],
            (_, Reply::Missing) => vec![None],
            (Request::CompareAndSet { expected, value }, Reply::Done { .. }) => {
                let before = expected.as_deref().map_or(Some(None), of_version);
                before.into_iter().chain([Some(value.as_str())]).collect()
            }
            (_, Reply::Done { .. }) => vec![operation.written()],
            (_, Reply::Conflict { current }) => match current {
                Current::Missing => vec![None],
                Current::Version(version) => of_version(version).into_iter().collect(),
                Current::Unsaid => Vec::new(),
            },
            (_, Reply::Sum(_)) => unreachable!("no client can ask for it"),
        }
    }

    fn write_of(&self, value: &str) -> Option<&'a Operation> {
        let mut all = self.operations.iter();
        all.find(|operation| operation.written() == Some(value))
    }

    /// A value was seen although it cannot have been written by then.
    fn not_written(&self) -> Option<String> {
        self.sights.iter().find_map(|sight| {
            let value = sight.state?;
            let seen = sentence(sight.by);
            let Some(write) = self.write_of(value) else {
                return Some(format!("{seen}, and nobody had written {value}."));
            };
            let wrote = sentence(write);
            match &write.end {
                _ if write.called > sight.returned => {
                    Some(format!("{seen}, before that was written: {wrote}."))
                }
                End::Failed => Some(format!(
                    "{seen}. But that write is certainly not done: {wrote}."
                )),
                End::Returned {
                    reply: Reply::Conflict { .. },
                    ..
                } => Some(format!("{seen}. But that write was refused: {wrote}.")),
                _ => None,
            }
        })
    }

    /// One version stands for two values, or one value has two versions.
    fn one_version_of_two(&self) -> Option<String> {
        let named: Vec<_> = self
            .operations
            .iter()
            .filter_map(|operation| Some((operation, shown(operation)?)))
            .collect();
        pairs(&named).find_map(|((one, first), (other, second))| {
            let both = format!("{}, and {}.", sentence(one), sentence(other));
            let ((version, value), (other_version, other_value)) = (first, second);
            match (version == other_version, value == other_value) {
                (true, false) => Some(format!(
                    "the version {version} stands for two values: {both}"
                )),
                (false, true) => Some(format!(
                    "the write of {value} has two versions, {version} and {other_version}: {both}"
                )),
                _ => None,
            }
        })
    }

    /// Two writes replaced the same version, although the second of them must find another one.
    fn replaced_twice(&self) -> Option<String> {
        let done: Vec<_> = self
            .operations
            .iter()
            .filter(|operation| operation.returned().is_some() && changes(operation))
            .filter_map(|operation| match &operation.request {
                Request::CompareAndSet { expected, .. } => Some((operation, expected.as_ref()?)),
                _ => None,
            })
            .collect();
        pairs(&done).find_map(|((one, first), (other, second))| {
            (first == second).then(|| {
                format!(
                    "Two writes replaced the same version: {}, and {}. The first of them to be \
                     done left another version, and a version never comes back.",
                    sentence(one),
                    sentence(other)
                )
            })
        })
    }

    /// A value was there, then was not, and then was there again.
    fn came_back(&self) -> Option<String> {
        let mut best: Option<(u8, String)> = None;
        for last in self.sights.iter().filter(|sight| sight.state.is_some()) {
            for gone in self
                .sights
                .iter()
                .filter(|gone| gone.state != last.state && gone.returned < last.by.called)
            {
                let first = self
                    .sights
                    .iter()
                    .find(|first| first.state == last.state && first.returned < gone.by.called);
                let Some(first) = first else { continue };
                let reads = |sight: &Sight| u8::from(sight.by.request == Request::Get);
                // Best of all a read of what an acknowledged write had replaced.
                let rank = 2 * reads(last) + (1 - reads(gone));
                if best.as_ref().is_none_or(|(before, _)| rank > *before) {
                    best = Some((rank, again(first, gone, last)));
                }
            }
        }
        best.map(|(_, text)| text)
    }

    /// A value was seen after the value that took its place.
    fn outlived_its_successor(&self) -> Option<String> {
        self.sights.iter().find_map(|next| {
            let write = self.write_of(next.state?)?;
            let Request::CompareAndSet {
                expected: Some(version),
                ..
            } = &write.request
            else {
                return None;
            };
            let value = *self.values.get(version.as_str())?;
            let mut after = self
                .sights
                .iter()
                .filter(|sight| next.returned < sight.by.called);
            let last = after.find(|sight| sight.state == Some(value))?;
            Some(format!(
                "{}. But {value} had been replaced before that request began: {}, and that value \
                 could only take the place of {value}: {}. A value is written once and cannot come \
                 back.",
                sentence(last.by),
                sentence(next.by),
                sentence(write)
            ))
        })
    }

    /// A value was there, and later was not, although nobody deleted it.
    fn gone_without_a_delete(&self) -> Option<String> {
        let empty = self.sights.iter().filter(|sight| sight.state.is_none());
        let mut empty = empty.filter(|sight| {
            // What a delete leaves is no surprise.
            sight.by.request != Request::Delete || !changes(sight.by)
        });
        empty.find_map(|gone| {
            let mut before = self
                .sights
                .iter()
                .filter(|sight| sight.state.is_some() && sight.returned < gone.by.called);
            let first = before.find(|first| {
                let mut deletes = self
                    .operations
                    .iter()
                    .filter(|operation| operation.request == Request::Delete && changes(operation));
                deletes.all(|delete| {
                    delete.called > gone.returned
                        || delete.returned().is_some_and(|at| at < first.by.called)
                })
            })?;
            Some(format!(
                "{}. But the key was there before: {}. No delete can have been done in between.",
                sentence(gone.by),
                sentence(first.by)
            ))
        })
    }

    /// Each delete needs a write whose value it deletes, and each creation except the first needs a delete.
    fn too_often(&self) -> Option<String> {
        let all = self
            .operations
            .iter()
            .filter(|operation| changes(operation));
        let (deletes, writes): (Vec<_>, Vec<_>) =
            all.partition(|operation| operation.request == Request::Delete);
        let done = |operations: &[&Operation]| {
            let done = operations.iter().filter(|o| o.returned().is_some());
            done.count()
        };
        let creations = writes.iter().copied().filter(|operation| {
            matches!(
                &operation.request,
                Request::CompareAndSet { expected: None, .. }
            )
        });
        let creations = done(&creations.collect::<Vec<_>>());
        if done(&deletes) > writes.len() {
            return Some(format!(
                "{} deletes were acknowledged, and no more than {} values were written.",
                done(&deletes),
                writes.len()
            ));
        }
        (creations > deletes.len() + 1).then(|| {
            format!(
                "{creations} creations of the key were acknowledged, and no more than {} deletes can \
                 have come between them.",
                deletes.len()
            )
        })
    }

    /// A compare-and-set was refused although just what it expected was there all the while.
    fn refused_for_nothing(&self) -> Option<String> {
        self.operations.iter().find_map(|refused| {
            let (Request::CompareAndSet { expected, .. }, End::Returned { reply, at }) =
                (&refused.request, &refused.end)
            else {
                return None;
            };
            let Reply::Conflict { .. } = reply else {
                return None;
            };
            let expected = match expected {
                Some(version) => Some(*self.values.get(version.as_str())?),
                None => None,
            };
            let before = self.sights.iter().find(|sight| {
                let stayed = !changes(sight.by) || sight.by.written() == expected;
                sight.state == expected && stayed && sight.returned < refused.called
            })?;
            let others = self.operations.iter().filter(|other| changes(other));
            let mut others = others.filter(|other| *other != before.by);
            others
                .all(|other| {
                    other.called > *at || other.returned().is_some_and(|end| end < before.by.called)
                })
                .then(|| {
                    format!(
                        "{}. But just what it expected was there: {}. Nothing else can have been \
                         written in between.",
                        sentence(refused),
                        sentence(before.by)
                    )
                })
        })
    }
}

fn pairs<T>(all: &[T]) -> impl Iterator<Item = (&T, &T)> {
    let others = |place| all[place + 1..].iter();
    let all = all.iter().enumerate();
    all.flat_map(move |(place, one)| others(place).map(move |other| (one, other)))
}

/// The sentence about a value that came back.
fn again(first: &Sight, gone: &Sight, last: &Sight) -> String {
    let value = last.state.unwrap_or_default();
    let over = match (changes(gone.by), &gone.by.request) {
        (false, _) => "was gone",
        (true, Request::Delete) => "had been deleted",
        (true, _) => "had been overwritten",
    };
    format!(
        "{}. But {value} {over} before that request began: {}. It was there before that: {}. A \
         value is written once and cannot come back.",
        sentence(last.by),
        sentence(gone.by),
        sentence(first.by)
    )
}

/// A sentence about an operation: what was asked when, and what was answered when.
fn sentence(operation: &Operation) -> String {
    let seconds = |micros: u64| format!("{}.{:06} s", micros / 1_000_000, micros % 1_000_000);
    let asked = match &operation.request {
        Request::Get => "GET".to_owned(),
        Request::Put { value } => format!("PUT of {value}"),
        Request::Delete => "DEL".to_owned(),
        Request::CompareAndSet { expected, value } => {
            let expected = expected.as_deref().unwrap_or("-");
            format!("CAS from {expected} to {value}")
        }
        Request::Add { more } => format!("ADD of {more}"),
    };
    let called = seconds(operation.called);
    let asked = format!(
        "the {asked} that client {} called at {called}",
        operation.client
    );
    match &operation.end {
        End::Returned { reply, at } => {
            let at = seconds(*at);
            match reply {
                Reply::Found { value, .. } => format!("{asked} returned {value} at {at}"),
                Reply::Done { .. } => format!("{asked} was acknowledged at {at}"),
                other => format!("{asked} returned {other} at {at}"),
            }
        }
        End::Unknown => format!("{asked} got no answer that tells whether it is done"),
        End::Failed => format!("{asked} was answered UNAVAILABLE"),
    }
}
