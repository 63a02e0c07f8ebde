//! Members that reach others in one direction only: a range is served while two of its replicas can talk.

use std::time::Duration;

use simple_dynamo::protocol::Outcome;

use crate::exclude;
use crate::world::{World, put};

const TICK: Duration = Duration::from_millis(25);
const SECOND: Duration = Duration::from_secs(1);

/// In how many rounds of a second a write is done through some node.
fn writes_done(world: &mut World, rounds: u64) -> u64 {
    let mut done = 0;
    for client in 0..rounds {
        let told = world.told.len();
        (0..3).for_each(|node| world.request(client, node, put(client, "x")));
        world.pass(SECOND);
        let is_done = |(_, outcome): &(u64, Outcome)| matches!(outcome, Outcome::Decided(_));
        done += u64::from(world.told[told..].iter().any(is_done));
    }
    done
}

/// A member that answers and can ask nobody is there for all others, and can do no member's part.
#[test]
fn a_member_that_reaches_nobody_does_not_keep_the_others_from_going_on() {
    for mute in 0..3 {
        let mut world = World::new();
        let others: Vec<usize> = (0..3).filter(|node| *node != mute).collect();
        world.unconnected = others.iter().map(|other| (mute, *other)).collect();
        let done = writes_done(&mut world, 30);
        assert!(done >= 28, "node {mute} reaches nobody: {done} of 30");
    }
}

/// It returns, and nobody can take what it gives.
#[test]
fn a_replica_that_nobody_reaches_does_not_stop_the_chain_again_and_again() {
    let mut world = World::new();
    exclude(&mut world, 0, &[2]);
    world.unconnected = vec![(0, 2), (1, 2)];
    world.pass(20 * SECOND);
    let (until, mut epochs) = (world.now + 60 * SECOND, Vec::new());
    while world.now < until {
        world.pass(TICK);
        epochs.push(world.adopted(0).0);
    }
    epochs.dedup();
    // A return each 15 seconds, and what the others begin after it.
    assert!(epochs.len() <= 12, "{epochs:?}");
}

/// Every set of links of one direction that leaves two replicas who reach each other.
#[test]
fn a_range_is_served_while_two_of_its_replicas_can_talk_both_ways() {
    let pairs = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)];
    for (set, left_out) in (0..64u32).flat_map(|set| [None, Some(2), Some(0)].map(|out| (set, out)))
    {
        let broken = (0..6)
            .filter(|bit| set >> bit & 1 == 1)
            .map(|bit| pairs[bit]);
        let broken: Vec<(usize, usize)> = broken.collect();
        let talk = |a, b| !broken.contains(&(a, b)) && !broken.contains(&(b, a));
        if !(talk(0, 1) || talk(0, 2) || talk(1, 2)) {
            continue;
        }
        for connections in [true, false] {
            let mut world = World::new();
            if let Some(out) = left_out {
                exclude(&mut world, 1, &[out]);
            }
            match connections {
                true => world.unconnected = broken.clone(),
                false => world.cut = broken.clone(),
            }
            let what = format!("{broken:?}, connections {connections}, without {left_out:?}");
            let done = writes_done(&mut world, 30);
            assert!(done >= 27, "{what}: {done} of 30 writes");
            (world.unconnected, world.cut) = (Vec::new(), Vec::new());
            (0..3).for_each(|node| world.suspect(node, &[]));
            world.pass(60 * SECOND);
            let is_whole = |node| world.serves(node) && world.adopted(node).1 == [0, 1, 2];
            assert!((0..3).all(is_whole), "{what}: all three again");
        }
    }
}
