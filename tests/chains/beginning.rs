//! What a proposer gives, to whom, and when an epoch has begun.

use std::time::Duration;

use simple_dynamo::bytes::Key;
use simple_dynamo::protocol::Operation;
use simple_dynamo::protocol::chain::epoch::{Adopted, Epoch};
use simple_dynamo::protocol::chain::{Answer, Question};
use simple_dynamo::protocol::ring::NodeId;

use crate::exclude;
use crate::world::{Body, Message, World, is_pass, put, tells_status_to, touches};

fn compares(message: &Message) -> bool {
    matches!(message.body, Body::Compare { .. })
}

fn gives_to(node: usize) -> impl Fn(&Message) -> bool {
    move |message| message.to == node && matches!(message.body, Body::Ask(_, Question::Give(_)))
}

/// The proposer stands still for longer than a deadline, while its disk has not written what it has moved. So it
/// asks the other member once more to take it.
#[test]
fn an_epoch_does_not_begin_before_its_proposer_holds_durably_what_it_gives() {
    let mut world = World::new();
    exclude(&mut world, 1, &[0]);
    world.request(1, 1, put(1, "one"));
    world.take(is_pass);
    (0..2).for_each(|node| world.restart(node));
    world.suspect(0, &[2]);
    world.look(0);
    world.take(touches(2));
    world.run_but(|message| compares(message) || touches(2)(message));
    assert_eq!(world.adopted(0).1, [0, 1]);
    let durable = world.records(0);
    world.hang(0);
    world.run_but(touches(2));
    assert_eq!(world.value(0).as_deref(), Some("one"), "it has moved that");
    world.stand_still(0, Duration::from_secs(3_601));
    world.take(touches(2));
    world.run_but(touches(2));
    assert!(!world.serves(0) && !world.serves(1));
    world.request(2, 1, Operation::Get);
    world.run_but(touches(2));
    assert_eq!(world.read_if_told(2), None);
    // It loses power, and forms a chain with the one that knows nothing. Nobody was told anything else.
    world.crash(0, durable);
    world.take(|_| true);
    for _ in 0..3 {
        world.suspect(0, &[1]);
        world.look(0);
        world.run_but(touches(1));
        world.take(touches(1));
    }
    assert_eq!(world.adopted(0).1, [0, 2]);
}

#[test]
fn a_proposer_renews_many_keys_in_steps_so_that_it_can_be_asked_meanwhile() {
    let mut world = World::new();
    exclude(&mut world, 0, &[2]);
    let keys: Vec<Key> = world.keys().take(900).collect();
    for (client, key) in (1..).zip(&keys) {
        world.request_of(key.clone(), client, 0, put(client, "v"));
        world.run_but(touches(2));
    }
    world.suspect(0, &[]);
    (0..3).for_each(|node| world.restart(node));
    world.look(0);
    world.run();
    assert!((0..3).all(|node| world.serves(node)));
    assert!(world.renewed_at_once > 100, "they were renewed");
    assert!(world.renewed_at_once <= 500, "{}", world.renewed_at_once);
    assert!(keys.iter().all(|key| world.value_of(key, 2).is_some()));
}

#[test]
fn a_replica_that_has_served_what_it_had_copied_renews_everything_only_once() {
    let mut world = World::new();
    world.request(1, 0, put(1, "one"));
    world.run();
    world.lose_folder(2);
    let renews = |world: &World| {
        let mut comparisons = world.bag.iter().map(|message| &message.body);
        comparisons.any(|body| matches!(body, Body::Compare { every_key, .. } if *every_key))
    };
    for expected in [true, false] {
        world.restart(0);
        world.suspect(0, &[1]);
        world.look(0);
        world.take(touches(1));
        world.run_but(|message| compares(message) || touches(1)(message));
        assert!(world.bag.iter().any(compares));
        assert_eq!(renews(&world), expected);
        world.run_but(touches(1));
        world.take(touches(1));
        assert!(world.serves(0) && world.serves(2));
    }
}

/// Nobody is outside who could hold anything higher.
#[test]
fn an_epoch_of_all_replicas_does_not_renew_what_was_copied() {
    let mut world = World::new();
    world.request(1, 0, put(1, "one"));
    world.run();
    exclude(&mut world, 0, &[2]);
    world.lose_folder(2);
    world.renewed_at_once = 0;
    world.suspect(0, &[]);
    world.suspect(1, &[]);
    (0..2).for_each(|_| world.look(2));
    world.pass(Duration::from_secs(5));
    assert!((0..3).all(|node| world.serves(node)));
    assert_eq!(world.renewed_at_once, 0);
    assert_eq!(world.adopted(2).1, [0, 1, 2]);
}

/// Node 2 restarts while node 1 gives to it. Then all three begin an epoch, and long after that node 0 dies.
#[test]
fn who_took_nothing_once_is_not_left_out_of_an_epoch_after_the_next() {
    let mut world = World::new();
    (0..3).for_each(|node| world.restart(node));
    world.look(1);
    world.run_but(gives_to(2));
    world.restart(2);
    world.run();
    assert!(!world.serves(1));
    world.look(0);
    world.run();
    assert!((0..3).all(|node| world.serves(node)));
    world.pass(Duration::from_secs(60));
    world.suspect(1, &[0]);
    world.miss(1);
    world.look(1);
    world.take(touches(0));
    world.run_but(touches(0));
    assert_eq!(world.adopted(1).1, [1, 2]);
}

/// No node lies, but a damaged message must not end a process, and still less be remembered.
#[test]
fn an_epoch_that_no_member_may_propose_is_refused() {
    let mut world = World::new();
    let serves = world.adopted(0).0;
    let [head, middle, tail] = world.replicas();
    let stranger = NodeId(99);
    let next = serves.round + 1;
    for (round, members) in [
        (u64::MAX, vec![head, middle, tail]),
        (next, vec![head, stranger, tail]),
        (next, vec![head, head, tail]),
        (next, vec![tail, head]),
        (next, vec![head, middle]),
        (next, vec![middle, tail]),
        (next, vec![]),
    ] {
        let adopted = Adopted {
            epoch: Epoch { round, node: tail },
            members,
            ..Adopted::default()
        };
        let what = format!("{adopted:?}");
        let answers = world.ask(2, 0, Question::Adopt(adopted));
        assert_eq!(answers, [Answer::Refused], "{what}");
        assert_eq!(world.adopted(0).0, serves, "{what}");
    }
}

/// A comparison for somebody else must not count as the proposer's own.
#[test]
fn nobody_gives_to_a_proposer_and_only_a_member_to_a_member() {
    let mut world = World::new();
    (0..3).for_each(|node| world.restart(node));
    world.suspect(0, &[2]);
    world.look(0);
    world.take(touches(2));
    world.run_but(compares);
    let ((proposed, members), comparisons) = (world.adopted(0), world.take(compares));
    assert_eq!(members, [0, 1]);
    for (from, to) in [(1, 0), (2, 0), (2, 1)] {
        let answers = world.ask(from, to, Question::Give(proposed));
        assert_eq!(answers, [Answer::Refused], "{from} to {to}");
        assert!(world.take(compares).is_empty());
    }
    comparisons
        .into_iter()
        .for_each(|message| world.deliver(message));
    world.run_but(touches(2));
    assert!(world.serves(0) && world.serves(1));
}

#[test]
fn a_status_with_a_round_beyond_all_others_is_no_answer() {
    let mut world = World::new();
    (0..3).for_each(|node| world.restart(node));
    world.look(0);
    world.run_but(tells_status_to(0));
    for mut message in world.take(tells_status_to(0)) {
        if let Body::Told(_, Answer::Status(status)) = &mut message.body
            && message.from == 1
        {
            status.adopted.epoch.round = u64::MAX;
        }
        world.deliver(message);
    }
    world.run();
    assert_eq!(world.adopted(0).1, [0, 2]);
}
