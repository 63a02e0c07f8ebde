//! The linearizability checker is fast, and agrees with two others: one that is too simple to be wrong,
//! and one that others wrote.

use std::time::{Duration, Instant};

use fastrand::Rng;
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

use crate::support::example::*;
use crate::support::history::{Current, End, Operation, Reply, Request, print};
use crate::support::linearizability::{Verdict, check};

const BUDGET: u64 = 1_000_000;
/// Many times what the checker takes in a debug build. A checker that tries too many orders takes hours.
const SECONDS: Duration = Duration::from_secs(30);

/// What a register replies to a request, and what it holds afterwards.
fn apply(request: &Request, state: Option<u32>) -> (Reply, Option<u32>) {
    let written = |value: &String| value.parse().expect("values are numbers");
    match (request, state) {
        (Request::Get | Request::Delete, None) => (Reply::Missing, None),
        (Request::Get, Some(value)) => (found(value), state),
        (Request::Delete, Some(_)) => (deleted(), None),
        (Request::CompareAndSet { expected, .. }, _) if *expected != state.map(version_of) => {
            let current = current(state);
            (Reply::Conflict { current }, state)
        }
        (Request::Add { .. }, _) => unreachable!("counters are checked by themselves"),
        (Request::Put { value } | Request::CompareAndSet { value, .. }, _) => {
            (done(written(value)), Some(written(value)))
        }
    }
}

/// Tries every order, one after the other. It is too slow for more than a few operations, and too simple
/// to be wrong.
fn some_order_explains(left: &[Operation], state: Option<u32>) -> bool {
    let Some(bound) = left.iter().filter_map(Operation::returned).min() else {
        return true;
    };
    (0..left.len())
        .filter(|&next| left[next].called <= bound)
        .any(|next| {
            let mut rest = left.to_vec();
            let operation = rest.remove(next);
            let (reply, after) = apply(&operation.request, state);
            let explained = match &operation.end {
                End::Returned { reply: seen, .. } => *seen == reply,
                End::Unknown | End::Failed => true,
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
        // All versions must be ones that somebody saw with their values: the checker assumes less of others.
        if !history
            .iter()
            .all(|operation| names_known_versions(operation, &history))
        {
            continue;
        }
        let expected = some_order_explains(&history, None);
        agree(&history, expected);
        verdicts[usize::from(expected)] += 1;
    }
    assert!(verdicts.iter().all(|&times| times > 1_000), "{verdicts:?}");
}

fn agree(history: &[Operation], linearizable: bool) {
    let verdict = check(history, BUDGET);
    let agreed = match verdict {
        Verdict::Linearizable => linearizable,
        Verdict::Violation(_) => !linearizable,
        Verdict::Unknown => false,
    };
    assert!(
        agreed,
        "the verdict is {verdict:?}, but whether the history is linearizable: {linearizable}\n{}",
        print(history)
    );
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
    let reply_is_known = match &operation.end {
        End::Returned {
            reply:
                Reply::Conflict {
                    current: Current::Version(version),
                },
            ..
        } => is_known(version),
        _ => true,
    };
    match &operation.request {
        Request::CompareAndSet {
            expected: Some(version),
            ..
        } => reply_is_known && is_known(version),
        _ => reply_is_known,
    }
}

/// The register, for the checker of `todc-utils`.
struct Register;

impl Specification for Register {
    type State = Option<u32>;
    /// A request, and the reply that the client received.
    type Operation = (Request, Reply);

    fn init() -> Option<u32> {
        None
    }

    fn apply((request, received): &Self::Operation, state: &Option<u32>) -> (bool, Option<u32>) {
        match apply(request, *state) {
            (reply, after) if reply == *received => (true, after),
            _ => (false, *state),
        }
    }
}

/// Whether the checker of `todc-utils` finds an order. All operations must have returned.
fn another_checker_finds_an_order(history: &[Operation]) -> bool {
    let mut actions = Vec::new();
    for (process, operation) in history.iter().enumerate() {
        let End::Returned { at, reply } = &operation.end else {
            panic!("it has not returned: {operation}");
        };
        let both = (operation.request.clone(), reply.clone());
        actions.push((operation.called, (process, Action::Call(both.clone()))));
        actions.push((*at, (process, Action::Response(both))));
    }
    // An operation that is called at the moment at which another returns overlaps with it.
    actions.sort_by_key(|(at, (_, action))| (*at, matches!(action, Action::Response(_))));
    let actions = actions.into_iter().map(|(_, action)| action).collect();
    WGLChecker::<Register>::is_linearizable(History::from_actions(actions))
}

/// What clients see of a real register. In half of the histories one reply is false.
fn plausible_history(rng: &mut Rng) -> Vec<Operation> {
    let mut state = None;
    let mut history = Vec::new();
    let length = rng.u32(5..=14);
    for number in 1..=length {
        let request = match rng.u8(..8) {
            0..3 => Request::Get,
            3 | 4 => write(number),
            5 => Request::Delete,
            6 => swap(state, number),
            _ => swap(Some(rng.u32(1..=number)).filter(|_| rng.bool()), number),
        };
        let (reply, after) = apply(&request, state);
        state = after;
        let effect = 100 + 10 * u64::from(number);
        let (called, returned) = (effect - rng.u64(..40), effect + rng.u64(1..40));
        history.push(operation(called, returned, request, reply));
    }
    if rng.bool() {
        let liar = rng.usize(..history.len());
        let state = Some(rng.u32(1..=length)).filter(|_| rng.u8(..4) > 0);
        let (lie, _) = apply(&history[liar].request, state);
        if let End::Returned { reply, .. } = &mut history[liar].end {
            *reply = lie;
        }
    }
    history
}

#[test]
fn on_histories_without_unknown_outcomes_the_checker_agrees_with_another_one() {
    let mut rng = Rng::with_seed(8);
    let mut verdicts = [0; 2];
    for _ in 0..20_000 {
        let history = plausible_history(&mut rng);
        if !history
            .iter()
            .all(|operation| names_known_versions(operation, &history))
        {
            continue;
        }
        let expected = another_checker_finds_an_order(&history);
        agree(&history, expected);
        verdicts[usize::from(expected)] += 1;
    }
    assert!(verdicts.iter().all(|&times| times > 2_000), "{verdicts:?}");
}

#[test]
fn twenty_thousand_operations_are_checked_within_seconds() {
    let mut history = by_chance(1, 40_000);
    assert!(history.len() > 20_000, "{}", history.len());
    let began = Instant::now();
    assert_eq!(check(&history, BUDGET), Verdict::Linearizable);
    // The checker also finds one stale read among so many operations.
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
    let took = began.elapsed();
    assert!(took < SECONDS, "{took:?}");
}

#[test]
fn a_history_that_is_too_hard_gets_no_verdict_within_seconds() {
    // In whatever order the writes came, no delete explains the last read.
    let mut history: Vec<_> = (1..=40).map(|number| put(1, 100, number)).collect();
    history.push(get(110, 120, 40));
    history.push(missing(130, 140));
    let began = Instant::now();
    assert_eq!(check(&history, BUDGET), Verdict::Unknown);
    let took = began.elapsed();
    assert!(took < SECONDS, "{took:?}");
}
