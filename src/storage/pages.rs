//! Pages of records, told once they are durable.

use std::sync::atomic::Ordering;

use crate::bytes::Key;
use crate::lock;
use crate::protocol::Record;

use super::log::Lsn;
use super::{Page, Scan, Store};

/// Where so many pages of records wait for the disk, no more are read.
const MOST_PAGES: usize = 64;

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
        self.commit.when_durable(lsn, Box::new(notify));
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
