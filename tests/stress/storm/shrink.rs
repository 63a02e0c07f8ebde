//! The smallest piece of a history that cannot be ordered.
//!
//! A piece proves a violation of the whole only if it could be ordered whenever the whole could. So not every
//! operation may be left out: see [`Piece::may_go`].

use std::time::{Duration, Instant};

use super::piece::Piece;
use crate::support::history::{End, Operation};
use crate::support::linearizability::{Verdict, check};

/// After this time the search ends with the smallest piece so far.
const PATIENCE: Duration = Duration::from_secs(60);

/// Shrinks a history of one key that cannot be ordered, until no run of its operations may be
/// left out. `budget` bounds each check.
pub fn shrink(history: &[Operation], budget: u64) -> Vec<Operation> {
    let mut operations = history.to_vec();
    operations.sort_by_key(|operation| operation.called);
    let began = Instant::now();
    let is_bad = |operations: &[Operation]| {
        began.elapsed() < PATIENCE && matches!(check(operations, budget), Verdict::Violation(_))
    };
    operations = shortest_start(operations, is_bad);
    loop {
        let before = operations.len();
        let mut size = before.div_ceil(2);
        while size > 0 {
            operations = without_runs(operations, size, is_bad);
            size /= 2;
        }
        if operations.len() == before {
            return operations;
        }
    }
}

/// The shortest start of a history that cannot be ordered. No longer start can be ordered, either.
fn shortest_start(
    history: Vec<Operation>,
    is_bad: impl Fn(&[Operation]) -> bool,
) -> Vec<Operation> {
    let mut ends: Vec<u64> = history.iter().filter_map(Operation::returned).collect();
    ends.sort_unstable();
    let shortest = ends.partition_point(|&end| !is_bad(&start(&history, end)));
    match ends.get(shortest) {
        Some(&end) => start(&history, end),
        None => history,
    }
}

/// The history as it was known at a moment. What had not returned by then may or may not be done.
fn start(history: &[Operation], moment: u64) -> Vec<Operation> {
    let called = history
        .iter()
        .filter(|operation| operation.called <= moment);
    called
        .map(|operation| {
            let mut operation = operation.clone();
            if operation.returned().is_some_and(|at| at > moment) {
                operation.end = End::Unknown;
            }
            operation
        })
        .collect()
}

/// Leaves out one run of so many operations after the other, as long as the rest cannot be
/// ordered.
fn without_runs(
    mut operations: Vec<Operation>,
    size: usize,
    is_bad: impl Fn(&[Operation]) -> bool,
) -> Vec<Operation> {
    let mut first = 0;
    while first < operations.len() {
        let run = first..(first + size).min(operations.len());
        let smaller = Piece::of(&operations).without(run);
        if smaller.len() < operations.len() && is_bad(&smaller) {
            operations = smaller;
        } else {
            first += size;
        }
    }
    operations
}
