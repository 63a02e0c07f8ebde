//! Storage: what a replica has promised and accepted, durable before anybody hears of it.
//!
//! All records are in memory ([`records`]). Each vote that changes one is appended to a
//! write-ahead log ([`frame`]), many votes with one fdatasync ([`log`]). Now and then a
//! snapshot takes the place of the logs ([`snapshot`]); a start reads both ([`recovery`]).
//!
//! - No vote and no state is revealed before it is durable: a reply waits for the newest log entry
//!   of the record that it tells of, a read's too.
//! - A write or sync that fails ends the process, and is never tried again: after a failed fsync
//!   nobody knows what is on the disk.
//! - Damage stops the start: a replica that may have forgotten a vote must not vote.

mod digests;
pub mod disk;
mod entry;
pub mod files;
pub mod frame;
pub mod identity;
pub mod log;
mod open;
pub mod pages;
mod preallocation;
mod progress;
pub mod records;
pub mod recovery;
pub mod snapshot;
pub mod tombstones;

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use ::log::{error, info, warn};
use crossbeam_channel::bounded;

pub use identity::{ClusterId, Identity, Standing, Start, StorageId};
pub use log::{Hooks, Position, SyncMode};
pub use open::OpenError;
pub use pages::{Entry, Page, Scan};
pub use progress::Progress;

use crate::bytes::Key;
use crate::lock;
use crate::protocol::ring::{NodeId, Ring};
use crate::protocol::{Ballot, Record, Seen, State, Update, VoteReply, VoteRequest, takeover};
use crate::testing::faults::{self, Point};
use crate::testing::rules::{self, Rule};
use disk::Disk;
use entry::LogEntry;
use log::{Callback, GroupCommit, Lsn};
use records::Records;

/// Zeros that are written ahead of the log, in bytes: few enough that a sync with them is quick.
const LOG_AHEAD: usize = 512 << 10;
/// A replica whose log has so many bytes to write, or more, abstains from votes.
pub const MOST_BACKLOG: usize = 64 << 20;
/// A replica where so many votes wait for the disk abstains from all that would wait, too.
pub const MOST_WAITING: usize = 20_000;
/// A snapshot is due when the log is this long, in bytes, and no shorter than the last snapshot
/// since the start.
const SNAPSHOT_AFTER: u64 = 64 << 20;

/// The durable records of one node.
pub struct Store {
    node: NodeId,
    disk: Arc<dyn Disk>,
    records: Arc<Mutex<Records>>,
    commit: GroupCommit,
    /// How far the logs were written when the folder was opened.
    recovered: Position,
    identity: Mutex<Identity>,
    changing_identity: Mutex<()>,
    taking_snapshot: Mutex<()>,
    /// Zeros that are written ahead of the log, in bytes.
    log_ahead: usize,
    /// The generation of the current log.
    generation: AtomicU64,
    /// Sequence numbers up to this one are reserved.
    sequences: AtomicU64,
    snapshot_bytes: AtomicU64,
    /// How many pages of records wait for the disk.
    pages: Arc<AtomicUsize>,
}

impl Store {
    /// Votes on a key. Returns the vote if it is durable already; otherwise `later` gets it on the commit
    /// thread, once it is.
    pub fn vote<F>(&self, key: &Key, request: &VoteRequest, later: F) -> Option<VoteReply>
    where
        F: FnOnce(VoteReply) + Send + 'static,
    {
        let mut records = lock(&self.records);
        let (update, vote, lsn) = records.vote(key, request);
        if let (VoteReply::Rejected(_), VoteRequest::Accept(refused)) = (&vote, request)
            && records.get(key).0.contradicts(refused)
        {
            error!(
                "{}: BROKEN INVARIANT: two states at ballot {} of {key:?}: refused the version {}",
                self.node, refused.ballot, refused.state.clock
            );
        }
        let lsn = match update {
            Some(update) => {
                let rule = match update {
                    Update::Promise(_) => Rule::PromiseDurable,
                    Update::Accept(_) => Rule::AcceptDurable,
                };
                let lsn = self.write(&mut records, key, update);
                if rules::holds(rule) { lsn } else { 0 }
            }
            None => lsn,
        };
        drop(records);
        self.commit.when_durable(lsn, vote, later)
    }

    /// What a read of a key sees here, if that is durable at this moment.
    pub fn seen(&self, key: &Key) -> Option<Seen> {
        let records = lock(&self.records);
        let (record, lsn) = records.get(key);
        (lsn <= self.commit.durable()).then(|| record.seen(false))
    }

    /// Whether little enough waits to be written for more votes.
    pub fn disk_keeps_up(&self) -> bool {
        let (bytes, waiting) = self.commit.backlog();
        bytes < MOST_BACKLOG && waiting < MOST_WAITING
    }

    /// Whether few enough votes wait for the disk for more, of whatever kind: a read waits until
    /// what it tells is durable.
    pub fn may_wait(&self) -> bool {
        self.commit.backlog().1 < MOST_WAITING
    }

    fn write(&self, records: &mut Records, key: &Key, update: Update) -> Lsn {
        let line = LogEntry::Vote {
            key: key.clone(),
            update: update.clone(),
        };
        let lsn = self.commit.append(|log| line.encode(log));
        records.apply(key, update, lsn);
        lsn
    }

    /// Takes over what a node has copied that has lost its votes and does not vote yet; see
    /// [`copied`].
    pub fn absorb(&self, key: &Key, record: Record) {
        let mut records = lock(&self.records);
        let own = records.get(key).0.clone();
        for update in takeover::updates(&own, record) {
            self.write(&mut records, key, update);
        }
    }

    /// The highest promise for a key: where a proposer of this node should start.
    pub fn promised(&self, key: &Key) -> Ballot {
        lock(&self.records).get(key).0.promised
    }

    /// The ballot that is accepted for a key.
    pub fn accepted(&self, key: &Key) -> Ballot {
        lock(&self.records).get(key).0.accepted_ballot()
    }

    /// The sequence number up to which dots may have been used.
    pub fn sequences(&self) -> u64 {
        self.sequences.load(Ordering::Relaxed)
    }

    /// The highest sequence number of an origin's writes that this replica has seen.
    pub fn highest_number(&self, origin: NodeId) -> u64 {
        lock(&self.records).numbers().get(origin)
    }

    /// Reserves sequence numbers; `then` runs once that is durable.
    pub fn reserve(&self, upto: u64, then: Callback) {
        self.sequences.fetch_max(upto, Ordering::Relaxed);
        let lsn = self
            .commit
            .append(|log| LogEntry::Sequences(upto).encode(log));
        self.run_when_durable(lsn, then);
    }

    /// How many keys have a record.
    pub fn count(&self) -> usize {
        lock(&self.records).count()
    }

    /// About how much memory the records take, in bytes.
    pub fn data_bytes(&self) -> usize {
        lock(&self.records).bytes()
    }

    /// The state that is accepted for a key, durably or not.
    pub fn state(&self, key: &Key) -> Option<Arc<State>> {
        let records = lock(&self.records);
        let accepted = records.get(key).0.accepted.as_ref();
        accepted.map(|accepted| accepted.state.clone())
    }

    /// Runs `then` once everything appended so far is durable.
    pub fn when_durable(&self, then: Callback) {
        self.run_when_durable(self.commit.appended(), then);
    }

    fn run_when_durable(&self, lsn: Lsn, callback: impl FnOnce() + Send + 'static) {
        if let Some(now) = self.commit.when_durable(lsn, callback, |later| later()) {
            now();
        }
    }

    /// Waits until everything appended so far is durable.
    ///
    /// # Errors
    /// If the log has failed.
    pub fn await_durable(&self) -> io::Result<()> {
        let (sender, durable) = bounded(1);
        self.when_durable(Box::new(move || {
            let _ = sender.send(());
        }));
        let failed = |_| io::Error::other("the log has failed");
        durable.recv().map_err(failed)
    }

    /// This folder's identity; [`Store::change_identity`] changes it.
    pub fn identity(&self) -> MutexGuard<'_, Identity> {
        lock(&self.identity)
    }

    /// Changes the identity, durably. Who reads it meanwhile sees the one before, and does not wait
    /// for the disk.
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

    /// How far the logs were written when the folder was opened, and how far they are now.
    pub fn positions(&self) -> (Position, Position) {
        (self.recovered, self.commit.position())
    }

    /// Bytes of log since the last snapshot.
    pub fn log_bytes(&self) -> u64 {
        self.commit.written()
    }

    /// Discards all records, since the folder lacks votes that its node has given; the sequence numbers
    /// stay used. To be called before this node votes: nobody has been told anything of them.
    ///
    /// The note comes first: what is left after a crash half-way is discarded at the next start.
    pub fn discard(&self, ring: Arc<Ring>) -> io::Result<()> {
        self.change_identity(Identity::outdate)?;
        *lock(&self.records) = Records::new(ring);
        self.snapshot()?;
        self.change_identity(|identity| identity.standing = Standing::Lost)
    }

    /// Takes a snapshot if the log has grown long.
    pub fn snapshot_if_due(&self) -> io::Result<()> {
        let least = faults::snapshot_after().unwrap_or(SNAPSHOT_AFTER);
        let due = least.max(self.snapshot_bytes.load(Ordering::Relaxed));
        if self.commit.written() < due {
            return Ok(());
        }
        match self.snapshot() {
            // Whatever was promised is in the logs, and these go on while they have room.
            Err(error) if is_without_room(&error) => {
                warn!(
                    "{}: no room for a snapshot: {error}. Make room on the disk: the log keeps growing until then",
                    self.node
                );
                let later = self.commit.written() + least;
                self.snapshot_bytes.store(later, Ordering::Relaxed);
                Ok(())
            }
            ended => ended,
        }
    }

    /// Puts a snapshot in the place of the logs so far.
    pub fn snapshot(&self) -> io::Result<()> {
        let _one_at_a_time = lock(&self.taking_snapshot);
        let generation = self.generation.load(Ordering::Relaxed) + 1;
        let log = self
            .disk
            .create(&files::log_name(generation), self.log_ahead)?;
        faults::pass(Point::SnapshotLogCreated);
        self.disk.sync_folder()?;
        self.generation.store(generation, Ordering::Relaxed);
        self.commit.switch_log(log);
        faults::pass(Point::SnapshotLogSwitched);
        let disk = self.disk.as_ref();
        let durable = || self.await_durable();
        let bytes = snapshot::write(disk, &self.records, self.sequences(), generation, durable)?;
        self.snapshot_bytes.store(bytes, Ordering::Relaxed);
        info!(
            "{}: took a snapshot of {} records, {bytes} bytes",
            self.node,
            self.count()
        );
        Ok(())
    }

    /// Makes everything durable and stops.
    pub fn close(&self) {
        self.commit.end();
    }
}

fn is_without_room(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    [StorageFull, QuotaExceeded].contains(&error.kind())
}
