//! Members that are there and cannot do their part: disks that hang, disks that are slow, links of one direction.

use std::time::Duration;

use simple_dynamo::protocol::chain::{Answer, Question};
use simple_dynamo::protocol::{Operation, Outcome};

use crate::exclude;
use crate::world::{Body, Message, World, put, tells_status_to, touches};

const TICK: Duration = Duration::from_millis(25);
/// A disk hangs if nothing becomes durable for so long.
const HANGS: Duration = Duration::from_millis(400);

fn asks_to_adopt(message: &Message) -> bool {
    matches!(message.body, Body::Ask(_, Question::Adopt(_)))
}

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

/// A member says that it is there, and its disk hangs before it has adopted the epoch.
#[test]
fn a_disk_that_hangs_while_an_epoch_begins_does_not_hold_up_the_others() {
    let mut world = World::new();
    world.hang(0);
    world.suspect(1, &[2]);
    world.miss(1);
    world.look(1);
    world.take(touches(2));
    world.run();
    assert_eq!(world.adopted(0).1, [0, 1], "it has adopted that in memory");
    world.pass(HANGS - TICK);
    assert_eq!(world.adopted(1).1, [0, 1], "it waits");
    world.pass(HANGS);
    assert_eq!(world.adopted(1).1, [1, 2]);
    assert!(world.serves(1) && world.serves(2));
}

/// A member says that it is there, and its disk hangs before it is asked to adopt the epoch.
#[test]
fn a_node_whose_disk_hangs_refuses_an_epoch_at_once() {
    let mut world = World::new();
    world.pass(HANGS);
    world.hang(2);
    world.request(1, 0, put(1, "one"));
    world.pass(HANGS / 2);
    let before = world.adopted(2);
    world.suspect(1, &[0]);
    world.miss(1);
    let blocked = |message: &Message| touches(0)(message) || asks_to_adopt(message);
    world.pass_but(HANGS / 2 + 2 * TICK, blocked);
    assert_eq!(world.adopted(1).1, [1, 2]);
    assert!(!world.serves(2), "it has found that its disk hangs");
    world.run();
    assert_eq!(world.adopted(2), before);
    world.pass(HANGS / 2);
    assert_eq!(world.adopted(1).1, [0, 1]);
    assert!(world.serves(0) && world.serves(1));
}

/// A member looks around, and its disk hangs before it has heard all answers.
#[test]
fn a_node_whose_disk_hangs_proposes_nothing() {
    let mut world = World::new();
    world.pass(HANGS);
    world.hang(2);
    world.request(1, 0, put(1, "one"));
    world.pass(HANGS - 3 * TICK);
    let before = world.adopted(2);
    world.suspect(2, &[0]);
    world.miss(2);
    let answers = |message: &Message| touches(0)(message) || tells_status_to(2)(message);
    world.pass_but(4 * TICK, answers);
    assert!(!world.serves(2), "it has found that its disk hangs");
    let taken = world.take(tells_status_to(2));
    assert!(taken.iter().any(|message| message.from == 1));
    taken.into_iter().for_each(|message| world.deliver(message));
    assert_eq!(world.adopted(2), before);
}

/// A process that was stopped has not looked after its disk meanwhile, and the disk was not asked for anything.
#[test]
fn a_process_that_stood_still_does_not_call_its_disk_hung() {
    let mut world = World::new();
    world.pass(HANGS);
    world.hang(2);
    world.request(1, 0, put(1, "one"));
    world.run();
    world.look(2);
    assert!(world.serves(2), "it has looked once in a long time");
    world.pass(HANGS + TICK);
    assert!(!world.serves(2), "it looks all the time");
}

/// What others said before it had adopted an epoch is over.
#[test]
fn late_answers_to_a_look_make_nobody_propose_against_what_it_has_adopted_since() {
    let mut world = World::new();
    world.suspect(1, &[2]);
    world.miss(1);
    world.look(1);
    world.run_but(tells_status_to(1));
    let late = world.take(tells_status_to(1));
    assert!(late.iter().any(|message| message.from == 0));
    world.suspect(0, &[2]);
    world.miss(0);
    world.look(0);
    let collects = |message: &Message| matches!(message.body, Body::Compare { .. });
    world.run_but(|message| collects(message) || touches(2)(message));
    let proposed = world.adopted(0);
    assert_eq!(
        (world.adopted(1), world.serves(1)),
        (proposed.clone(), false)
    );
    late.into_iter().for_each(|message| world.deliver(message));
    world.run_but(touches(2));
    assert_eq!(world.adopted(1), proposed);
    assert!(world.serves(0) && world.serves(1));
}

#[test]
fn what_a_disk_held_up_stops_no_chain_later() {
    let mut world = World::new();
    exclude(&mut world, 0, &[2]);
    world.request(1, 0, put(1, "one"));
    world.pass(HANGS);
    world.hang(2);
    let before = world.adopted(0);
    // It returns after a second, and adopts an epoch that nobody hears of.
    world.pass(5 * HANGS);
    assert!(world.adopted(2).0 > before.0, "it has proposed an epoch");
    assert_eq!(world.adopted(0), before);
    world.heal(2);
    world.run();
    assert_eq!(world.adopted(0), before);
    assert!(world.serves(0) && world.serves(1));
}

/// A member that passes a read on says which epoch it serves, so that this one has begun.
#[test]
fn a_read_that_a_member_passes_on_tells_the_tail_that_its_epoch_has_begun() {
    let mut world = World::new();
    (0..3).for_each(|node| world.restart(node));
    world.look(0);
    let is_begin = |message: &Message| {
        message.to == 2 && matches!(message.body, Body::Ask(_, Question::Begin(_)))
    };
    world.run_but(is_begin);
    assert!(world.serves(1) && !world.serves(2));
    world.request(1, 1, Operation::Get);
    world.run_but(is_begin);
    assert_eq!(world.read_if_told(1).as_deref(), Some("nothing"));
    assert!(world.serves(2));
}

#[test]
fn a_member_that_hears_of_a_proposer_at_work_makes_way_for_it() {
    let mut world = World::new();
    world.suspect(1, &[2]);
    world.miss(1);
    world.look(1);
    let is_adopt = |message: &Message| asks_to_adopt(message) && message.to == 0;
    world.run_but(is_adopt);
    let (before, _) = world.adopted(0);
    assert!(world.adopted(1).0 > before);
    world.miss(0);
    world.look(0);
    world.run_but(is_adopt);
    assert!(!world.serves(0), "there is a higher epoch");
    assert_eq!(world.adopted(0).0, before);
}

/// A member answers, and does not reach the proposer.
#[test]
fn who_cannot_take_what_it_is_given_is_left_out_of_the_next_epoch() {
    let mut world = World::new();
    (0..3).for_each(|node| world.restart(node));
    world.look(1);
    let gives = |message: &Message| {
        message.to == 2 && matches!(message.body, Body::Ask(_, Question::Give(_)))
    };
    world.run_but(gives);
    for message in world.take(gives) {
        if let Body::Ask(ticket, _) = message.body {
            let body = Body::Told(ticket, Answer::Refused);
            let (from, to) = (message.to, message.from);
            world.bag.push_back(Message { from, to, body });
        }
    }
    world.run();
    assert_eq!(world.adopted(1).1, [0, 1, 2]);
    assert!(!world.serves(1));
    world.look(1);
    world.run();
    assert_eq!(world.adopted(1).1, [0, 1]);
    assert!(world.serves(0) && world.serves(1));
}
