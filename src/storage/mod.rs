//! Storage: what this replica has promised and accepted, durable before anybody hears of it.
//!
//! All records are in memory ([`records`]). Each vote that changes one is appended to a write-ahead
//! log ([`wal`]), in frames with checksums ([`frame`]). One fdatasync covers many votes. Now and then a
//! [`snapshot`] replaces the logs. A start reads both ([`recovery`]).
//!
//! - No vote and no state is revealed before it is durable. So a reply, also to a read, waits for the
//!   newest log entry of its record.
//! - A failed write or sync ends the process and is never tried again, because after a failed fsync
//!   nobody knows what is on the disk.
//! - A start on damaged data fails, because a replica that may have forgotten a vote must not vote.

mod digests;
pub mod disk;
mod entry;
pub mod files;
pub mod frame;
pub mod identity;
mod open;
pub mod pages;
mod preallocation;
mod progress;
pub mod records;
pub mod recovery;
mod replica;
pub mod snapshot;
pub mod wal;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crossbeam_channel::bounded;
use log::error;

pub use identity::{ClusterId, Identity, Standing, Start, StorageId};
pub use pages::{Page, PageEntry, Scan, Within};
pub use progress::Progress;
pub use recovery::OpenError;
pub use wal::{Hooks, LogPosition, SyncMode};

use crate::bytes::Key;
use crate::lock;
use crate::protocol::chain::LogPlace;
use crate::protocol::chain::epoch::Adopted;
use crate::protocol::ring::{NodeId, Ring};
use crate::protocol::{
    Accepted, Ballot, Fence, Record, Seen, State, Update, VoteReply, VoteRequest, takeover,
};
use crate::testing::rules::{self, Rule};
use disk::Disk;
use entry::LogEntry;
use records::Records;
use wal::{Lsn, WriteAheadLog};

/// How many zeros are kept behind the end of the log, in bytes: few enough that a sync that has to
/// write them is quick.
const LOG_ZEROS: usize = 512 << 10;
/// A replica abstains from votes while its log has this many bytes to write, or more.
pub const MOST_BACKLOG: usize = 64 << 20;
/// A replica abstains from all votes that would wait for the disk while this many wait already.
pub const MOST_WAITING: usize = 20_000;

/// The durable records of one node.
pub struct Store {
    disk: Arc<dyn Disk>,
    records: Mutex<Records>,
    wal: WriteAheadLog,
    /// How far the logs were written when the folder was opened.
    recovered: LogPosition,
    identity: Mutex<Identity>,
    /// Held while the identity is written, so that no change is lost and readers need not wait.
    changing_identity: Mutex<()>,
    /// Held while a snapshot is taken.
    snapshots: Mutex<SnapshotState>,
    /// How many zeros are kept behind the end of the log, in bytes.
    log_zeros: usize,
    /// Sequence numbers up to this one are reserved.
    sequences: AtomicU64,
    /// Whether this process has voted. Changes while the records are locked.
    has_voted: AtomicBool,
    /// How many pages of records wait for the disk.
    pages: Arc<AtomicUsize>,
}

struct SnapshotState {
    /// The generation of the present log.
    generation: u64,
    /// The next snapshot is due when the log has this many bytes.
    due: u64,
}

impl Store {
    /// Votes on a key. Returns the vote if it is durable already. Otherwise the commit thread calls
    /// `later` with it once it is.
    pub fn vote(
        &self,
        key: &Key,
        request: &VoteRequest,
        later: impl FnOnce(VoteReply) + Send + 'static,
    ) -> Option<VoteReply> {
        let mut records = lock(&self.records);
        self.has_voted.store(true, Ordering::Relaxed);
        let (update, vote, lsn) = records.vote(key, request);
        if let (VoteReply::Rejected(_), VoteRequest::Accept(refused)) = (&vote, request)
            && records.get(key).0.contradicts(refused)
        {
            error!(
                "BROKEN INVARIANT: two states at ballot {} of {key:?}: refused the version {}",
                refused.ballot, refused.state.clock
            );
        }
        let lsn = match update {
            Some(update) => {
                let rule = match update {
                    Update::Promise(_) => Rule::PromiseDurable,
                    Update::Accept(_) => Rule::AcceptDurable,
                };
                let lsn = self.apply(&mut records, key, update);
                if rules::holds(rule) { lsn } else { 0 }
            }
            None => lsn,
        };
        drop(records);
        self.wal.when_durable(lsn, vote, later)
    }

    /// What a read of a key sees here, if that is durable already.
    pub fn seen(&self, key: &Key) -> Option<Seen> {
        let records = lock(&self.records);
        let (record, lsn) = records.get(key);
        (lsn <= self.wal.durable()).then(|| record.seen(false))
    }

    /// Whether the disk keeps up with the votes, so that there may be more of them.
    pub fn disk_keeps_up(&self) -> bool {
        let (bytes, waiting) = self.wal.backlog();
        bytes < MOST_BACKLOG && waiting < MOST_WAITING
    }

    /// Waits until all entries so far are durable, if the disk does not keep up or more than `most` bytes wait for it.
    /// What writes much calls this now and then.
    ///
    /// # Errors
    /// If the log has failed.
    pub fn await_backlog(&self, most: usize) -> io::Result<()> {
        if self.disk_keeps_up() && self.wal.backlog().0 <= most {
            return Ok(());
        }
        self.await_durable()
    }

    /// Whether one more vote may wait for the disk. A read waits, too, if its state is not durable yet.
    pub fn may_wait(&self) -> bool {
        self.wal.backlog().1 < MOST_WAITING
    }

    fn append(&self, entry: &LogEntry) -> Lsn {
        self.wal.append(|queue| entry.encode(queue))
    }

    fn apply(&self, records: &mut Records, key: &Key, update: Update) -> Lsn {
        let lsn = self.append(&LogEntry::Vote {
            key: key.clone(),
            update: update.clone(),
        });
        records.apply(key, update, lsn);
        lsn
    }

    /// Locks the records for a change that is no vote. Only a node that copies what it has lost makes
    /// such changes, before it votes again.
    fn lock_before_votes(&self) -> MutexGuard<'_, Records> {
        let records = lock(&self.records);
        let has_voted = self.has_voted.load(Ordering::Relaxed);
        assert!(
            !has_voted,
            "a node that votes changes records by votes only"
        );
        records
    }

    /// Adds the record of another replica to what this node has copied; see [`takeover`].
    ///
    /// # Panics
    /// If this process has voted.
    pub fn absorb(&self, key: &Key, record: Record) {
        let mut records = self.lock_before_votes();
        let own = records.get(key).0.clone();
        for update in takeover::updates(&own, record) {
            self.apply(&mut records, key, update);
        }
    }

    /// Adds the fence of another replica of a range to what this node has copied.
    ///
    /// # Panics
    /// If this process has voted.
    pub fn absorb_fence(&self, range: usize, fence: &Fence) {
        let mut records = self.lock_before_votes();
        let lsn = self.append(&LogEntry::Fence {
            range: Some(range),
            fence: fence.clone(),
        });
        records.merge_fence(range, fence, lsn);
    }

    /// Adopts what other replicas of a range have adopted, as a part of what this node has copied.
    ///
    /// # Panics
    /// If this process has voted.
    pub fn absorb_adopted(&self, range: usize, adopted: Adopted) {
        let mut records = self.lock_before_votes();
        self.append(&LogEntry::Adopted {
            range,
            adopted: adopted.clone(),
        });
        records.adopt(range, adopted);
    }

    /// Discards all records, because the folder lacks votes that its node has given. The sequence
    /// numbers stay used. The identity is written first, so that the next start discards what a crash
    /// has left.
    ///
    /// # Errors
    /// If the disk fails.
    ///
    /// # Panics
    /// If this process has voted, since it must not forget its votes.
    pub fn discard(&self, ring: Arc<Ring>) -> io::Result<()> {
        self.change_identity(Identity::outdate)?;
        *self.lock_before_votes() = Records::new(ring);
        self.snapshot()?;
        self.change_identity(|identity| identity.standing = Standing::Lost)
    }

    /// Drops the records of keys that still hold these ballots without a value: tombstones that every
    /// replica of their keys holds or is past, and, at [`Ballot::ZERO`], promises alone. Nobody waits
    /// until that is durable.
    pub fn drop_tombstones(&self, dropped: &[(Key, Ballot)]) {
        let mut records = lock(&self.records);
        for &(ref key, ballot) in dropped {
            if records.has_tombstone(key, ballot) {
                let lsn = self.append(&LogEntry::Dropped {
                    key: key.clone(),
                    ballot,
                });
                records.drop_tombstone(key, ballot, lsn);
            }
        }
    }

    /// Whether this replica has no record of the key, and needs none because it is past this tombstone.
    pub fn is_past(&self, key: &Key, tombstone: &Accepted) -> bool {
        let records = lock(&self.records);
        records.get(key).0.accepted.is_none() && records.holds_tombstone(key, tombstone).0
    }

    /// The highest ballot that is promised for a key: a proposer of this node starts above it.
    pub fn promised(&self, key: &Key) -> Ballot {
        lock(&self.records).get(key).0.promised
    }

    /// The ballot that is accepted for a key.
    pub fn accepted(&self, key: &Key) -> Ballot {
        lock(&self.records).get(key).0.accepted_ballot()
    }

    /// The state that is accepted for a key, durably or not.
    pub fn state(&self, key: &Key) -> Option<Arc<State>> {
        let records = lock(&self.records);
        let accepted = records.get(key).0.accepted.as_ref();
        accepted.map(|accepted| accepted.state.clone())
    }

    /// Sequence numbers up to this one may have been used.
    pub fn sequences(&self) -> u64 {
        self.sequences.load(Ordering::Relaxed)
    }

    /// The highest sequence number of an origin's writes that this replica has seen.
    pub fn highest_number(&self, origin: NodeId) -> u64 {
        lock(&self.records).numbers().get(origin)
    }

    /// Reserves sequence numbers up to this one. Runs `then` once that is durable.
    pub fn reserve(&self, upto: u64, then: impl FnOnce() + Send + 'static) {
        self.sequences.fetch_max(upto, Ordering::Relaxed);
        let lsn = self.append(&LogEntry::Sequences(upto));
        self.run_when_durable(lsn, then);
    }

    /// How many keys have a record.
    pub fn count(&self) -> usize {
        lock(&self.records).count()
    }

    /// How many keys have a record, and how many of these hold no value.
    pub fn counts(&self) -> (usize, usize) {
        let records = lock(&self.records);
        (records.count(), records.tombstones.len())
    }

    /// About how much memory the records take, in bytes.
    pub fn data_bytes(&self) -> usize {
        lock(&self.records).bytes()
    }

    /// Runs `then` once all entries so far are durable.
    pub fn when_durable(&self, then: impl FnOnce() + Send + 'static) {
        self.run_when_durable(self.wal.appended(), then);
    }

    /// Whether the log is durable up to a place.
    pub fn is_durable(&self, place: LogPlace) -> bool {
        place <= self.wal.durable()
    }

    /// Runs `then` once the log is durable up to a place.
    pub fn when_durable_to(&self, place: LogPlace, then: impl FnOnce() + Send + 'static) {
        self.run_when_durable(place, then);
    }

    fn run_when_durable(&self, lsn: Lsn, callback: impl FnOnce() + Send + 'static) {
        if let Some(now) = self.wal.when_durable(lsn, callback, |later| later()) {
            now();
        }
    }

    /// Waits until all entries so far are durable.
    ///
    /// # Errors
    /// If the log has failed.
    pub fn await_durable(&self) -> io::Result<()> {
        let (sender, durable) = bounded(1);
        self.when_durable(move || {
            let _ = sender.send(());
        });
        let failed = |_| io::Error::other("the log has failed");
        durable.recv().map_err(failed)
    }

    /// The identity of the folder. Only [`Store::change_identity`] changes it.
    pub fn identity(&self) -> MutexGuard<'_, Identity> {
        lock(&self.identity)
    }

    /// Changes the identity, durably. Readers see the one before until then, and do not wait for the
    /// disk.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn change_identity(&self, change: impl FnOnce(&mut Identity)) -> io::Result<()> {
        let _one_at_a_time = lock(&self.changing_identity);
        let before = self.identity().clone();
        let mut identity = before.clone();
        change(&mut identity);
        if identity != before {
            identity.save(self.disk.as_ref())?;
            *self.identity() = identity;
        }
        Ok(())
    }

    /// How far the logs were written when the folder was opened, and how far they are durable now.
    pub fn positions(&self) -> (LogPosition, LogPosition) {
        (self.recovered, self.wal.position())
    }

    /// The length of the log since the last snapshot, in bytes.
    pub fn log_bytes(&self) -> u64 {
        self.wal.written()
    }

    /// Makes all entries durable and stops the commit thread.
    pub fn close(&self) {
        self.wal.end();
    }
}
