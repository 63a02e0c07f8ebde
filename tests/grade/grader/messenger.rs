//! The group messenger: every message goes to all nodes, in total and FIFO order, under one failure at a time.
//!
//! At each node there is a sender, which sends again by the client's rule what was not acknowledged, and a member.

use std::convert::Infallible;
use std::time::Duration;

use super::course::Course;
use super::score::{Lost, Score};
use crate::support::cluster::{Cluster, FIVE};
use crate::support::messenger::chronicle::{Chronicle, Said};
use crate::support::messenger::judge::{Breach, Invariant, SLACK, judge};
use crate::support::messenger::{Conversation, Talk};

pub const WHOLE: &[&str] = &[
    "total order: all members are shown messages 1 to n, without a gap, and the same ones",
    "FIFO: the messages of each sender are in the order in which it sent them",
    "once: no message is lost, doubled or invented",
    "stored: what was told OK n is message n, and HISTORY of every node lists it so",
    "no stall: no sender waits for over a second, and no node cannot read the group for so long",
];

pub const KILLED: &[&str] = &[
    "total order: all members are shown messages 1 to n, without a gap, and the same ones",
    "FIFO: the messages of each sender are in the order in which it sent them",
    "once: no message is lost, doubled or invented",
    "stored: what was told OK n is message n, and HISTORY of every node lists it so",
    "no stall: no sender at another node waits for over a second, and no node cannot read the group for so long",
    "afterwards: all members have been shown everything within two seconds",
];

/// The invariants of the first checks of a phase.
const FIRST: [Invariant; 4] = [
    Invariant::TotalOrder,
    Invariant::Fifo,
    Invariant::Once,
    Invariant::Numbered,
];
/// How long a sender may wait.
const WAIT: Duration = Duration::from_secs(1);
/// How many messages the whole first phase takes.
const MESSAGES: usize = 1500;
/// How many come before a node is killed, and as many before it is started again.
const BETWEEN: usize = 250;
/// The longest pause of a sender between two messages.
const THINK: Duration = Duration::from_millis(10);

pub fn run_whole(course: &mut Course, score: &mut Score) {
    let (chronicle, breaches) = observe(course, "whole", |talk, _, _| talk.await_more(MESSAGES));
    for (name, invariant) in WHOLE.iter().zip(FIRST) {
        score.note(name, holds(invariant, &breaches));
    }
    score.note(WHOLE[4], goes_on(&chronicle));
}

pub fn run_killed(course: &mut Course, score: &mut Score) {
    let (chronicle, breaches) = observe(course, "killed", |talk, cluster, order| {
        for node in order {
            talk.await_more(BETWEEN);
            cluster.kill(node);
            talk.await_more(BETWEEN);
            cluster.restart(node);
        }
        talk.await_more(BETWEEN);
    });
    for (name, invariant) in KILLED.iter().zip(FIRST) {
        score.note(name, holds(invariant, &breaches));
    }
    score.note(KILLED[4], goes_on(&chronicle));
    score.note(KILLED[5], holds(Invariant::Settled, &breaches));
}

/// Lets everybody speak in a new group until `meanwhile` returns, which gets the nodes in a random order. Returns
/// what the clients saw, and what is wrong with it.
fn observe(
    course: &mut Course,
    group: &str,
    meanwhile: impl FnOnce(&Talk, &Cluster, [u32; 5]),
) -> (Chronicle, Vec<Breach>) {
    let mut order = FIVE;
    course.rng.shuffle(&mut order);
    let conversation = Conversation {
        cluster: &course.cluster,
        groups: &[group],
        senders: &FIVE,
        sayers: &[],
        members: &FIVE,
        think: THINK,
        seed: course.rng.u64(..),
    };
    let seen = conversation.run(|talk| {
        meanwhile(talk, &course.cluster, order);
        Ok::<(), Infallible>(())
    });
    let Ok(mut chronicles) = seen;
    let chronicle = chronicles.remove(0);
    let file = course.folder.join(format!("{group}.json"));
    let text = serde_json::to_string(&chronicle).expect("a chronicle is text and numbers");
    std::fs::write(file, text + "\n").expect("the folder can be written to");
    let breaches = judge(&chronicle);
    (chronicle, breaches)
}

fn holds(invariant: Invariant, breaches: &[Breach]) -> Result<(), Lost> {
    let mut own = breaches
        .iter()
        .filter(|breach| breach.invariant == invariant);
    match own.next() {
        None => Ok(()),
        Some(first) => Err(Lost::new(&first.place, &first.seen, &first.expected)),
    }
}

/// Checks that no sender waited for long, but for one whose own node was down meanwhile, and that every node could
/// read the group for its members.
fn goes_on(chronicle: &Chronicle) -> Result<(), Lost> {
    let said = chronicle.streams.iter().flat_map(|stream| &stream.said);
    let at_others = said.filter(|said| !said.node_failed);
    let longest = at_others.max_by_key(|said| said.waited);
    let too_long = |said: &&Said| Duration::from_millis(said.waited) > WAIT + SLACK;
    if let Some(said) = longest.filter(too_long) {
        let asked = format!(
            "node {}: SEND {} {:?}",
            said.node, chronicle.group, said.text
        );
        let answered = format!("after {} ms", said.waited);
        return Err(Lost::new(asked, answered, format!("within {WAIT:?}")));
    }
    let stays = chronicle.members.iter().flat_map(|member| &member.stays);
    match stays.clone().find(|stay| stay.behind) {
        None => Ok(()),
        Some(stay) => {
            let times = stays.filter(|stay| stay.behind).count();
            let asked = format!("node {}: JOIN {}", stay.node, chronicle.group);
            let answered = format!(
                "BEHIND {}, and so {times} times at all nodes",
                chronicle.group
            );
            Err(Lost::new(
                asked,
                answered,
                "MSG lines, as messages are acknowledged",
            ))
        }
    }
}
