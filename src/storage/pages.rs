//! Records page by page, in the order of their keys. A page is told once all of it is durable.

use std::ops::Bound;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::Store;
use super::digests::Place;
use super::log::Lsn;
use super::records::{Records, Slot};
use crate::bytes::Key;
use crate::lock;
use crate::protocol::{Ballot, Fence, Record};

/// A question for the records of one range, in the order of the keys, page by page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scan {
    pub range: usize,
    /// Only keys of these buckets, ascending; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buckets: Option<Vec<u16>>,
    /// Only keys greater than this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Key>,
    /// Whether whole records are wanted, or ballots alone.
    pub states: bool,
}

/// The answer to a [`Scan`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Page {
    /// Ascending by key.
    pub entries: Vec<Entry>,
    /// What stands for the keys that have no record any more.
    #[serde(default)]
    pub fence: Fence,
    /// Scan on after this key; `None`: there is no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Key>,
}

/// One key of a page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub key: Key,
    /// The ballot that was accepted, [`Ballot::ZERO`] for none.
    pub accepted: Ballot,
    /// How long its value is, in bytes: what a question for the state would bring.
    pub size: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Record>,
}

/// A page ends after this many entries.
const PAGE_ENTRIES: usize = 1000;
/// A page ends once it may have this many bytes as a line of JSON: whoever asks hears something soon, and
/// nobody waits for long behind it. With one entry more, of whatever size, it fits the longest line between nodes.
const PAGE_BYTES: usize = 1 << 20;
/// A scan looks at this many records at the most before it lets others at them.
const PAGE_VISITS: usize = 20_000;

/// Where so many pages of records wait for the disk, no more are read.
const MOST_PAGES: usize = 64;

impl Records {
    /// The next page of a scan, and the log entry after which all of it is durable.
    pub fn scan(&self, scan: &Scan) -> (Page, Lsn) {
        let mut page = Page {
            fence: self.fence.clone(),
            ..Page::default()
        };
        let (mut lsn, mut bytes) = (self.absent.1, 0);
        for (visits, (key, slot)) in self.after(scan.after.as_ref()).enumerate() {
            let Place { range, bucket } = slot.place;
            let wanted = scan
                .buckets
                .as_ref()
                .is_none_or(|b| b.binary_search(&bucket).is_ok());
            if range as usize == scan.range && wanted {
                let record = scan.states.then(|| slot.record.clone());
                bytes += size(key, record.as_ref());
                lsn = lsn.max(slot.lsn);
                let accepted = slot.record.accepted_ballot();
                page.entries.push(Entry {
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

    /// Up to `most` records after a key, in the order of the keys.
    pub fn page(&self, after: Option<&Key>, most: usize) -> (Vec<(Key, Record)>, Lsn) {
        let mut lsn = 0;
        let mut bytes = 0;
        let mut records = Vec::new();
        for (key, slot) in self.after(after) {
            lsn = lsn.max(slot.lsn);
            bytes += size(key, Some(&slot.record));
            records.push((key.clone(), slot.record.clone()));
            if records.len() >= most || bytes >= PAGE_BYTES {
                break;
            }
        }
        (records, lsn)
    }

    fn after(&self, key: Option<&Key>) -> impl Iterator<Item = (&Key, &Slot)> {
        let start = key.map_or(Bound::Unbounded, Bound::Excluded);
        self.slots.range::<Key, _>((start, Bound::Unbounded))
    }
}

impl Store {
    /// Answers a scan once all that it tells is durable.
    pub fn scan<F>(&self, scan: &Scan, reply: F)
    where
        F: FnOnce(Page) + Send + 'static,
    {
        let (page, lsn) = lock(&self.records).scan(scan);
        self.tell_page(lsn, move || reply(page));
    }

    /// Whether few enough pages of records wait for the disk for one more: each takes memory.
    pub fn pages_may_wait(&self) -> bool {
        self.pages.load(Ordering::Relaxed) < MOST_PAGES
    }

    /// Tells a page of records once all of it is durable.
    pub(super) fn tell_page(&self, lsn: Lsn, tell: impl FnOnce() + Send + 'static) {
        let pages = self.pages.clone();
        pages.fetch_add(1, Ordering::Relaxed);
        let notify = move || {
            pages.fetch_sub(1, Ordering::Relaxed);
            tell();
        };
        self.run_when_durable(lsn, notify);
    }

    /// Gives up to `most` records after a key, once all of them are durable.
    pub fn page<F>(&self, after: Option<&Key>, most: usize, reply: F)
    where
        F: FnOnce(Vec<(Key, Record)>) + Send + 'static,
    {
        let (page, lsn) = lock(&self.records).page(after, most);
        self.tell_page(lsn, move || reply(page));
    }

    /// The digests of a range's buckets.
    pub fn digests(&self, range: usize) -> Vec<u64> {
        lock(&self.records).digests(range).to_vec()
    }
}

/// How many bytes an entry of a page takes as JSON at the most.
fn size(key: &Key, record: Option<&Record>) -> usize {
    /// Names, and ballots of up to 20 digits a number.
    const AROUND: usize = 512;
    /// An entry of a clock: an id, and a number of up to 20 digits.
    const OF_CLOCK: usize = 36;
    let state = record.and_then(|record| Some(&record.accepted.as_ref()?.state));
    let value = state.and_then(|state| state.value.as_ref());
    let clocks = state.map_or(0, |state| {
        state.clock.len() + state.refusals.len() + state.floor.len()
    });
    let value = value.map_or(0, |value| value.json_bound());
    key.json_bound() + value + AROUND + OF_CLOCK * clocks
}
