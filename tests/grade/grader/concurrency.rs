//! Phases 2 and 3: many clients at once on all nodes, first with keys of their own, and then with the same keys.

use std::thread;

use fastrand::Rng;

use super::course::{Course, Expected, Pairs, ask};
use super::score::{Lost, Score};
use crate::support::cluster::{Cluster, FIVE};
use crate::support::history;
use crate::support::linearizability::{Verdict, check};
use crate::support::workload::{BUDGET, Observed, Progress, Workload};

pub const OWN_KEYS: &[&str] = &[
    "insert: 20 clients at once, each with keys of its own, four through each node",
    "query: each client reads what it wrote, through any node",
    "delete: what a client deleted is not found, through any node",
    "afterwards: every node lists all, and each replica its share",
];

pub const SAME_KEYS: &[&str] = &[
    "insert: 20 clients write one key at once, and every node tells the same afterwards",
    "insert, query, delete: 12 clients, five keys: as if one request came after the other",
    "afterwards: every node lists all, and each replica its share",
];

const CLIENTS_PER_NODE: usize = 4;
/// Keys of one client.
const KEYS: usize = 20;
/// How often each client writes the one key.
const WRITES: usize = 40;

pub fn run_own_keys(course: &mut Course, score: &mut Score) {
    let scripts: Vec<Script> = clients().map(|node| Script::new(course, node)).collect();
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let course = &*course;
        let run = |script| scope.spawn(move || Script::run(script, course));
        let threads: Vec<_> = scripts.into_iter().map(run).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|outcome| outcome.expect("the client does not panic"))
            .collect()
    });
    let mut results = [const { Ok(()) }; 3];
    for client in outcomes {
        course.pairs.extend(client.pairs);
        for (result, own) in results.iter_mut().zip(client.results) {
            *result = std::mem::replace(result, Ok(())).and(own);
        }
    }
    for (name, result) in OWN_KEYS.iter().zip(results) {
        score.note(name, result);
    }
    score.note(OWN_KEYS[3], settled(course));
}

/// The node of each client.
fn clients() -> impl Iterator<Item = u32> {
    FIVE.into_iter().flat_map(|node| [node; CLIENTS_PER_NODE])
}

/// What one client does with its own keys.
struct Script {
    node: u32,
    keys: Vec<String>,
    /// For each key the first value, and the one that replaces it.
    values: Vec<[String; 2]>,
    rng: Rng,
}

/// The outcome of a script: the pairs that it left, and the results of inserts, queries and deletes.
struct Outcome {
    pairs: Pairs,
    results: [Result<(), Lost>; 3],
}

impl Script {
    fn new(course: &mut Course, node: u32) -> Script {
        Script {
            node,
            keys: (0..KEYS).map(|_| course.new_key()).collect(),
            values: (0..KEYS)
                .map(|_| [(); 2].map(|()| course.new_value()))
                .collect(),
            rng: course.rng.fork(),
        }
    }

    fn run(mut self, course: &Course) -> Outcome {
        let mut pairs = Pairs::new();
        let results = [
            self.insert(course, &mut pairs),
            self.query(course, &pairs),
            self.delete(course, &mut pairs),
        ];
        Outcome { pairs, results }
    }

    fn insert(&mut self, course: &Course, pairs: &mut Pairs) -> Result<(), Lost> {
        let mut client = course.connect(self.node)?;
        for (key, values) in self.keys.iter().zip(&self.values) {
            for value in values {
                let request = format!("PUT {key} {value}");
                ask(&mut client, self.node, &request, &Expected::Done)?;
                pairs.insert(key.clone(), value.clone());
            }
        }
        Ok(())
    }

    fn query(&mut self, course: &Course, pairs: &Pairs) -> Result<(), Lost> {
        for key in &self.keys {
            let node = FIVE[self.rng.usize(..FIVE.len())];
            let expected = Expected::of(pairs.get(key));
            course.ask(node, &format!("GET {key}"), &expected)?;
        }
        Ok(())
    }

    fn delete(&mut self, course: &Course, pairs: &mut Pairs) -> Result<(), Lost> {
        for key in self.keys.iter().step_by(3) {
            course.ask(self.node, &format!("DEL {key}"), &Expected::Done)?;
            pairs.remove(key);
            let node = FIVE[self.rng.usize(..FIVE.len())];
            course.ask(node, &format!("GET {key}"), &Expected::Missing)?;
        }
        Ok(())
    }
}

pub fn run_same_keys(course: &mut Course, score: &mut Score) {
    score.note(SAME_KEYS[0], write_one_key(course));
    let keys = five_keys(course);
    let observed = observe(course, &keys, 12, |progress, _| progress.await_more(2000));
    let result = all_answered(&observed).and(linearizable(course, 3, &observed));
    score.note(SAME_KEYS[1], result);
    score.note(
        SAME_KEYS[2],
        adopt(course, &keys).and_then(|()| settled(course)),
    );
}

fn write_one_key(course: &mut Course) -> Result<(), Lost> {
    let key = course.new_key();
    let write = |number: usize, node: u32| {
        let (course, key) = (&*course, &key);
        move || {
            let mut client = course.connect(node)?;
            (0..WRITES).try_for_each(|count| {
                let request = format!("PUT {key} {number} {count}");
                ask(&mut client, node, &request, &Expected::Done).map(drop)
            })
        }
    };
    let results: Vec<Result<(), Lost>> = thread::scope(|scope| {
        let spawn = |(number, node)| scope.spawn(write(number, node));
        let threads: Vec<_> = clients().enumerate().map(spawn).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|outcome| outcome.expect("the client does not panic"))
            .collect()
    });
    adopt(course, std::slice::from_ref(&key))?;
    results.into_iter().collect::<Result<(), Lost>>()?;
    let last = course.pairs.get(&key).cloned().unwrap_or_default();
    if !last.ends_with(&format!(" {}", WRITES - 1)) {
        let expected = format!("the last write of a client, number {}", WRITES - 1);
        return Err(Lost::new(format!("any node: GET {key}"), last, expected));
    }
    FIVE.into_iter()
        .try_for_each(|node| course.query(node, &key))
}

pub fn five_keys(course: &mut Course) -> Vec<String> {
    (0..5).map(|_| course.new_key()).collect()
}

/// Lets clients send random requests for a few keys to random nodes until `meanwhile` returns.
pub fn observe(
    course: &mut Course,
    keys: &[String],
    clients: u32,
    meanwhile: impl FnOnce(&Progress, &Cluster),
) -> Observed {
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let workload = Workload {
        seed: course.rng.u64(..),
        cluster: &course.cluster,
        clients,
        keys: &keys,
    };
    workload
        .run(|progress| meanwhile(progress, &course.cluster))
        .0
}

/// Checks that no request that a running node took was answered with an error.
pub fn all_answered(observed: &Observed) -> Result<(), Lost> {
    match observed.examples.values().next() {
        None => Ok(()),
        Some(example) => {
            let (errors, all) = (observed.refused, observed.history.len());
            let asked = format!("{all} requests by many clients");
            let answered = format!("{errors} errors, such as {example}");
            Err(Lost::new(asked, answered, "no error"))
        }
    }
}

/// Checks that an order of all requests explains every answer.
pub fn linearizable(course: &Course, phase: usize, observed: &Observed) -> Result<(), Lost> {
    let why = match check(&observed.history, BUDGET) {
        Verdict::Linearizable => return Ok(()),
        Verdict::Violation(text) => text,
        Verdict::Unknown => "too many requests at once to tell".to_owned(),
    };
    let file = course.folder.join(format!("phase{phase}.history"));
    let written = std::fs::write(&file, history::print(&observed.history));
    let place = written.map_or_else(|error| error.to_string(), |()| file.display().to_string());
    let asked = format!("{} requests, all in {place}", observed.history.len());
    Err(Lost::new(
        asked,
        why,
        "answers as if one request came after the other",
    ))
}

/// Takes the values that the clients have left of these keys for the right ones from now on.
pub fn adopt(course: &mut Course, keys: &[String]) -> Result<(), Lost> {
    for key in keys {
        let node = course.replicas(key)[0];
        let reply = course.connect(node)?.call(&format!("GET {key}"));
        let reply = reply.unwrap_or_else(|error| format!("nothing: {error}"));
        match reply
            .strip_prefix("VALUE ")
            .and_then(|rest| rest.split_once(' '))
        {
            Some((_, value)) => course.pairs.insert(key.clone(), value.to_owned()),
            None if reply == "NOT_FOUND" => course.pairs.remove(key),
            None => {
                let asked = format!("node {node}: GET {key}");
                return Err(Lost::new(asked, reply, "VALUE or NOT_FOUND"));
            }
        };
    }
    Ok(())
}

/// Checks that every node lists all pairs, of this phase and of those before, and that each replica holds its
/// share.
pub fn settled(course: &Course) -> Result<(), Lost> {
    FIVE.into_iter().try_for_each(|node| {
        course.query_all(node)?;
        course.query_own(node)
    })
}
