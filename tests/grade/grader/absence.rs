//! Phase 4: before each operation one node goes down, and it comes back after it.

use super::course::{Course, Expected};
use super::score::{Lost, Score};
use crate::support::cluster::FIVE;

pub const CHECKS: &[&str] = &[
    "insert: a new pair and a new value, without each of the key's three nodes in turn",
    "query: likewise",
    "delete: likewise; afterwards the key is not found",
    "@ and *: complete, on the nodes that are up",
    "the node that was down: has what it missed as soon as it says that it is complete",
];

/// The places in the key's preference list: the node at each of them is down in turn.
const ROLES: std::ops::Range<usize> = 0..3;

pub fn run(course: &mut Course, score: &mut Score) {
    let mut returned = Ok(());
    let mut each_role = |course: &mut Course, operation: Operation| {
        let mut result = Ok(());
        for role in ROLES {
            let (asked, back) = without(course, role, operation);
            result = result.and(asked);
            returned = std::mem::replace(&mut returned, Ok(())).and(back);
        }
        result
    };
    score.note(CHECKS[0], each_role(course, insert));
    score.note(CHECKS[1], each_role(course, query));
    score.note(CHECKS[2], each_role(course, delete));
    score.note(CHECKS[3], each_role(course, list));
    score.note(CHECKS[4], returned);
}

/// An operation on a key that the node that is down holds, through a node that is up.
type Operation = fn(&mut Course, key: &str, up: u32) -> Result<(), Lost>;

/// Ends a node that holds some key, runs `operation`, and starts the node again once all others have noticed
/// that it is down. Returns the result of the operation, and whether the node has what it missed then.
fn without(
    course: &mut Course,
    role: usize,
    operation: Operation,
) -> (Result<(), Lost>, Result<(), Lost>) {
    let keys: Vec<String> = course.pairs.keys().cloned().collect();
    let key = &keys[course.rng.usize(..keys.len())];
    let victim = course.replicas(key)[role];
    let mut others = FIVE.to_vec();
    others.retain(|node| *node != victim);
    let up = others[course.rng.usize(..others.len())];
    course.cluster.kill(victim);
    let result = operation(course, key, up);
    // If the node came back at once, it would still be sent what it has just missed.
    for other in others {
        course.cluster.await_sight(other, victim, "suspect");
    }
    course.cluster.restart(victim);
    let expected = course.share_of(victim, &course.pairs);
    let returned = course
        .query_listing(victim, "GET @", &expected)
        .and_then(|()| course.query(victim, key));
    (result, returned)
}

fn insert(course: &mut Course, key: &str, up: u32) -> Result<(), Lost> {
    let value = course.new_value();
    course.insert(up, key, &value)?;
    course.query(up, key)?;
    let (key, value) = (course.new_key(), course.new_value());
    course.insert(up, &key, &value)?;
    course.query(up, &key)
}

fn query(course: &mut Course, key: &str, up: u32) -> Result<(), Lost> {
    course.query(up, key)?;
    let unknown = course.new_key();
    course.query(up, &unknown)
}

fn delete(course: &mut Course, key: &str, up: u32) -> Result<(), Lost> {
    course.delete(up, key)?;
    course.query(up, key)?;
    course
        .ask(up, &format!("DEL {key}"), &Expected::Missing)
        .map(drop)
}

fn list(course: &mut Course, _: &str, up: u32) -> Result<(), Lost> {
    course.query_all(up)?;
    course.query_own(up)
}
