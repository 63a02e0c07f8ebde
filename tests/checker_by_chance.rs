//! The linearizability checker agrees with a checker that is too simple to be wrong, and is fast.

mod support;

use fastrand::Rng;
use support::example::*;
use support::history::{Current, End, Operation, Reply, Request, print};
use support::linearizability::{Verdict, check};

const BUDGET: u64 = 1_000_000;

/// Every order there is, one after the other: too slow for more than a few operations, and too
/// simple to be wrong.
fn some_order_explains(left: &[Operation], state: Option<u32>) -> bool {
    let must_come = |operation: &&Operation| operation.returned().is_some();
    let Some(bound) = left
        .iter()
        .filter(must_come)
        .filter_map(Operation::returned)
        .min()
    else {
        return true;
    };
    (0..left.len())
        .filter(|&next| left[next].called <= bound)
        .any(|next| {
            let mut rest = left.to_vec();
            let operation = rest.remove(next);
            let meets = |expected: &Option<String>| *expected == state.map(version_of);
            let (reply, after) = match &operation.request {
                Request::Get => match state {
                    Some(_) => (get(0, 0, state.unwrap_or(0)).end, state),
                    None => (missing(0, 0).end, state),
                },
                Request::Put { value } => {
                    (put(0, 0, value.parse().unwrap()).end, value.parse().ok())
                }
                Request::Delete if state.is_some() => (delete(0, 0).end, None),
                Request::Delete => (missing(0, 0).end, state),
                Request::CompareAndSet { expected, value } if meets(expected) => {
                    (put(0, 0, value.parse().unwrap()).end, value.parse().ok())
                }
                Request::CompareAndSet { .. } => (conflict(0, 0, None, current(state)).end, state),
            };
            let explained = match (&operation.end, reply) {
                (End::Returned { reply: told, .. }, End::Returned { reply, .. }) => *told == reply,
                _ => true,
            };
            explained && some_order_explains(&rest, after)
        })
}

#[test]
fn on_small_histories_the_checker_agrees_with_trying_every_order() {
    let mut rng = Rng::with_seed(7);
    let mut verdicts = [0; 2];
    for _ in 0..20_000 {
        let mut history: Vec<Operation> = Vec::new();
        for number in 1..=rng.u32(2..=6) {
            let called = rng.u64(0..20);
            let returned = called + rng.u64(1..12);
            let value = rng.u32(1..=6);
            let expected = Some(value).filter(|_| rng.bool());
            let mut operation = match rng.u8(..8) {
                0 => missing(called, returned),
                1 | 2 => get(called, returned, value),
                3 | 4 => put(called, returned, number),
                5 => delete(called, returned),
                6 => swapped(called, returned, expected, number),
                _ => {
                    let current = current(Some(rng.u32(1..=6)).filter(|_| rng.bool()));
                    operation(
                        called,
                        returned,
                        swap(expected, number),
                        Reply::Conflict { current },
                    )
                }
            };
            if rng.u8(..4) == 0 {
                operation.end = End::Unknown;
            }
            history.push(operation);
        }
        // Only versions that somebody saw with their values: of others the checker assumes less.
        if !history
            .iter()
            .all(|operation| names_known_versions(operation, &history))
        {
            continue;
        }
        let expected = some_order_explains(&history, None);
        let verdict = check(&history, BUDGET);
        let agreed = matches!(verdict, Verdict::Violation(_)) != expected;
        assert!(agreed, "{verdict:?}, but {expected}:\n{}", print(&history));
        verdicts[usize::from(expected)] += 1;
    }
    assert!(verdicts.iter().all(|&times| times > 1_000), "{verdicts:?}");
}

fn names_known_versions(operation: &Operation, history: &[Operation]) -> bool {
    let is_known = |version: &String| {
        history.iter().any(|other| match &other.end {
            End::Returned {
                reply: Reply::Done {
                    version: Some(seen),
                },
                ..
            }
            | End::Returned {
                reply: Reply::Found { version: seen, .. },
                ..
            } => seen == version,
            _ => false,
        })
    };
    let told = match &operation.end {
        End::Returned {
            reply: Reply::Conflict {
                current: Current::Version(told),
            },
            ..
        } => is_known(told),
        _ => true,
    };
    match &operation.request {
        Request::CompareAndSet {
            expected: Some(version),
            ..
        } => told && is_known(version),
        _ => told,
    }
}

/// What 20 clients see of a real register of 20 keys, with one write of fifty unanswered.
fn long_history(operations: u32) -> Vec<Operation> {
    let mut rng = Rng::with_seed(1);
    let mut register = [None; 20];
    let mut busy_until = [0; 20];
    let mut history = Vec::new();
    for number in 1..=operations {
        // The moments of effect are 100 apart, and calls and returns up to 2000 around them.
        let effect = u64::from(number) * 100 + 10_000;
        let client = rng.usize(..20);
        let called = (effect - rng.u64(1..2_000)).max(busy_until[client] + 1);
        let returned = effect + rng.u64(1..2_000);
        if called >= effect {
            continue;
        }
        busy_until[client] = returned;
        let key = rng.usize(..20);
        let state: &mut Option<u32> = &mut register[key];
        let (before, kind) = (*state, rng.u8(..10));
        let (request, reply) = match (kind, before) {
            (0..4, None) => (Request::Get, Reply::Missing),
            (0..4, Some(value)) => {
                let (value, version) = (value.to_string(), version_of(value));
                (Request::Get, Reply::Found { value, version })
            }
            (4, None) => (Request::Delete, Reply::Missing),
            (4, Some(_)) => (Request::Delete, Reply::Done { version: None }),
            (5..8, _) => (write(number), done(number)),
            (8, _) => (swap(before, number), done(number)),
            _ => {
                let current = before.map_or(Current::Missing, |v| Current::Version(version_of(v)));
                (swap(Some(0), number), Reply::Conflict { current })
            }
        };
        match (&request, &reply) {
            (Request::Delete, Reply::Done { .. }) => *state = None,
            (_, Reply::Done { .. }) => *state = Some(number),
            _ => {}
        }
        let mut operation = operation(called, returned, request, reply);
        (operation.client, operation.key) = (client as u32, key.to_string());
        if kind >= 4 && rng.u8(..50) == 0 {
            operation.end = End::Unknown;
        }
        history.push(operation);
    }
    history
}

#[test]
fn twenty_thousand_operations_are_checked_within_seconds() {
    let mut history = long_history(40_000);
    assert!(history.len() > 20_000, "{}", history.len());
    assert_eq!(check(&history, BUDGET), Verdict::Linearizable);
    // One stale read in the midst of them is found.
    let middle = history.len() / 2;
    let key = history[middle].key.clone();
    let first = history.iter().find_map(|operation| match &operation.end {
        End::Returned {
            reply: found @ Reply::Found { .. },
            ..
        } if operation.key == key => Some(found.clone()),
        _ => None,
    });
    let at = history[middle].called + 1;
    history[middle].request = Request::Get;
    history[middle].end = End::Returned {
        at,
        reply: first.expect("a read of the key"),
    };
    assert!(matches!(check(&history, BUDGET), Verdict::Violation(_)));
}
