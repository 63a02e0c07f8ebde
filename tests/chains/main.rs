//! Rare sequences of messages that an earlier design of the chain did not survive, placed message by message. Each test
//! also shows what happens without the rule that it is about, where there is one.

mod beginning;
mod incapable;
mod unreached;
mod world;

use simple_dynamo::protocol::chain::Question;
use simple_dynamo::protocol::{Change, Operation, Outcome, Verdict};
use simple_dynamo::testing::rules::{self, Rule};
use world::{Body, Message, World, is_pass, put, touches, write};

/// Runs a scenario with a rule left out.
fn without<T>(rule: Rule, scenario: impl FnOnce() -> T) -> T {
    rules::leave_out(Some(rule));
    let result = scenario();
    rules::leave_out(None);
    result
}

/// A node finds others silent, and begins an epoch without them.
fn exclude(world: &mut World, by: usize, silent: &[usize]) {
    world.suspect(by, silent);
    world.miss(by);
    world.look(by);
    let is_cut = |message: &Message| {
        let crosses = |node: &usize| (message.from == *node) != (message.to == *node);
        silent.iter().any(crosses)
    };
    world.take(is_cut);
    world.run_but(is_cut);
    world.take(is_cut);
}

/// What rule 3 of the page about chains moves is acknowledged in the new epoch. A third replica holds a state of an
/// epoch in between, which nobody was told of.
fn a_moved_state_and_a_later_one_that_nobody_saw() -> Vec<String> {
    let mut world = World::new();
    world.request(1, 0, put(1, "one"));
    world.take(is_pass);
    exclude(&mut world, 1, &[0]);
    assert_eq!(world.adopted(1).1, [1, 2]);
    world.request(2, 1, compare_and_set(2, "two"));
    world.take(is_pass);
    // Node 0 has forgotten who served, and forms a chain with node 2.
    world.restart(0);
    world.suspect(0, &[1]);
    world.restart(2);
    exclude(&mut world, 0, &[1]);
    read_before_and_after(world)
}

#[test]
fn what_a_chain_begins_with_is_not_lost_to_a_state_that_nobody_was_told_of() {
    let reads = a_moved_state_and_a_later_one_that_nobody_saw();
    assert_eq!(reads, ["one", "one"]);
    let broken = without(
        Rule::MovedStatesRenewed,
        a_moved_state_and_a_later_one_that_nobody_saw,
    );
    assert_eq!(broken, ["one", "two"], "the CAS expected no value");
}

/// Nodes 0 and 2 form a chain, and a write that node 0 had taken alone is acknowledged in it. Then node 1 returns, and
/// all three begin an epoch. Returns what was read before and after.
fn read_before_and_after(mut world: World) -> Vec<String> {
    assert_eq!(world.adopted(0).1, [0, 2]);
    let mut reads = Vec::new();
    world.request(1, 0, put(1, "one"));
    world.request(3, 2, Operation::Get);
    world.run_but(touches(1));
    assert!(matches!(
        world.outcome(1),
        Some(Outcome::Decided(Verdict::Applied(_)))
    ));
    reads.extend(world.read(3));
    for node in 0..3 {
        world.restart(node);
        world.suspect(node, &[]);
    }
    world.look(0);
    world.run();
    assert_eq!(world.adopted(0).1, [0, 1, 2]);
    world.request(3, 2, Operation::Get);
    world.run();
    reads.extend(world.read(3));
    reads
}

fn compare_and_set(client: u64, value: &str) -> Operation {
    let (expected, value) = (None, value.into());
    write(client, 1, Change::CompareAndSet { expected, value })
}

/// A first attempt to form the chain breaks off while states are moved.
#[test]
fn a_collection_that_breaks_off_leaves_nobody_in_agreement() {
    let mut world = World::new();
    world.request(1, 0, put(1, "one"));
    world.take(is_pass);
    exclude(&mut world, 1, &[0]);
    world.request(2, 1, compare_and_set(2, "two"));
    world.take(is_pass);
    world.restart(0);
    world.restart(2);
    world.suspect(2, &[1]);
    world.look(2);
    world.take(touches(1));
    world.run_but(|message| touches(1)(message) || matches!(message.body, Body::Compare { .. }));
    world.cut_short(2);
    world.restart(2);
    exclude(&mut world, 2, &[1]);
    assert_eq!(read_before_and_after(world), ["one", "one"]);
}

/// A node has lost its folder, and copies a state that only one other replica holds.
fn a_copied_state() -> Vec<String> {
    let mut world = World::new();
    world.request(1, 0, put(1, "one"));
    world.take(is_pass);
    exclude(&mut world, 1, &[0]);
    world.lose_folder(2);
    world.request(2, 1, compare_and_set(2, "two"));
    world.take(is_pass);
    world.restart(0);
    exclude(&mut world, 0, &[1]);
    read_before_and_after(world)
}

#[test]
fn what_was_copied_from_one_replica_is_no_agreement_of_two() {
    assert_eq!(a_copied_state(), ["one", "one"]);
    let broken = without(Rule::CopiedStatesRenewed, a_copied_state);
    assert_eq!(broken, ["one", "two"]);
}

/// A tail is paused with a read in its socket, and goes on after the others have formed a chain and written.
fn a_tail_that_wakes_up() -> Option<String> {
    let mut world = World::new();
    world.request(1, 0, put(1, "old"));
    world.run();
    exclude(&mut world, 0, &[2]);
    assert_eq!(world.adopted(0).1, [0, 1]);
    world.request(2, 0, put(2, "new"));
    world.run_but(touches(2));
    assert!(matches!(world.outcome(2), Some(Outcome::Decided(_))));
    world.request(3, 2, Operation::Get);
    world.run();
    let at_once = world.read_if_told(3);
    world.look(2);
    world.run();
    at_once
}

#[test]
fn a_tail_that_wakes_up_does_not_answer_with_the_old_value() {
    assert_eq!(a_tail_that_wakes_up(), None);
    let broken = without(Rule::ReadsConfirmed, a_tail_that_wakes_up);
    assert_eq!(broken.as_deref(), Some("old"));
}

/// A read comes to the tail while a confirmation for an earlier one is on its way back. In between the chain changes.
fn a_read_that_comes_late() -> Option<String> {
    let mut world = World::new();
    world.request(1, 0, put(1, "old"));
    world.run();
    world.request(2, 2, Operation::Get);
    let is_yes = |message: &Message| message.to == 2 && matches!(message.body, Body::Told(..));
    world.run_but(is_yes);
    let yes = world.take(is_yes);
    assert_eq!(yes.len(), 1);
    exclude(&mut world, 0, &[2]);
    world.request(3, 0, put(3, "new"));
    world.run_but(touches(2));
    assert!(matches!(world.outcome(3), Some(Outcome::Decided(_))));
    world.request(4, 2, Operation::Get);
    yes.into_iter().for_each(|yes| world.deliver(yes));
    assert_eq!(world.read(2).as_deref(), Some("old"), "it came before");
    world.read_if_told(4)
}

#[test]
fn a_confirmation_serves_no_read_that_came_after_it_was_asked_for() {
    assert_eq!(a_read_that_comes_late(), None);
    let broken = without(Rule::LateReadsWait, a_read_that_comes_late);
    assert_eq!(broken.as_deref(), Some("old"));
}

/// A head is left out, stops, and pulls what the others have written since. Then a late question of its old epoch comes,
/// and a client. Returns whether the head serves again.
fn a_late_question_of_a_stopped_epoch() -> bool {
    let mut world = World::new();
    world.suspect(2, &[1]);
    world.request(1, 2, Operation::Get);
    let is_question =
        |message: &Message| matches!(message.body, Body::Ask(_, Question::Confirm(_)));
    let late = world.take(is_question);
    assert!(late.len() == 1 && late[0].to == 0);
    exclude(&mut world, 1, &[0]);
    world.request(2, 1, put(2, "new"));
    world.run_but(touches(0));
    assert!(matches!(world.outcome(2), Some(Outcome::Decided(_))));
    world.look(0);
    world.run();
    assert_eq!(world.value(0).as_deref(), Some("new"), "it has caught up");
    late.into_iter()
        .for_each(|question| world.deliver(question));
    world.serves(0)
}

#[test]
fn a_stopped_epoch_is_never_served_again() {
    assert!(!a_late_question_of_a_stopped_epoch());
    // Its next write would have a ballot below that of the state that it has pulled.
    assert!(without(
        Rule::StoppedForGood,
        a_late_question_of_a_stopped_epoch
    ));
}

/// A proposer is at work, and another member, which serves nothing, looks around.
#[test]
fn nobody_proposes_against_the_one_that_is_beginning_an_epoch() {
    let mut world = World::new();
    (0..3).for_each(|node| world.restart(node));
    world.look(0);
    let compares = |message: &Message| matches!(message.body, Body::Compare { .. });
    world.run_but(compares);
    let (epoch, _) = world.adopted(0);
    for node in [1, 2] {
        world.look(node);
        world.run_but(compares);
        assert_eq!(world.adopted(node).0, epoch);
    }
    world.run();
    assert!((0..3).all(|node| world.serves(node)));
}

/// A middle member is left out by the other two, and nobody tells it.
#[test]
fn a_member_that_was_left_out_and_does_not_know_finds_out_by_itself() {
    let mut world = World::new();
    exclude(&mut world, 0, &[1]);
    assert!(world.serves(1), "it does not know");
    world.look(1);
    world.run_but(|message| matches!(message.body, Body::Compare { .. }));
    assert!(!world.serves(1));
}

/// The head holds a tombstone that the tail has dropped. The tail proposes a chain of the two.
fn a_tombstone_that_the_tail_has_dropped() -> bool {
    let mut world = World::new();
    world.request(1, 0, put(1, "old"));
    world.run();
    world.request(2, 0, write(2, 1, Change::Delete));
    world.run();
    // The tail has dropped it, and the messages to the others are late.
    world.drop_tombstone(2);
    exclude(&mut world, 2, &[1]);
    assert_eq!(world.adopted(0).1, [0, 2]);
    world.request(2, 0, write(2, 1, Change::Delete));
    world.run_but(touches(1));
    let told = world.told.iter().filter(|(client, _)| *client == 2);
    told.count() == 2
}

#[test]
fn a_chain_takes_what_it_begins_with_below_the_fence_of_dropped_tombstones() {
    assert!(a_tombstone_that_the_tail_has_dropped());
    assert!(!without(
        Rule::GivenBelowTheFence,
        a_tombstone_that_the_tail_has_dropped
    ));
}

/// A member that serves is told to pull, as if it were left out.
fn a_member_pulls_what_its_head_does_not_know() -> Option<String> {
    let mut world = World::new();
    world.request(1, 0, put(1, "one"));
    let passes = world.take(is_pass);
    let (epoch, _) = world.adopted(2);
    let with = vec![0];
    let body = Body::Compare {
        epoch: None,
        since: epoch,
        with,
        every_key: false,
    };
    world.deliver(Message {
        from: 2,
        to: 2,
        body,
    });
    drop(passes);
    // The head dies with the only other copy.
    world.suspect(2, &[0]);
    world.request(2, 2, Operation::Get);
    world.run_but(touches(0));
    world.read_if_told(2)
}

#[test]
fn a_member_that_serves_takes_over_states_from_nobody() {
    assert_eq!(
        a_member_pulls_what_its_head_does_not_know().as_deref(),
        Some("nothing")
    );
    let broken = without(
        Rule::MembersPullNothing,
        a_member_pulls_what_its_head_does_not_know,
    );
    assert_eq!(broken.as_deref(), Some("one"), "two members do not hold it");
}

/// A head that does not know better serves an old epoch, and leaves out a replica that has adopted a later one.
fn a_stale_head() -> Option<String> {
    let mut world = World::new();
    // Nodes 0 and 2 serve without node 1.
    exclude(&mut world, 0, &[1]);
    // Then nodes 1 and 2 do, and node 0 does not know.
    world.restart(2);
    world.suspect(1, &[0]);
    world.suspect(2, &[0]);
    world.look(2);
    world.take(touches(0));
    world.run_but(touches(0));
    assert_eq!(world.adopted(1).1, [1, 2]);
    world.request(1, 0, put(1, "stale"));
    world.take(touches(0));
    world.restart(1);
    world.suspect(1, &[2]);
    world.look(1);
    world.take(touches(2));
    world.run_but(|message| {
        touches(2)(message) || matches!(message.body, Body::Ask(_, Question::Adopt(_)))
    });
    world.value(1)
}

#[test]
fn a_replica_that_is_left_out_pulls_from_no_older_chain() {
    assert_eq!(a_stale_head(), None);
    assert_eq!(
        without(Rule::PulledFromNewer, a_stale_head).as_deref(),
        Some("stale")
    );
}

/// A head accepts a write, and dies before anybody else has it. It returns when the key was written by others.
#[test]
fn what_only_a_dead_head_accepted_does_not_come_back_over_a_later_write() {
    let mut world = World::new();
    world.request(1, 0, put(1, "lost"));
    world.take(is_pass);
    exclude(&mut world, 1, &[0]);
    world.request(2, 1, put(2, "kept"));
    world.run_but(touches(0));
    assert!(matches!(world.outcome(2), Some(Outcome::Decided(_))));
    world.restart(0);
    world.suspect(1, &[]);
    for _ in 0..4 {
        world.look(0);
        world.run();
    }
    assert_eq!(world.adopted(0).1, [0, 1, 2]);
    assert!((0..3).all(|node| world.value(node).as_deref() == Some("kept")));
}

/// All that a write has reached when its head dies is kept, and its retry is told so.
#[test]
fn what_the_middle_has_taken_survives_its_head_and_the_retry_finds_it() {
    let mut world = World::new();
    world.request(1, 0, put(1, "one"));
    world.run_but(|message| message.to == 2 && is_pass(message));
    world.take(is_pass);
    exclude(&mut world, 1, &[0]);
    assert_eq!(world.value(2).as_deref(), Some("one"));
    world.request(1, 1, put(1, "one"));
    world.run_but(touches(0));
    assert!(matches!(
        world.outcome(1),
        Some(Outcome::Decided(Verdict::Applied(_)))
    ));
}
