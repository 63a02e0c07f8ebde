//! Phase 1: one client, no failure.

use super::course::{Course, Expected, Pairs};
use super::score::{Lost, Score};
use crate::support::cluster::FIVE;

pub const CHECKS: &[&str] = &[
    "insert: new pairs through every node, and new values for old keys",
    "query: every key through every node; what was never inserted is not found",
    "delete: keys, @ and *; what is deleted is not found, and can be inserted again",
    "@ on every node: just the pairs of its three ranges",
    "* on every node: every pair once",
    "replication: each pair is on the key's successor and the two nodes after it",
];

/// How many new pairs are inserted.
const PAIRS: usize = 60;

pub fn run(course: &mut Course, score: &mut Score) {
    score.note(CHECKS[0], insert(course));
    score.note(CHECKS[1], query(course));
    score.note(CHECKS[2], delete(course));
    // This comes before any `@`, which would make nodes fetch what they lack.
    let replication = replication(course);
    let own = FIVE.into_iter().try_for_each(|node| course.query_own(node));
    score.note(CHECKS[3], own);
    let all = FIVE.into_iter().try_for_each(|node| course.query_all(node));
    score.note(CHECKS[4], all);
    score.note(CHECKS[5], replication);
}

fn insert(course: &mut Course) -> Result<(), Lost> {
    for number in 0..PAIRS {
        let (key, value) = (course.new_key(), course.new_value());
        course.insert(FIVE[number % FIVE.len()], &key, &value)?;
    }
    let keys: Vec<String> = course.pairs.keys().step_by(3).cloned().collect();
    for key in keys {
        let (node, value) = (course.any_node(), course.new_value());
        course.insert(node, &key, &value)?;
        course.query(node, &key)?;
    }
    Ok(())
}

fn query(course: &mut Course) -> Result<(), Lost> {
    let unknown = course.new_key();
    for node in FIVE {
        course
            .pairs
            .keys()
            .try_for_each(|key| course.query(node, key))?;
        course.query(node, &unknown)?;
    }
    Ok(())
}

fn delete(course: &mut Course) -> Result<(), Lost> {
    delete_listings(course)?;
    let keys: Vec<String> = course.pairs.keys().step_by(2).cloned().collect();
    for (number, key) in keys.iter().enumerate() {
        let node = course.any_node();
        course.delete(node, key)?;
        FIVE.into_iter()
            .try_for_each(|node| course.query(node, key))?;
        course.ask(node, &format!("DEL {key}"), &Expected::Missing)?;
        if number % 2 == 0 {
            let value = course.new_value();
            course.insert(node, key, &value)?;
            course.query(course.replicas(key)[0], key)?;
        }
    }
    Ok(())
}

/// Deletes everything with `DEL @` and `DEL *`, and then inserts it again.
fn delete_listings(course: &mut Course) -> Result<(), Lost> {
    let before = course.pairs.clone();
    let node = course.any_node();
    // The node must have all of its pairs before it deletes them.
    course.query_own(node)?;
    let own = course.share_of(node, &before);
    course.ask(node, "DEL @", &Expected::Count(own.len()))?;
    course.pairs.retain(|key, _| !own.contains_key(key));
    FIVE.into_iter()
        .try_for_each(|node| course.query_all(node))?;
    let left = course.pairs.len();
    course.ask(node, "DEL *", &Expected::Count(left))?;
    course.pairs = Pairs::new();
    FIVE.into_iter()
        .try_for_each(|node| course.query_all(node))?;
    for (key, value) in before {
        let node = course.any_node();
        course.insert(node, &key, &value)?;
    }
    Ok(())
}

fn replication(course: &Course) -> Result<(), Lost> {
    FIVE.into_iter()
        .try_for_each(|node| course.query_count(node))?;
    let lists = FIVE.map(|node| course.list(node, "GET @").map(|pairs| (node, pairs)));
    let lists = lists.into_iter().collect::<Result<Vec<_>, Lost>>()?;
    for key in course.pairs.keys() {
        let expected = course.replicas(key);
        let request = format!("WHERE {key}");
        let reply = course.connect(expected[0])?.call(&request);
        let reply = reply.unwrap_or_else(|error| format!("nothing: {error}"));
        let list: Vec<String> = expected.iter().map(u32::to_string).collect();
        let list = list.join(" ");
        // A node that runs chains also tells the chain of the key.
        let places = reply.split(" epoch ").next().unwrap_or_default();
        if !places.starts_with("WHERE ") || !places.ends_with(&list) {
            let asked = format!("node {}: {request}", expected[0]);
            return Err(Lost::new(
                asked,
                reply,
                format!("WHERE, the hash, and {list}"),
            ));
        }
        let holds = |(node, pairs): &(u32, Vec<(String, String)>)| {
            pairs.iter().any(|(own, _)| own == key).then_some(*node)
        };
        let mut held: Vec<u32> = lists.iter().filter_map(holds).collect();
        held.sort_by_key(|node| expected.iter().position(|other| other == node));
        if held != expected {
            let asked = format!("every node: GET @, and who lists {key}");
            return Err(Lost::new(
                asked,
                format!("{held:?}"),
                format!("{expected:?}"),
            ));
        }
    }
    Ok(())
}
