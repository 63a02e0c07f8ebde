//! Snapshots: all records as they are, in the place of the logs that led to them.
//!
//! A crash between any two of these steps leaves a folder that starts: switch to a new log; write all
//! records to a temporary file; wait until the log is durable so far; sync the file; rename it; sync
//! the folder; remove the older logs and snapshots. Records that change meanwhile are both in the
//! snapshot and in the new log, and recovery may apply a change twice.

use std::io;

use log::{info, warn};

use super::Store;
use super::disk::AppendOnlyFile;
use super::entry::LogEntry;
use super::files::{self, snapshot_name};
use super::frame;
use crate::lock;
use crate::testing::faults::{self, Point};

/// A snapshot is due when the log is this long, in bytes, and no shorter than the last snapshot
/// since the start.
const SNAPSHOT_AFTER: u64 = 64 << 20;
/// How many records are copied at a time while nobody else can use them.
const CHUNK: usize = 500;

impl Store {
    /// Takes a snapshot if the log has grown long. If the disk has no room for it, that is put off.
    ///
    /// # Errors
    /// If the disk fails in any other way.
    pub fn snapshot_if_due(&self) -> io::Result<()> {
        let least = faults::snapshot_after().unwrap_or(SNAPSHOT_AFTER);
        if self.log_bytes() < least.max(lock(&self.snapshots).due) {
            return Ok(());
        }
        match self.snapshot() {
            // All promises are in the logs, and these go on as long as they have room.
            Err(error) if is_without_room(&error) => {
                warn!(
                    "no room for a snapshot: {error}. Make room on the disk: the log keeps growing until then"
                );
                lock(&self.snapshots).due = self.log_bytes() + least;
                Ok(())
            }
            ended => ended,
        }
    }

    /// Replaces the logs so far by a snapshot.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn snapshot(&self) -> io::Result<()> {
        // The lock is held to the end: one snapshot is taken at a time.
        let mut snapshots = lock(&self.snapshots);
        let generation = snapshots.generation + 1;
        let name = files::log_name(generation);
        let log = self.disk.create(&name, self.log_zeros)?;
        faults::pass(Point::SnapshotLogCreated);
        self.disk.sync_folder()?;
        snapshots.generation = generation;
        self.wal.switch_log(log);
        faults::pass(Point::SnapshotLogSwitched);
        let bytes = self.write_snapshot(generation)?;
        snapshots.due = bytes;
        let count = self.count();
        info!("took a snapshot of {count} records, {bytes} bytes");
        Ok(())
    }

    /// Writes the snapshot that replaces all logs before `generation`. Returns its length in bytes.
    fn write_snapshot(&self, generation: u64) -> io::Result<u64> {
        let disk = self.disk.as_ref();
        let name = snapshot_name(generation);
        let temporary = format!("{name}.tmp");
        let written = self.write_records(&temporary);
        if written.is_err() {
            // If this fails, too, the next start removes the file.
            let _ = disk.remove(&temporary);
        }
        let bytes = written?;
        disk.rename(&temporary, &name)?;
        faults::pass(Point::SnapshotRenamed);
        disk.sync_folder()?;
        faults::pass(Point::SnapshotDurable);
        files::remove_before(disk, generation)?;
        Ok(bytes)
    }

    fn write_records(&self, name: &str) -> io::Result<u64> {
        let mut file = self.disk.create(name, 0)?;
        let mut bytes = append(file.as_mut(), &[LogEntry::Sequences(self.sequences())])?;
        let mut last = None;
        let mut count = 0;
        loop {
            let (chunk, _) = lock(&self.records).page(last.as_ref(), CHUNK);
            let Some((key, _)) = chunk.last() else { break };
            last = Some(key.clone());
            count += chunk.len() as u64;
            let chunk = chunk.into_iter();
            let lines: Vec<_> = chunk
                .map(|(key, record)| LogEntry::Record { key, record })
                .collect();
            bytes += append(file.as_mut(), &lines)?;
        }
        // The fences are copied after the records, so that they cover all that were dropped meanwhile.
        let mut end = lock(&self.records).of_ranges();
        end.push(LogEntry::End(count));
        bytes += append(file.as_mut(), &end)?;
        // If the log lost a drop that the snapshot shows, recovery would bring back an older state.
        self.await_durable()?;
        faults::pass(Point::SnapshotWritten);
        file.sync()?;
        faults::pass(Point::SnapshotSynced);
        Ok(bytes)
    }
}

/// Appends a frame with these lines. Returns its length in bytes.
fn append(file: &mut dyn AppendOnlyFile, lines: &[LogEntry]) -> io::Result<u64> {
    let mut payload = Vec::new();
    lines.iter().for_each(|line| line.encode(&mut payload));
    let mut framed = Vec::new();
    frame::encode(&payload, &mut framed);
    file.append(&framed)?;
    Ok(framed.len() as u64)
}

fn is_without_room(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    [StorageFull, QuotaExceeded].contains(&error.kind())
}
