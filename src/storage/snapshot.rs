//! Snapshots: the records as they are, in place of the logs that led to them.
//!
//! The steps, each safe to crash after: switch to a new log; write all records to a temporary
//! file; wait until the log is durable so far; sync the file; rename it; sync the folder; remove
//! the older logs and snapshots. Records that change meanwhile are both in the snapshot and in the
//! new log, and replaying them again changes nothing.

use std::io;
use std::sync::Mutex;

use super::disk::{Appender, Disk};
use super::entry::LogEntry;
use super::files::{self, snapshot_name};
use super::frame;
use super::records::Records;
use crate::lock;
use crate::testing::faults::{self, Point};

/// Records that are copied under one hold of the lock.
const CHUNK: usize = 500;

/// Writes the snapshot that stands for all logs before `generation`; returns its bytes.
/// `log_is_durable` waits until all that was appended before is.
pub fn write(
    disk: &dyn Disk,
    records: &Mutex<Records>,
    sequences: u64,
    generation: u64,
    log_is_durable: impl FnOnce() -> io::Result<()>,
) -> io::Result<u64> {
    let name = snapshot_name(generation);
    let temporary = format!("{name}.tmp");
    let written = write_temporary(disk, &temporary, records, sequences, log_is_durable);
    if written.is_err() {
        // It may be there or not, and a start removes it.
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

fn write_temporary(
    disk: &dyn Disk,
    name: &str,
    records: &Mutex<Records>,
    sequences: u64,
    log_is_durable: impl FnOnce() -> io::Result<()>,
) -> io::Result<u64> {
    let mut file = disk.create(name, 0)?;
    let mut bytes = append(file.as_mut(), &[LogEntry::Sequences(sequences)])?;
    let mut last = None;
    let mut count = 0;
    loop {
        let (chunk, _) = lock(records).page(last.as_ref(), CHUNK);
        let Some((key, _)) = chunk.last() else { break };
        last = Some(key.clone());
        count += chunk.len() as u64;
        let lines: Vec<_> = chunk
            .into_iter()
            .map(|(key, record)| LogEntry::Record { key, record })
            .collect();
        bytes += append(file.as_mut(), &lines)?;
    }
    // After the records: what has been dropped meanwhile is in none of them.
    let fence = lock(records).fence().clone();
    bytes += append(
        file.as_mut(),
        &[LogEntry::Fence(fence), LogEntry::End(count)],
    )?;
    // A drop that is shown here and lost from the log would leave there what came before it.
    log_is_durable()?;
    faults::pass(Point::SnapshotWritten);
    file.sync()?;
    faults::pass(Point::SnapshotSynced);
    Ok(bytes)
}

fn append(file: &mut dyn Appender, lines: &[LogEntry]) -> io::Result<u64> {
    let mut payload = Vec::new();
    lines.iter().for_each(|line| line.encode(&mut payload));
    let mut framed = Vec::new();
    frame::encode(&payload, &mut framed);
    file.append(&framed)?;
    Ok(framed.len() as u64)
}
