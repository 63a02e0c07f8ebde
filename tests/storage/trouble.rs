//! A disk that fails or is full ends the store, and nothing is lost. A slow disk holds up nobody.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::unbounded;
use simple_dynamo::bytes::MAX_VALUE;
use simple_dynamo::protocol::ring::Position;
use simple_dynamo::protocol::{Accepted, State, VoteRequest};
use simple_dynamo::storage::{MOST_BACKLOG, MOST_WAITING};

use crate::support::faulty_disk::{Call, Fault, FaultyDisk};
use crate::support::witness::{
    Opened, Report, accept, after_a_loss_of_power, ballot, open, opened, prepare, proposal, ring,
};

/// Lets the disk fail while two groups of votes are under way, and checks what a restart finds.
fn fails_with(fault: Fault, text: &str) {
    let disk = FaultyDisk::new(1);
    let node = opened(&disk);
    let key = "k".into();
    node.vote(&key, accept(&key, 1));
    disk.hold(Call::Append);
    node.ask(&key, accept(&key, 2));
    disk.until_held();
    node.ask(&key, accept(&key, 3));
    disk.fail_at(1, fault);
    disk.release();
    assert!(matches!(node.next_report(), Report::Failed(error) if error.contains(text)));
    let steps = disk.steps();
    // Neither of the two votes, nor a later one, nor a read of the record is ever answered.
    node.ask(&key, accept(&key, 4));
    node.ask(&key, VoteRequest::Read { state: true });
    disk.make_space();
    node.store.close();
    assert!(node.reports_so_far().is_empty());
    assert_eq!(disk.steps(), steps, "the write was tried again");
    disk.kill();
    let again = opened(&disk);
    let record = &again.records()[&key];
    // A failed sync may have written its group. Nobody writes the next one.
    let may_be = match fault {
        Fault::SyncFails => vec![ballot(1), ballot(2)],
        _ => vec![ballot(1)],
    };
    assert!(may_be.contains(&record.accepted_ballot()), "{record:?}");
    again.vote(&key, accept(&key, 9));
    assert_eq!(
        after_a_loss_of_power(&disk, &again).records()[&key].accepted,
        { Some(proposal(&key, ballot(9))) }
    );
}

#[test]
fn a_full_disk_ends_the_store_without_a_reply_and_it_opens_whole_when_there_is_space() {
    fails_with(Fault::NoSpace, "no storage space");
}

#[test]
fn a_failed_sync_ends_the_store_without_a_reply_and_is_not_tried_again() {
    fails_with(Fault::SyncFails, "input/output error");
}

#[test]
fn a_full_disk_fails_a_snapshot_or_a_start_and_loses_nothing() {
    let disk = FaultyDisk::new(1);
    let node = opened(&disk);
    let key = "k".into();
    node.vote(&key, accept(&key, 1));
    disk.fail_at(3, Fault::NoSpace);
    let error = node.store.snapshot().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    disk.kill();
    node.store.close();
    assert!(open(disk.power_on()).is_err());
    disk.make_space();
    let again = opened(&disk);
    assert_eq!(
        again.records()[&key].accepted,
        Some(proposal(&key, ballot(1)))
    );
}

#[test]
fn a_snapshot_without_space_is_put_off_and_the_log_goes_on() {
    let disk = FaultyDisk::new(1);
    let node = opened(&disk);
    let large = |round| {
        let Accepted { ballot, state } = proposal(&"k".into(), ballot(round));
        let mut state = State::clone(&state);
        state.value = Some("x".repeat(MAX_VALUE).into());
        let state = Arc::new(state);
        VoteRequest::Accept(Accepted { ballot, state })
    };
    let mut round = 0;
    let mut write_for_a_snapshot = |node: &Opened| {
        for _ in 0..65 {
            round += 1;
            node.vote(&"k".into(), large(round));
        }
        round
    };
    write_for_a_snapshot(&node);
    // The first two steps create the log and sync the folder. The third one has no space for the file.
    disk.fail_at(3, Fault::NoSpace);
    node.store.snapshot_if_due().unwrap();
    disk.make_space();
    let unfinished = |name: &String| name.ends_with(".tmp") || name.starts_with("snapshot");
    assert!(!disk.names().iter().any(unfinished), "{:?}", disk.names());
    // It is not tried again at once, but once the log has grown.
    let before = disk.names();
    node.store.snapshot_if_due().unwrap();
    assert_eq!(disk.names(), before);
    let last = write_for_a_snapshot(&node);
    node.store.snapshot_if_due().unwrap();
    let names = ["identity.json", "log.000003", "snapshot.000003"];
    assert_eq!(disk.names(), names);
    let again = after_a_loss_of_power(&disk, &node);
    assert_eq!(again.records()[&"k".into()].promised, ballot(last));
}

/// Each of them begins a log, and nothing is written to it before the next one begins.
#[test]
fn several_snapshots_without_space_leave_logs_that_open() {
    let disk = FaultyDisk::new(1);
    let node = opened(&disk);
    let key = "k".into();
    node.vote(&key, accept(&key, 1));
    for _ in 0..2 {
        // The first two steps create the log and sync the folder. The third one has no space for the file.
        disk.fail_at(3, Fault::NoSpace);
        assert!(node.store.snapshot().is_err());
        disk.make_space();
    }
    node.vote(&key, accept(&key, 2));
    let again = after_a_loss_of_power(&disk, &node);
    assert_eq!(again.records()[&key].promised, ballot(2));
}

/// Two replicas with faster disks decide, so nothing else bounds the queue of this replica.
#[test]
fn a_disk_that_does_not_keep_up_leaves_no_room_for_more_than_a_bounded_backlog() {
    let disk = FaultyDisk::new(1);
    let node = opened(&disk);
    disk.hold(Call::Sync);
    node.ask(&"first".into(), prepare(1));
    disk.until_held();
    let state = State {
        value: Some(vec![b'x'; MAX_VALUE].as_slice().into()),
        ..State::default()
    };
    let mut asked = 1;
    while node.store.disk_keeps_up() {
        let (ballot, state) = (ballot(asked), Arc::new(state.clone()));
        let large = VoteRequest::Accept(Accepted { ballot, state });
        node.ask(&"large".into(), large);
        asked += 1;
        assert!(asked as usize * MAX_VALUE < 2 * MOST_BACKLOG, "no bound");
    }
    disk.release();
    for _ in 0..asked {
        assert!(matches!(node.next_report(), Report::Reply { .. }));
    }
    assert!(node.store.disk_keeps_up());
}

/// Coordinators give up their questions after a while and ask again, so nothing else bounds them.
#[test]
fn a_disk_that_does_not_keep_up_lets_no_more_than_a_bounded_number_of_reads_wait() {
    let disk = FaultyDisk::new(1);
    let node = opened(&disk);
    disk.hold(Call::Sync);
    node.ask(&"key".into(), prepare(1));
    disk.until_held();
    let mut asked = 1;
    while node.store.may_wait() {
        node.ask(&"key".into(), VoteRequest::Read { state: true });
        asked += 1;
        assert!(asked <= MOST_WAITING, "no bound");
    }
    assert!(!node.store.disk_keeps_up());
    disk.release();
    for _ in 0..asked {
        assert!(matches!(node.next_report(), Report::Reply { .. }));
    }
    assert!(node.store.may_wait());
}

#[test]
fn a_disk_that_hangs_lets_no_more_than_a_bounded_number_of_pages_wait() {
    let disk = FaultyDisk::new(1);
    let node = opened(&disk);
    disk.hold(Call::Sync);
    node.ask(&"k".into(), accept(&"k".into(), 1));
    let range = ring().range_at(Position::of(b"k"));
    let (sender, pages) = unbounded();
    let mut waiting = 0;
    while node.store.pages_may_wait() {
        let sender = sender.clone();
        node.scan(range, move |page| sender.send(page.entries.len()).unwrap());
        waiting += 1;
        assert!(waiting < 1000);
    }
    assert!(pages.is_empty(), "revealed before it was durable");
    disk.release();
    for _ in 0..waiting {
        assert_eq!(pages.recv_timeout(Duration::from_secs(20)), Ok(1));
    }
    assert!(node.store.pages_may_wait());
}
