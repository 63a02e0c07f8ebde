//! How much of its folder a start has read.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes of snapshot and logs that a start has read, and all that it has to read. One thread
/// counts, and others may look at any time.
#[derive(Default)]
pub struct Progress {
    read: AtomicU64,
    all: AtomicU64,
}

impl Progress {
    /// Adds bytes that have to be read.
    pub(super) fn expect(&self, bytes: u64) {
        self.all.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds bytes that have been read.
    pub(super) fn add(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl fmt::Display for Progress {
    /// `45 of 120 MiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: &AtomicU64| bytes.load(Ordering::Relaxed) >> 20;
        write!(f, "{} of {} MiB", mib(&self.read), mib(&self.all))
    }
}
