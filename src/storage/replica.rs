//! What a chain reads and changes of its node's records.

use std::sync::atomic::Ordering;

use super::Store;
use super::entry::LogEntry;
use crate::bytes::Key;
use crate::lock;
use crate::protocol::chain::epoch::Adopted;
use crate::protocol::chain::{LogPlace, Replica};
use crate::protocol::{Accepted, Fence, Record, Update};

/// A chain changes records under its own lock, which it holds meanwhile.
impl Replica for &Store {
    fn adopted(&self, range: usize) -> Adopted {
        lock(&self.records).adopted(range).clone()
    }

    fn adopt(&mut self, range: usize, adopted: &Adopted) -> LogPlace {
        let mut records = lock(&self.records);
        let lsn = self.append(&LogEntry::Adopted {
            range,
            adopted: adopted.clone(),
        });
        records.adopt(range, adopted.clone());
        lsn
    }

    fn record(&self, key: &Key) -> (Record, LogPlace) {
        let records = lock(&self.records);
        let (record, lsn) = records.get(key);
        (record.clone(), lsn)
    }

    fn fence(&self, range: usize) -> Fence {
        lock(&self.records).fence(range).clone()
    }

    fn take(&mut self, key: &Key, accepted: &Accepted) -> LogPlace {
        self.has_voted.store(true, Ordering::Relaxed);
        let update = Update::Accept(accepted.clone());
        self.apply(&mut lock(&self.records), key, update)
    }

    fn written(&self) -> LogPlace {
        self.wal.appended()
    }

    fn durable(&self) -> LogPlace {
        self.wal.durable()
    }
}
