//! Tombstones in the store: found, told of, and dropped.
//!
//! A drop is an entry of the log like any other: nothing is told of it before it is durable. A
//! snapshot, too, waits for the drops that it shows; see [`snapshot`](super::snapshot).

use crate::bytes::Key;
use crate::lock;
use crate::protocol::{Accepted, Ballot, Fence, Record};

use super::Store;
use super::entry::LogEntry;

impl Store {
    /// How many keys have a record, and how many of these hold no value.
    pub fn counts(&self) -> (usize, usize) {
        let records = lock(&self.records);
        (records.count(), records.tombstone_count())
    }

    /// Gives up to `most` records without a value after a key, in the order of the keys, once
    /// they are durable.
    pub fn tombstones<F>(&self, after: Option<&Key>, most: usize, reply: F)
    where
        F: FnOnce(Vec<(Key, Record)>) + Send + 'static,
    {
        let (found, lsn) = lock(&self.records).tombstones(after, most);
        self.tell_page(lsn, move || reply(found));
    }

    /// Tells for each of these tombstones whether this replica holds it, durably, or is past it.
    pub fn hold_tombstones<F>(&self, tombstones: &[(Key, Accepted)], reply: F)
    where
        F: FnOnce(Vec<bool>) + Send + 'static,
    {
        let records = lock(&self.records);
        let mut durable = 0;
        let held = tombstones.iter().map(|(key, tombstone)| {
            let (holds, lsn) = records.holds_tombstone(key, tombstone);
            durable = durable.max(lsn);
            holds
        });
        let held = held.collect();
        drop(records);
        self.tell_page(durable, move || reply(held));
    }

    /// Whether this replica has no record of the key, and needs none for this tombstone.
    pub fn is_past(&self, key: &Key, tombstone: &Accepted) -> bool {
        let records = lock(&self.records);
        records.get(key).0.accepted.is_none() && records.holds_tombstone(key, tombstone).0
    }

    /// Drops tombstones that every replica of their keys holds or is past, and promises alone, at
    /// [`Ballot::ZERO`]. Nobody waits for it.
    pub fn drop_tombstones(&self, dropped: Vec<(Key, Ballot)>) {
        let mut records = lock(&self.records);
        for (key, ballot) in dropped {
            if records.has_tombstone(&key, ballot) {
                let line = LogEntry::Dropped {
                    key: key.clone(),
                    ballot,
                };
                let lsn = self.commit.append(|log| line.encode(log));
                records.drop_tombstone(&key, ballot, lsn);
            }
        }
    }

    /// Takes over another replica's fence. Only for a node that copies everything, as
    /// [`Store::absorb`] is.
    pub fn absorb_fence(&self, fence: &Fence) {
        let mut records = lock(&self.records);
        let line = LogEntry::Fence(fence.clone());
        let lsn = self.commit.append(|log| line.encode(log));
        records.merge_fence(fence, lsn);
    }
}
