//! Nothing is revealed before it is durable.

use simple_dynamo::protocol::{Ballot, Promise, Record, VoteReply, VoteRequest};

use crate::support::faulty_disk::{Call, FaultyDisk, Loss};
use crate::support::witness::{
    Report, accept, after_a_loss_of_power, ballot, opened, prepare, proposal,
};

const READ: VoteRequest = VoteRequest::Read { state: true };

fn replies(reports: Vec<Report>) -> Vec<VoteReply> {
    let replies = reports.into_iter().filter_map(|report| match report {
        Report::Reply { reply, .. } => Some(reply),
        _ => None,
    });
    replies.collect()
}

#[test]
fn a_vote_is_revealed_only_once_it_is_durable() {
    let disk = FaultyDisk::new(1);
    let node = opened(&disk);
    disk.hold(Call::Sync);
    for (request, reply) in [
        (prepare(1), VoteReply::Promised(Promise::default())),
        (accept(&"a".into(), 1), VoteReply::Taken),
    ] {
        disk.hold(Call::Sync);
        node.ask(&"a".into(), request);
        disk.until_held();
        assert!(
            node.reports_so_far().is_empty(),
            "revealed before its sync ended"
        );
        disk.release();
        assert!(matches!(node.next_report(), Report::Reply { reply: own, .. } if own == reply));
    }
}

#[test]
fn what_depends_on_a_vote_that_is_not_durable_waits_for_it() {
    let disk = FaultyDisk::new(1);
    let node = opened(&disk);
    let (old, new) = ("old".into(), "new".into());
    node.vote(&old, accept(&old, 1));
    disk.hold(Call::Sync);
    node.ask(&new, accept(&new, 5));
    disk.until_held();
    assert_eq!(
        node.store.seen(&new),
        None,
        "a forwarded read would reveal it"
    );
    assert!(node.store.seen(&old).is_some());
    // A read, a refusal and a repetition would all reveal the new vote.
    for request in [READ, prepare(4), accept(&new, 5)] {
        node.ask(&new, request);
    }
    let (sender, pages) = crossbeam_channel::unbounded();
    for range in 0..5 {
        let sender = sender.clone();
        node.scan(range, move |page| sender.send(page.entries.len()).unwrap());
    }
    let of_all = node.store.page(None, 10);
    node.store.when_durable(move || sender.send(100).unwrap());
    // A record whose votes are all durable is revealed at once.
    node.ask(&old, READ);
    let revealed = replies(node.reports_so_far());
    assert!(matches!(revealed[..], [VoteReply::Seen(_)]), "{revealed:?}");
    // So are the ranges without the new key.
    assert_eq!(pages.try_iter().count(), 4);
    assert!(of_all.is_empty());
    disk.release();
    for _ in 0..4 {
        node.next_report();
    }
    let mut rest: Vec<_> = (0..2).map(|_| pages.recv().unwrap()).collect();
    rest.sort_unstable();
    assert!(matches!(rest[..], [1 | 2, 100]), "{rest:?}");
    assert_eq!(of_all.recv().unwrap().len(), 2);
}

#[test]
fn votes_that_come_while_the_disk_is_busy_share_one_sync() {
    let disk = FaultyDisk::new(1);
    let node = opened(&disk);
    disk.hold(Call::Sync);
    node.ask(&"first".into(), prepare(1));
    disk.until_held();
    let before = disk.steps();
    for number in 0..1000 {
        node.ask(&format!("{number}").into(), prepare(1));
    }
    disk.release();
    for _ in 0..1001 {
        node.next_report();
    }
    // The first group's sync, and the second group's append and sync.
    assert_eq!(disk.steps() - before, 3);
}

#[test]
fn reserved_sequence_numbers_are_never_given_twice() {
    let disk = FaultyDisk::new(1);
    let mut node = opened(&disk);
    assert_eq!(node.store.sequences(), 0);
    for (upto, snapshot) in [(10, false), (25, true), (40, false)] {
        disk.hold(Call::Sync);
        node.reserve(upto);
        disk.until_held();
        assert!(
            node.reports_so_far().is_empty(),
            "revealed before its sync ended"
        );
        disk.release();
        assert!(matches!(node.next_report(), Report::Reserved(reserved) if reserved == upto));
        if snapshot {
            node.store.snapshot().unwrap();
        }
        node = after_a_loss_of_power(&disk, &node);
        assert_eq!(node.store.sequences(), upto);
    }
}

#[test]
fn closing_makes_everything_durable_and_sends_the_replies() {
    let disk = FaultyDisk::new(1);
    let node = opened(&disk);
    for round in 1..100 {
        node.ask(&"k".into(), prepare(round));
    }
    node.store.close();
    assert_eq!(node.reports_so_far().len(), 99);
    disk.lose_power(Loss::Everything);
    assert_eq!(opened(&disk).records()[&"k".into()].promised, ballot(99));
}

#[test]
fn a_snapshot_replaces_all_earlier_logs() {
    let disk = FaultyDisk::new(1);
    let mut node = opened(&disk);
    for round in 1..5 {
        for number in 0..1200 {
            let key = format!("{number}").into();
            node.ask(&key, accept(&key, round));
        }
        for _ in 0..1200 {
            node.next_report();
        }
        node.store.snapshot().unwrap();
        assert_eq!(disk.names().len(), 3, "{:?}", disk.names());
        node = after_a_loss_of_power(&disk, &node);
        assert_eq!(node.store.count(), 1200);
        assert!(
            node.records()
                .values()
                .all(|record| record.promised == ballot(round))
        );
    }
}

/// A replica that lost its folder copies the records of both others, in any order. A state that was
/// chosen with its forgotten vote may be left on one of them alone, and the other may have promised a
/// higher ballot since. Its promise must not hide that state.
#[test]
fn a_record_that_is_absorbed_keeps_the_highest_promise_and_the_highest_state_seen() {
    let key = "k".into();
    let record = |promised, accepted| Record {
        promised: ballot(promised),
        accepted: Some(proposal(&key, ballot(accepted))),
    };
    let (one, other) = (record(9, 3), record(8, 7));
    for both in [[&one, &other], [&other, &one]] {
        let disk = FaultyDisk::new(1);
        let node = opened(&disk);
        for record in both {
            node.store.absorb(&key, record.clone());
        }
        let expected = record(9, 7);
        assert_eq!(node.records()[&key], expected);
        let again = after_a_loss_of_power(&disk, &node);
        assert_eq!(again.records()[&key], expected);
        assert_eq!(again.store.accepted(&"other".into()), Ballot::ZERO);
    }
}
