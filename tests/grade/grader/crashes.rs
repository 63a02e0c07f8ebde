//! Phases 5 and 6: nodes crash and return while many clients ask.

use super::concurrency::{adopt, all_answered, five_keys, linearizable, observe, settled};
use super::course::Course;
use super::score::Score;
use crate::support::cluster::FIVE;

pub const ONE: &[&str] = &[
    "12 clients, five keys, one node crashes and returns: no error",
    "and it is as if one request came after the other: nothing acknowledged is lost",
    "the node that returned: each key's last value through it",
    "the node that returned: @ lists its share, with what it missed",
    "every node: all pairs, of the earlier phases too",
];

pub const IN_TURN: &[&str] = &[
    "12 clients, five keys, each node crashes and returns, with short gaps: no error",
    "and it is as if one request came after the other: nothing acknowledged is lost",
    "every node: all pairs, of the earlier phases too, and each replica its share",
];

const CLIENTS: u32 = 12;
/// How often each node crashes in phase 6.
const ROUNDS: usize = 2;

pub fn run_one(course: &mut Course, score: &mut Score) {
    let keys = five_keys(course);
    let victim = course.replicas(&keys[0])[0];
    let observed = observe(course, &keys, CLIENTS, |progress, cluster| {
        progress.await_more(400);
        cluster.kill(victim);
        progress.await_more(800);
        cluster.restart(victim);
        progress.await_more(400);
    });
    score.note(ONE[0], all_answered(&observed));
    score.note(ONE[1], linearizable(course, 5, &observed));
    let adopted = adopt(course, &keys);
    let queried = || keys.iter().try_for_each(|key| course.query(victim, key));
    score.note(ONE[2], adopted.and_then(|()| queried()));
    score.note(ONE[3], course.query_own(victim));
    score.note(ONE[4], settled(course));
}

pub fn run_in_turn(course: &mut Course, score: &mut Score) {
    let keys = five_keys(course);
    let mut order = FIVE;
    course.rng.shuffle(&mut order);
    let observed = observe(course, &keys, CLIENTS, |progress, cluster| {
        for node in order.into_iter().cycle().take(ROUNDS * FIVE.len()) {
            progress.await_more(50);
            cluster.kill(node);
            progress.await_more(100);
            cluster.restart(node);
        }
        progress.await_more(50);
    });
    score.note(IN_TURN[0], all_answered(&observed));
    score.note(IN_TURN[1], linearizable(course, 6, &observed));
    let result = adopt(course, &keys).and_then(|()| settled(course));
    score.note(IN_TURN[2], result);
}
