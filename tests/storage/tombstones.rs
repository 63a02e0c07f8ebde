//! Dropped tombstones stay dropped, and older states stay fenced off, whatever the disk loses.

use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;
use simple_dynamo::bytes::Key;
use simple_dynamo::protocol::{Fence, Promise, VoteReply};

use crate::support::faulty_disk::{Call, FaultyDisk};
use crate::support::witness::{accept, after_a_loss_of_power, ballot, opened, prepare};

/// The new log has a value, then its tombstone, and then the drop. The snapshot shows none of them, so
/// if the log lost its end, the value would be back.
#[test]
fn a_snapshot_waits_for_the_drops_that_it_shows() {
    let disk = FaultyDisk::new(1);
    let node = opened(&disk);
    let key: Key = "k".into();
    node.vote(&key, accept(&key, 1));
    let (other, about, busy) = (node.store.clone(), key.clone(), disk.clone());
    let mut steps = 0;
    disk.before_each_step(move || {
        steps += 1;
        // The new log is in use from here on, and no record has been copied yet.
        if steps == 3 {
            let (sender, voted) = bounded(1);
            let notify = move |_| sender.send(()).unwrap();
            other.vote(&about, &accept(&about, 2), notify);
            voted.recv().unwrap();
            busy.hold(Call::Sync);
            other.vote(&about, &accept(&about, 3), |_| ());
            busy.until_held();
            other.drop_tombstones(&[(about.clone(), ballot(3))]);
        }
    });
    thread::scope(|scope| {
        scope.spawn(|| {
            disk.until_held();
            // Time enough for a snapshot that does not wait to sync its file.
            thread::sleep(Duration::from_millis(50));
            let waiting = disk.waiting();
            disk.release();
            assert_eq!(waiting, 1, "only the log's sync is under way");
        });
        node.store.snapshot().unwrap();
    });
    let again = after_a_loss_of_power(&disk, &node);
    assert_eq!(again.records().get(&key), None);
    assert_eq!(again.store.promised(&key), ballot(3));
}

#[test]
fn a_dropped_tombstone_stays_dropped_and_its_past_fenced_off() {
    let disk = FaultyDisk::new(1);
    let mut node = opened(&disk);
    let (key, other): (Key, Key) = ("k".into(), "other".into());
    node.vote(&key, accept(&key, 2));
    node.vote(&key, accept(&key, 3));
    node.store.drop_tombstones(&[(key.clone(), ballot(3))]);
    for snapshot in [false, true, false] {
        // The drop is not revealed before it is durable.
        let refused = VoteReply::Rejected(ballot(3));
        assert_eq!(node.vote(&key, accept(&key, 2)), refused);
        assert_eq!(node.vote(&other, prepare(3)), refused);
        if snapshot {
            node.store.snapshot().unwrap();
        }
        node = after_a_loss_of_power(&disk, &node);
        assert_eq!(node.store.counts(), (0, 0));
    }
    let promise = Promise {
        accepted: None,
        floor: "5554:3".parse().unwrap(),
    };
    assert_eq!(node.vote(&key, prepare(4)), VoteReply::Promised(promise));
}

#[test]
fn the_fence_of_another_replica_is_kept() {
    let disk = FaultyDisk::new(1);
    let node = opened(&disk);
    let fence = Fence {
        promised: ballot(7),
        floor: "5556:9".parse().unwrap(),
    };
    node.store.absorb_fence(0, &fence);
    let refused = VoteReply::Rejected(ballot(7));
    assert_eq!(node.vote(&"k".into(), prepare(7)), refused);
    let again = after_a_loss_of_power(&disk, &node);
    assert_eq!(again.store.promised(&"k".into()), ballot(7));
}

/// A node that copies the fence relies on it.
#[test]
fn a_page_reveals_a_fence_only_once_it_is_durable() {
    let disk = FaultyDisk::new(1);
    let node = opened(&disk);
    let fence = Fence {
        promised: ballot(7),
        ..Fence::default()
    };
    disk.hold(Call::Sync);
    node.store.absorb_fence(0, &fence);
    let (sender, fences) = bounded(1);
    node.scan(0, move |page| sender.send(page.fence).unwrap());
    disk.until_held();
    assert!(fences.is_empty(), "revealed before it was durable");
    disk.release();
    assert_eq!(fences.recv_timeout(Duration::from_secs(20)), Ok(fence));
}
