//! Recovery: reads the newest snapshot and the logs after it.

use std::fmt;
use std::io;
use std::sync::Arc;

use log::{info, warn};

use super::disk::{self, Disk};
use super::entry::LogEntry;
use super::files::{
    FIRST_GENERATION, generations, is_unfinished, log_name, remove_before, snapshot_name,
};
use super::frame::{self, FrameError, Frames};
use super::identity::{Identity, REBUILD};
use super::progress::Progress;
use super::records::Records;
use super::wal::LogPosition;
use crate::protocol::Update;
use crate::protocol::ring::Ring;
use crate::testing::faults;

/// Why a folder cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    Io(io::Error),
    /// The folder belongs to another node or to another cluster.
    Foreign(String),
    /// This log or snapshot is damaged or missing, so votes may be.
    Damaged(String, FrameError),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> OpenError {
        OpenError::Io(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Io(error) => write!(f, "{error}"),
            OpenError::Foreign(text) => f.write_str(text),
            OpenError::Damaged(file, error) => write!(
                f,
                "{file}: {error}. This node may have forgotten votes, so it does not start. \
                 {REBUILD}"
            ),
        }
    }
}

impl std::error::Error for OpenError {}

/// What a folder held.
pub struct Recovered {
    pub records: Records,
    /// Sequence numbers up to this one may have been used.
    pub sequences: u64,
    /// The generation of the next log.
    pub generation: u64,
    /// The length of the logs that no snapshot replaces, in bytes.
    pub log_bytes: u64,
    /// How far the logs were written.
    pub position: LogPosition,
}

/// Reads a folder, cuts a torn frame off, and removes what a crash left unfinished.
///
/// # Errors
/// If the disk fails, or if anything but the last frame is damaged or missing.
pub fn recover(
    disk: &dyn Disk,
    ring: Arc<Ring>,
    identity: &Identity,
    progress: &Progress,
) -> Result<Recovered, OpenError> {
    // A snapshot that is visible may not be durable yet, and the files that it replaces are removed below.
    disk.sync_folder()?;
    let names = remove_unfinished(disk)?;
    let covered = generations(&names, "snapshot").pop().unwrap_or(0);
    let snapshot = (covered > 0).then(|| snapshot_name(covered));
    let logs = generations(&names, "log");
    let current: Vec<u64> = logs.iter().copied().filter(|log| *log >= covered).collect();
    let current_names = current.iter().copied().map(log_name);
    for name in current_names.chain(snapshot.clone()) {
        progress.expect(disk.size(&name)?);
    }
    let mut recovery = Recovery {
        disk,
        identity,
        progress,
        recovered: Recovered {
            records: Records::new(ring),
            sequences: 0,
            generation: logs.last().map_or(FIRST_GENERATION, |last| last + 1),
            log_bytes: 0,
            position: LogPosition::default(),
        },
    };
    if let Some(name) = &snapshot {
        recovery.read_snapshot(name)?;
        if current.is_empty() {
            return Err(OpenError::Damaged(log_name(covered), FrameError::Missing));
        }
    }
    let last_used = last_used(disk, &current)?;
    // Each start and each snapshot begins the next log, so no generation may be missing in between.
    for (expected, log) in (covered.max(FIRST_GENERATION)..).zip(current) {
        if log != expected {
            return Err(OpenError::Damaged(log_name(expected), FrameError::Missing));
        }
        recovery.read_log(log, log >= last_used)?;
    }
    remove_before(disk, covered)?;
    Ok(recovery.recovered)
}

/// Removes the files that a crash left half written. Returns the names of the others.
fn remove_unfinished(disk: &dyn Disk) -> io::Result<Vec<String>> {
    let names = disk.list()?.into_iter();
    let (unfinished, names): (Vec<_>, Vec<_>) = names.partition(|name| is_unfinished(name));
    for name in unfinished {
        disk.remove(&name)?;
    }
    Ok(names)
}

struct Recovery<'a> {
    disk: &'a dyn Disk,
    identity: &'a Identity,
    progress: &'a Progress,
    recovered: Recovered,
}

/// How the frames of a file ended.
struct FileEnd {
    /// Where the last whole frame ends.
    offset: u64,
    /// Whether that frame is the last one that was meant for the file.
    is_complete: bool,
    /// Why the next frame is not whole, if there is one.
    error: Option<FrameError>,
}

impl Recovery<'_> {
    fn read_snapshot(&mut self, name: &str) -> Result<(), OpenError> {
        let content = self.disk.read(name)?;
        let end = self.replay(name, &content)?;
        let offset = content.len() as u64;
        let cut_off = (!end.is_complete).then_some(FrameError::Damaged { offset });
        match end.error.or(cut_off) {
            Some(error) => Err(OpenError::Damaged(name.to_owned(), error)),
            None => Ok(()),
        }
    }

    /// Reads a log. It is the `last` one if nothing was written to any log after it.
    fn read_log(&mut self, log: u64, last: bool) -> Result<(), OpenError> {
        let name = log_name(log);
        let mut content = self.disk.read(&name)?;
        let end = self.replay(&name, &content)?;
        match end.error {
            // The frame was not synced, so nothing in it was acknowledged or seen by anybody.
            Some(FrameError::Torn { offset }) if last => {
                warn!("{name} is cut off at byte {offset}, where a crash interrupted a write")
            }
            Some(error) => return Err(OpenError::Damaged(name, error)),
            None => {}
        }
        if last || !self.identity.logs_end {
            // The last frames may not be on the disk: the process may have ended before their sync, or
            // the sync failed and the operating system took them for written. From now on this node
            // reveals them, so they are written again.
            content.truncate(end.offset as usize);
            if !end.is_complete {
                frame::encode(frame::END, &mut content);
            }
            disk::replace(self.disk, &name, &content)?;
        } else if !end.is_complete {
            let offset = end.offset;
            return Err(OpenError::Damaged(name, FrameError::CutOff { offset }));
        }
        let bytes = end.offset;
        info!("read {bytes} bytes of {name}");
        self.recovered.log_bytes += bytes;
        self.recovered.position = LogPosition { log, bytes };
        Ok(())
    }

    /// Applies the entries of a file, up to the first frame that is not whole.
    fn replay(&mut self, name: &str, content: &[u8]) -> Result<FileEnd, OpenError> {
        let mut end = FileEnd {
            offset: 0,
            is_complete: false,
            error: None,
        };
        let mut frames = Frames::new(content);
        while let Some(frame) = frames.next() {
            match frame {
                Ok(payload) => {
                    end.is_complete = self.replay_frame(name, payload)? || payload == frame::END;
                    self.progress.add(frames.offset() - end.offset);
                    end.offset = frames.offset();
                }
                Err(error) => end.error = Some(error),
            }
        }
        Ok(end)
    }

    /// Applies the entries of a frame. Returns whether it ends a snapshot.
    fn replay_frame(&mut self, name: &str, payload: &[u8]) -> Result<bool, OpenError> {
        faults::slow_read();
        let recovered = &mut self.recovered;
        let records = &mut recovered.records;
        let lines = payload.split(|byte| *byte == b'\n');
        for line in lines.filter(|line| !line.is_empty()) {
            let entry = serde_json::from_slice(line).map_err(|error| {
                let text = format!(
                    "{name}: a line with a good checksum is not understood: {error}. If a newer \
                     release wrote it start that one; otherwise start once with --rebuild"
                );
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?;
            match entry {
                LogEntry::Vote { key, update } => records.apply(&key, update, 0),
                LogEntry::Record { key, record } => {
                    // The state comes first, so that the key is not for a moment one without a value.
                    if let Some(accepted) = record.accepted {
                        records.apply(&key, Update::Accept(accepted), 0);
                    }
                    records.apply(&key, Update::Promise(record.promised), 0);
                }
                LogEntry::Dropped { key, ballot } => records.drop_tombstone(&key, ballot, 0),
                LogEntry::Fence { range, fence } => {
                    let ranges = range.map_or(0..records.ranges(), |range| range..range + 1);
                    ranges.for_each(|range| records.merge_fence(range, &fence, 0));
                }
                LogEntry::Adopted { range, adopted } => records.adopt(range, adopted),
                LogEntry::Sequences(upto) => recovered.sequences = recovered.sequences.max(upto),
                LogEntry::End(count) => return Ok(count == records.count() as u64),
            }
        }
        Ok(false)
    }
}

/// The last log that anything was written to, or 0. All logs before it are whole.
fn last_used(disk: &dyn Disk, logs: &[u64]) -> io::Result<u64> {
    for &log in logs.iter().rev() {
        let content = disk.read(&log_name(log))?;
        if Frames::new(&content).next().is_some() {
            return Ok(log);
        }
    }
    Ok(0)
}
