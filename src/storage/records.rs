//! The records in memory: one ordered map.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::digests::{BUCKETS, Bucket, BucketDigests, digest};
use super::entry::LogEntry;
use super::wal::Lsn;
use crate::bytes::Key;
use crate::protocol::chain::epoch::Adopted;
use crate::protocol::ring::{NodeId, Position, Ring};
use crate::protocol::version::VectorClock;
use crate::protocol::{Accepted, Ballot, Fence, Record, Update, VoteReply, VoteRequest};

/// All records of this node.
#[derive(Clone)]
pub struct Records {
    ring: Arc<Ring>,
    /// A tree, since a hash table that grows would hold up all requests while it moves its entries.
    pub(super) slots: BTreeMap<Key, Slot>,
    /// The keys whose records hold no value: tombstones, and promises alone.
    pub(super) tombstones: BTreeSet<Key>,
    /// About how much memory the records take, in bytes.
    bytes: usize,
    /// For each range what replaces the records of dropped keys.
    pub(super) fences: Vec<RangeFence>,
    /// For each range the highest epoch that this replica has adopted.
    pub(super) adopted: Vec<Adopted>,
    /// For each origin the highest sequence number of a write that any state here has ever contained.
    numbers: VectorClock,
    /// For each range the digests of its buckets.
    digests: Vec<BucketDigests>,
}

/// The fence of a range.
#[derive(Clone, Default)]
pub(super) struct RangeFence {
    pub(super) fence: Fence,
    /// What it says of a key without a record.
    absent: Record,
    /// The log entry that makes it durable.
    pub(super) lsn: Lsn,
}

impl RangeFence {
    fn change(&mut self, lsn: Lsn, change: impl FnOnce(&mut Fence)) {
        change(&mut self.fence);
        self.absent = self.fence.record();
        self.lsn = lsn;
    }
}

#[derive(Clone)]
pub(super) struct Slot {
    pub(super) record: Record,
    /// The log entry that makes all of the record durable.
    pub(super) lsn: Lsn,
    pub(super) bucket: Bucket,
    /// The [`digest`] of its accepted ballot.
    digest: u64,
}

impl Records {
    pub fn new(ring: Arc<Ring>) -> Records {
        let ranges = ring.members().len();
        Records {
            digests: vec![[0; BUCKETS]; ranges],
            fences: vec![RangeFence::default(); ranges],
            adopted: vec![Adopted::default(); ranges],
            ring,
            slots: BTreeMap::new(),
            tombstones: BTreeSet::new(),
            bytes: 0,
            numbers: VectorClock::default(),
        }
    }

    /// How many keys have a record.
    pub fn count(&self) -> usize {
        self.slots.len()
    }

    /// About how much memory all records take, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The record of a key, and the log entry that makes it durable.
    pub fn get(&self, key: &Key) -> (&Record, Lsn) {
        match self.slots.get(key) {
            Some(slot) => (&slot.record, slot.lsn),
            None => {
                let fence = self.fence_of(key);
                (&fence.absent, fence.lsn)
            }
        }
    }

    /// The fence of the range of a key.
    fn fence_of(&self, key: &Key) -> &RangeFence {
        &self.fences[self.ring.range_at(Position::of_key(key))]
    }

    /// How many ranges the ring has.
    pub fn ranges(&self) -> usize {
        self.fences.len()
    }

    /// What replaces the records of the dropped keys of a range.
    pub fn fence(&self, range: usize) -> &Fence {
        &self.fences[range].fence
    }

    /// The highest epoch that this replica has adopted for a range.
    pub fn adopted(&self, range: usize) -> &Adopted {
        &self.adopted[range]
    }

    /// Adopts an epoch, unless a higher one is adopted already.
    pub fn adopt(&mut self, range: usize, adopted: Adopted) {
        let own = &mut self.adopted[range];
        if adopted > *own {
            *own = adopted;
        }
    }

    /// Votes on a key, without any change; see [`Record::vote`]. Returns the change to be made, the reply,
    /// and the log entry that makes durable what the reply reveals if there is no change.
    pub fn vote(&self, key: &Key, request: &VoteRequest) -> (Option<Update>, VoteReply, Lsn) {
        let (record, lsn) = self.get(key);
        let (update, reply) = record.vote(request, &self.fence_of(key).fence);
        (update, reply, lsn)
    }

    /// Applies an update that the log entry `lsn` makes durable.
    pub fn apply(&mut self, key: &Key, update: Update, lsn: Lsn) {
        let slot = self.slots.entry(key.clone()).or_insert_with(|| {
            let range = self.ring.range_at(Position::of_key(key));
            // A group and its pages have one place on the ring, and must not all share a bucket.
            let bucket = Bucket::new(range, Position::of(key.as_slice()));
            let absent = &self.fences[range].absent;
            self.bytes += memory(key, absent);
            Slot {
                record: absent.clone(),
                lsn,
                bucket,
                digest: 0,
            }
        });
        let before = slot.record.accepted_ballot();
        let promised = slot.record.promised;
        if let Update::Accept(accepted) = &update {
            accepted.state.add_decided(&mut self.numbers);
        }
        self.bytes -= memory(key, &slot.record);
        slot.record.apply(update);
        self.bytes += memory(key, &slot.record);
        slot.lsn = lsn;
        let after = slot.record.accepted_ballot();
        assert!(
            after >= before && slot.record.promised >= promised,
            "no ballot ever decreases"
        );
        if after != before {
            let digest = digest(key, after);
            *slot.bucket.of(&mut self.digests) ^= slot.digest ^ digest;
            slot.digest = digest;
        }
        if slot.record.value().is_some() {
            self.tombstones.remove(key);
        } else {
            self.tombstones.insert(key.clone());
        }
    }

    /// Whether the key has a record without a value that was accepted at this ballot.
    pub fn has_tombstone(&self, key: &Key, ballot: Ballot) -> bool {
        let own = self.slots.get(key).map(|slot| &slot.record);
        own.is_some_and(|own| own.value().is_none() && own.accepted_ballot() == ballot)
    }

    /// Drops the tombstone that was accepted at this ballot, or, at [`Ballot::ZERO`], a promise alone. Does
    /// nothing if the key has changed since. The log entry `lsn` makes it durable.
    pub fn drop_tombstone(&mut self, key: &Key, ballot: Ballot, lsn: Lsn) {
        if self.has_tombstone(key, ballot)
            && let Some(slot) = self.slots.remove(key)
        {
            let fence = &mut self.fences[slot.bucket.range as usize];
            fence.change(lsn, |fence| fence.raise(&slot.record));
            self.tombstones.remove(key);
            self.bytes -= memory(key, &slot.record);
            *slot.bucket.of(&mut self.digests) ^= slot.digest;
        }
    }

    /// For each origin the highest sequence number of a write that this replica has seen.
    pub fn numbers(&self) -> &VectorClock {
        &self.numbers
    }

    /// Adds the fence of another replica to the own one of a range. The log entry `lsn` makes it durable.
    pub fn merge_fence(&mut self, range: usize, fence: &Fence, lsn: Lsn) {
        self.numbers.merge(&fence.floor);
        self.fences[range].change(lsn, |own| own.merge(fence));
    }

    /// What a snapshot says of the ranges beside their records.
    pub(super) fn of_ranges(&self) -> Vec<LogEntry> {
        let fences = self.fences.iter().enumerate();
        let fences = fences.filter(|(_, own)| own.fence != Fence::default());
        let fences = fences.map(|(range, own)| LogEntry::Fence {
            range: Some(range),
            fence: own.fence.clone(),
        });
        let adopted = self.adopted.iter().enumerate();
        let adopted = adopted.filter(|(_, own)| **own != Adopted::default());
        let adopted = adopted.map(|(range, own)| LogEntry::Adopted {
            range,
            adopted: own.clone(),
        });
        fences.chain(adopted).collect()
    }

    /// Whether this replica holds exactly this tombstone or is past it, and the log entry that makes
    /// that durable.
    pub fn holds_tombstone(&self, key: &Key, tombstone: &Accepted) -> (bool, Lsn) {
        let (record, lsn) = self.get(key);
        let fence = self.fence_of(key);
        let held = record.holds(tombstone, &fence.fence);
        (held, lsn.max(fence.lsn))
    }

    /// The digests of a range's buckets. They are equal on two replicas if all accepted ballots are.
    pub fn digests(&self, range: usize) -> &[u64] {
        &self.digests[range]
    }
}

/// About how much memory a record takes, in bytes.
fn memory(key: &Key, record: &Record) -> usize {
    /// What a small record takes beside the bytes of its key, measured with a million records.
    const OVERHEAD: usize = 512;
    const OF_CLOCK: usize = size_of::<(NodeId, u64)>();
    /// How many entries of a clock take as much as an answer.
    const ANSWER: usize = 10;
    OVERHEAD + key.len() + record.value_size() + OF_CLOCK * record.clock_entries(ANSWER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Accepted, State};
    use crate::storage::Scan;

    fn records() -> Records {
        Records::new(Arc::new(Ring::new([1, 2, 3].map(NodeId), 3)))
    }

    fn accept(round: u64) -> Update {
        let state = State {
            value: Some("x".into()),
            ..State::default()
        };
        Update::Accept(Accepted {
            ballot: Ballot::first(round, NodeId(1)),
            state: Arc::new(state),
        })
    }

    fn all_digests(records: &Records) -> Vec<u64> {
        (0..3)
            .flat_map(|range| records.digests(range).to_vec())
            .collect()
    }

    #[test]
    fn digests_are_equal_when_accepted_ballots_are_however_they_came_about() {
        let (mut one, mut other) = (records(), records());
        for key in 0..100 {
            let key = key.to_string().into();
            one.apply(&key, accept(1), 1);
            one.apply(&key, accept(2), 2);
            other.apply(&key, accept(2), 9);
            other.apply(&key, Update::Promise(Ballot::first(7, NodeId(3))), 10);
        }
        assert_eq!(all_digests(&one), all_digests(&other));
        other.apply(&"55".into(), accept(3), 11);
        let differing = all_digests(&one)
            .iter()
            .zip(all_digests(&other))
            .filter(|(a, b)| **a != *b)
            .count();
        assert_eq!(differing, 1);
    }

    #[test]
    fn the_pages_of_all_arcs_hold_every_key_once() {
        let mut records = records();
        for key in 0..5000 {
            records.apply(&key.to_string().into(), accept(1), key);
        }
        let mut found = Vec::new();
        for range in 0..3 {
            let mut scan = Scan {
                range,
                buckets: None,
                after: None,
                states: true,
                within: None,
            };
            loop {
                let (page, _) = records.scan(&scan);
                found.extend(page.entries.into_iter().map(|entry| entry.key));
                if page.next.is_none() {
                    break;
                }
                scan.after = page.next;
            }
        }
        assert_eq!(found.len(), 5000);
        found.sort();
        found.dedup();
        assert_eq!(found.len(), 5000);
    }

    fn tombstone(round: u64) -> Accepted {
        let state = State {
            clock: format!("1:{round}").parse().unwrap(),
            ..State::default()
        };
        Accepted {
            ballot: Ballot::first(round, NodeId(1)),
            state: Arc::new(state),
        }
    }

    #[test]
    fn a_dropped_tombstone_leaves_its_fence_and_nothing_else() {
        let mut records = records();
        let before = all_digests(&records);
        let key: Key = "gone".into();
        let dead = tombstone(5);
        records.apply(&key, Update::Accept(dead.clone()), 1);
        assert_eq!(
            records.tombstones(None, 9),
            (vec![(key.clone(), records.get(&key).0.clone())], 1)
        );
        assert_eq!(records.holds_tombstone(&key, &dead), (true, 1));
        records.drop_tombstone(&key, dead.ballot, 3);
        assert_eq!((records.count(), records.tombstones.len()), (0, 0));
        assert_eq!(records.bytes(), 0);
        assert_eq!(all_digests(&records), before);
        assert_eq!(records.get(&key).0.promised, dead.ballot);
        assert_eq!(records.holds_tombstone(&key, &dead), (true, 3));
        assert_eq!(records.fence_of(&key).fence.floor, "1:5".parse().unwrap());
        let old = VoteRequest::Accept(tombstone(4));
        let (update, reply, _) = records.vote(&key, &old);
        assert_eq!(update, None);
        assert_eq!(reply, VoteReply::Rejected(dead.ballot));
    }

    #[test]
    fn a_promise_is_dropped_into_the_fence() {
        let mut records = records();
        let (key, other): (Key, Key) = ("gone".into(), "other".into());
        let promised = |round| Ballot::first(round, NodeId(2));
        records.apply(&key, Update::Accept(tombstone(5)), 1);
        records.apply(&key, Update::Promise(promised(6)), 2);
        records.apply(&other, Update::Promise(promised(8)), 3);
        records.drop_tombstone(&other, tombstone(5).ballot, 4);
        assert_eq!((records.count(), records.tombstones.len()), (2, 2));
        records.drop_tombstone(&key, tombstone(5).ballot, 5);
        assert_eq!(records.get(&key).0.promised, promised(6));
        records.drop_tombstone(&other, Ballot::ZERO, 6);
        assert_eq!((records.count(), records.tombstones.len()), (0, 0));
        assert_eq!(records.get(&other).0.promised, promised(8));
        assert_eq!(records.holds_tombstone(&key, &tombstone(5)), (true, 6));
    }

    #[test]
    fn only_the_tombstone_that_was_meant_is_dropped() {
        let mut records = records();
        let key: Key = "k".into();
        records.apply(&key, accept(5), 1);
        records.drop_tombstone(&key, Ballot::first(5, NodeId(1)), 3);
        assert_eq!(records.count(), 1, "a value stays");
        records.apply(&key, Update::Accept(tombstone(7)), 2);
        records.drop_tombstone(&key, Ballot::first(6, NodeId(1)), 3);
        assert_eq!(records.count(), 1, "a later tombstone stays");
        assert!(!records.holds_tombstone(&key, &tombstone(6)).0);
    }

    #[test]
    fn a_page_is_durable_when_its_newest_record_is() {
        let mut records = records();
        records.apply(&"a".into(), accept(1), 5);
        records.apply(&"b".into(), accept(1), 9);
        assert_eq!(records.page(None, 10).1, 9);
        assert_eq!(records.page(None, 1).1, 5);
    }
}
