//! Disks that hang, and disks that are slow.

use std::time::Duration;

use simple_dynamo::protocol::Outcome;

use crate::world::{World, put};

const TICK: Duration = Duration::from_millis(25);
/// A disk hangs if nothing becomes durable for so long.
const HANGS: Duration = Duration::from_millis(400);

fn is_acknowledged(world: &World, client: u64) -> bool {
    matches!(world.outcome(client), Some(Outcome::Decided(_)))
}

/// Its node answers pings, so only itself can tell that it hangs.
#[test]
fn a_disk_that_hangs_is_left_out_wherever_it_is_and_the_others_go_on() {
    for hangs in 0..3 {
        let mut world = World::new();
        world.hang(hangs);
        world.request(1, 0, put(1, "one"));
        world.pass(HANGS - TICK);
        assert_eq!(world.outcome(1), None, "node {hangs}");
        world.pass(HANGS);
        assert!(!world.serves(hangs));
        // The head says itself that it does not know. Its client's origin goes on to another member.
        assert_eq!(is_acknowledged(&world, 1), hangs != 0, "node {hangs}");
        let next = if hangs == 1 { 2 } else { 1 };
        for _ in 0..2 {
            world.request(2, next, put(1, "one"));
            world.pass(4 * TICK);
        }
        assert!(is_acknowledged(&world, 2), "node {hangs}");
        let others: Vec<usize> = (0..3).filter(|node| *node != hangs).collect();
        assert_eq!(world.adopted(others[0]).1, others);
        world.sync(hangs);
        world.sync(hangs);
        world.pass(TICK);
        assert_eq!(world.adopted(others[0]).1, others, "it has not caught up");
    }
}

/// Each sync takes a little less than what counts as hanging, and there is always one more to come.
#[test]
fn disks_that_are_slow_everywhere_change_no_chain_and_no_write_is_passed_twice() {
    const WRITES: u64 = 10;
    let mut world = World::new();
    let (before, passes) = (world.adopted(0), world.passes);
    (0..3).for_each(|node| world.hang(node));
    for client in 0..WRITES + 10 {
        if client < WRITES {
            world.request(client, 0, put(client, "one"));
        }
        world.pass(HANGS - TICK);
        (0..3).for_each(|node| world.sync(node));
    }
    assert!((0..WRITES).all(|client| is_acknowledged(&world, client)));
    assert_eq!(world.passes - passes, 2 * WRITES as usize);
    assert_eq!(world.adopted(0), before);
    assert!((0..3).all(|node| world.serves(node)));
}
