//! Pages of records, in the order of their keys. A page is delivered once all of it is durable.

use std::ops::Bound;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, bounded};
use serde::{Deserialize, Serialize};

use super::Store;
use super::digests::Bucket;
use super::records::{Records, Slot};
use super::wal::Lsn;
use crate::bytes::{Bytes, Key};
use crate::lock;
use crate::protocol::chain::epoch::{Adopted, Epoch};
use crate::protocol::{Accepted, Ballot, Fence, Record};

/// Asks for a page of the records of one range, in the order of the keys.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Scan {
    pub range: usize,
    /// Only keys of these buckets, in ascending order; `None` for all keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buckets: Option<Vec<u16>>,
    /// Only keys greater than this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Key>,
    /// Whether the page shall hold whole records, and not only ballots.
    pub states: bool,
    /// In a chain, what the replica must be for its page to mean anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Within>,
}

/// What a replica must be of the chain of a range, to be compared with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Within {
    /// It takes part in this epoch.
    Epoch(Epoch),
    /// It serves.
    Serving,
}

/// The answer to a [`Scan`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Page {
    /// Ascending by key.
    pub entries: Vec<PageEntry>,
    /// What replaces the records of dropped keys.
    #[serde(default)]
    pub fence: Fence,
    /// The highest epoch that the replica has adopted for the range.
    #[serde(default, skip_serializing_if = "is_default")]
    pub adopted: Adopted,
    /// The next page begins after this key; `None` on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Key>,
}

fn is_default(adopted: &Adopted) -> bool {
    *adopted == Adopted::default()
}

/// One key of a page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PageEntry {
    pub key: Key,
    /// The accepted ballot, or [`Ballot::ZERO`].
    pub accepted: Ballot,
    /// The length of the value, in bytes: what an answer with the state would take.
    pub size: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Record>,
}

/// A page ends after this many entries.
const PAGE_ENTRIES: usize = 1000;
/// A page ends once its line of JSON may have this many bytes, so that it arrives soon and other answers
/// do not wait for long behind it. One more entry of any size still fits the longest line between nodes.
const PAGE_BYTES: usize = 1 << 20;
/// A page ends after a look at this many records, since nobody else can use the records meanwhile.
const PAGE_VISITS: usize = 20_000;

/// While so many pages wait for the disk, no more are read: each takes memory.
const MOST_PAGES: usize = 64;

impl Records {
    /// The page that a scan asks for, and the log entry that makes all of it durable.
    pub fn scan(&self, scan: &Scan) -> (Page, Lsn) {
        let mut page = Page {
            fence: self.fence(scan.range).clone(),
            adopted: self.adopted(scan.range).clone(),
            ..Page::default()
        };
        let (mut lsn, mut bytes) = (self.fences[scan.range].lsn, 0);
        for (visits, (key, slot)) in self.after(scan.after.as_ref()).enumerate() {
            let Bucket { range, number } = slot.bucket;
            let buckets = scan.buckets.as_ref();
            let wanted = buckets.is_none_or(|buckets| buckets.binary_search(&number).is_ok());
            if range as usize == scan.range && wanted {
                let record = scan.states.then(|| slot.record.clone());
                bytes += json_bound(key, record.as_ref());
                lsn = lsn.max(slot.lsn);
                let accepted = slot.record.accepted_ballot();
                page.entries.push(PageEntry {
                    key: key.clone(),
                    accepted,
                    size: slot.record.value_size(),
                    record,
                });
            }
            let full = page.entries.len() >= PAGE_ENTRIES || bytes >= PAGE_BYTES;
            if full || visits >= PAGE_VISITS {
                page.next = Some(key.clone());
                break;
            }
        }
        (page, lsn)
    }

    /// Up to `most` records after a key, and the log entry that makes all of them durable.
    pub fn page(&self, after: Option<&Key>, most: usize) -> (Vec<(Key, Record)>, Lsn) {
        copy(self.after(after).take(most))
    }

    /// The same of the records without a value.
    pub fn tombstones(&self, after: Option<&Key>, most: usize) -> (Vec<(Key, Record)>, Lsn) {
        let keys = self.tombstones.range::<Key, _>(behind(after)).take(most);
        copy(keys.filter_map(|key| self.slots.get_key_value(key)))
    }

    fn after(&self, key: Option<&Key>) -> impl Iterator<Item = (&Key, &Slot)> {
        self.slots.range::<Key, _>(behind(key))
    }
}

fn behind(key: Option<&Key>) -> (Bound<&Key>, Bound<&Key>) {
    let start = key.map_or(Bound::Unbounded, Bound::Excluded);
    (start, Bound::Unbounded)
}

/// Copies records until they have the bytes of a page.
fn copy<'a>(slots: impl Iterator<Item = (&'a Key, &'a Slot)>) -> (Vec<(Key, Record)>, Lsn) {
    let (mut records, mut lsn, mut bytes) = (Vec::new(), 0, 0);
    for (key, slot) in slots {
        lsn = lsn.max(slot.lsn);
        bytes += json_bound(key, Some(&slot.record));
        records.push((key.clone(), slot.record.clone()));
        if bytes >= PAGE_BYTES {
            break;
        }
    }
    (records, lsn)
}

impl Store {
    /// Gives `reply` the page that a scan asks for, once all of it is durable.
    pub fn scan(&self, scan: &Scan, reply: impl FnOnce(Page) + Send + 'static) {
        let (page, lsn) = lock(&self.records).scan(scan);
        self.deliver_page(lsn, move || reply(page));
    }

    /// The page that a scan asks for, durable or not.
    pub fn look(&self, scan: &Scan) -> Page {
        lock(&self.records).scan(scan).0
    }

    /// Gives `reply` the records of these keys, once they are durable. The page ends like that of a scan: it has the
    /// first of them at least, and mostly all.
    pub fn states(&self, keys: &[Key], reply: impl FnOnce(Page) + Send + 'static) {
        let records = lock(&self.records);
        let (mut page, mut last, mut bytes) = (Page::default(), 0, 0);
        for key in keys {
            let (record, lsn) = records.get(key);
            last = last.max(lsn);
            bytes += json_bound(key, Some(record));
            page.entries.push(PageEntry {
                key: key.clone(),
                accepted: record.accepted_ballot(),
                size: record.value_size(),
                record: Some(record.clone()),
            });
            if bytes >= PAGE_BYTES {
                break;
            }
        }
        drop(records);
        self.deliver_page(last, move || reply(page));
    }

    /// Whether one more page may wait for the disk.
    pub fn pages_may_wait(&self) -> bool {
        self.pages.load(Ordering::Relaxed) < MOST_PAGES
    }

    /// Runs `deliver` once the page is durable, and counts the page until then.
    fn deliver_page(&self, lsn: Lsn, deliver: impl FnOnce() + Send + 'static) {
        let pages = self.pages.clone();
        pages.fetch_add(1, Ordering::Relaxed);
        self.run_when_durable(lsn, move || {
            pages.fetch_sub(1, Ordering::Relaxed);
            deliver();
        });
    }

    /// Sends up to `most` records after a key, once all of them are durable.
    pub fn page(&self, after: Option<&Key>, most: usize) -> Receiver<Vec<(Key, Record)>> {
        self.send_page(lock(&self.records).page(after, most))
    }

    /// Sends up to `most` records without a value after a key, in the order of the keys, once all of them
    /// are durable.
    pub fn tombstones(&self, after: Option<&Key>, most: usize) -> Receiver<Vec<(Key, Record)>> {
        self.send_page(lock(&self.records).tombstones(after, most))
    }

    fn send_page<T: Send + 'static>(&self, (page, lsn): (T, Lsn)) -> Receiver<T> {
        let (sender, receiver) = bounded(1);
        self.deliver_page(lsn, move || drop(sender.send(page)));
        receiver
    }

    /// Tells `reply` for each of these tombstones whether this replica holds it or is past it, once
    /// that is durable.
    pub fn hold_tombstones(
        &self,
        tombstones: &[(Key, Accepted)],
        reply: impl FnOnce(Vec<bool>) + Send + 'static,
    ) {
        let records = lock(&self.records);
        let held = tombstones
            .iter()
            .map(|(key, tombstone)| records.holds_tombstone(key, tombstone));
        let (held, lsns): (Vec<bool>, Vec<Lsn>) = held.unzip();
        drop(records);
        let lsn = lsns.into_iter().max().unwrap_or(0);
        self.deliver_page(lsn, move || reply(held));
    }

    /// The digests of a range's buckets, durable or not: they only say where to look.
    pub fn digests(&self, range: usize) -> Vec<u64> {
        lock(&self.records).digests(range).to_vec()
    }
}

/// The most bytes that an entry of a page takes as JSON.
fn json_bound(key: &Key, record: Option<&Record>) -> usize {
    /// Field names, and ballots with numbers of up to 20 digits.
    const OVERHEAD: usize = 512;
    /// An entry of a clock: a node id, and a number of up to 20 digits.
    const OF_CLOCK: usize = 36;
    /// How many entries of a clock take as much as an answer. Its text has no more than six bytes of JSON
    /// for each of its own.
    const ANSWER: usize = 12;
    let value = record.and_then(Record::value).map_or(0, Bytes::json_bound);
    let clocks = record.map_or(0, |record| record.clock_entries(ANSWER));
    key.json_bound() + value + OVERHEAD + OF_CLOCK * clocks
}
