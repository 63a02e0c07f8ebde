//! Starting: reads the newest snapshot and the logs after it.

use std::io;
use std::mem;
use std::sync::Arc;

use log::{info, warn};
use serde::{Deserialize, Serialize};

use super::disk::{self, Disk};
use super::frame::{self, Broken, Frames};
use super::identity::{self, Identity};
use super::log::Position;
use super::records::Records;
use super::{OpenError, Progress};
use crate::bytes::Key;
use crate::protocol::ring::Ring;
use crate::protocol::{Ballot, Fence, Record, Update};
use crate::testing::faults::{self, Point};

/// One line of the log or of a snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A vote: in the log.
    Vote { key: Key, update: Update },
    /// A whole record: in a snapshot.
    Record { key: Key, record: Record },
    /// A tombstone that every replica of its key holds or is past, or a promise alone, at
    /// [`Ballot::ZERO`]: in the log.
    Dropped { key: Key, ballot: Ballot },
    /// What stands for the keys that were dropped.
    Fence(Fence),
    /// This node may number its writes up to here.
    Sequences(u64),
    /// The last line of a snapshot, with the number of its records.
    End(u64),
}

impl Line {
    /// Appends the line to `out`, with its line feed.
    pub fn encode(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(&mut *out, self)
            .expect("maps have text keys, and a vector takes all");
        out.push(b'\n');
    }
}

/// The generation of a new folder's log.
pub const FIRST_GENERATION: u64 = 1;

/// What a folder held.
pub struct Recovered {
    pub records: Records,
    /// Sequence numbers up to this one may have been used.
    pub sequences: u64,
    /// The generation of the next log.
    pub generation: u64,
    /// Bytes of log that a snapshot would save.
    pub log_bytes: u64,
    /// How far the logs were written.
    pub position: Position,
}

/// The log that votes of one generation go to.
pub fn log_name(generation: u64) -> String {
    name("log", generation)
}

/// The snapshot that stands for all logs before `generation`.
pub fn snapshot_name(generation: u64) -> String {
    name("snapshot", generation)
}

fn name(kind: &str, generation: u64) -> String {
    format!("{kind}.{generation:06}")
}

/// Whether a file is a log or a snapshot, finished or not.
pub fn is_data(name: &str) -> bool {
    let name = [name.strip_suffix(".tmp").unwrap_or(name).to_owned()];
    !generations(&name, "log").is_empty() || !generations(&name, "snapshot").is_empty()
}

/// Whether a file is one of ours that a crash left half written.
fn is_unfinished(name: &str) -> bool {
    let whole = name.strip_suffix(".tmp");
    whole.is_some_and(|whole| whole == identity::FILE || is_data(whole))
}

/// A file with any other name, such as `log.1`, is somebody's own, and nobody's business here.
fn generations(names: &[String], kind: &str) -> Vec<u64> {
    let generation = |file: &String| {
        let generation = file.strip_prefix(kind)?.strip_prefix('.')?.parse().ok()?;
        (*file == name(kind, generation)).then_some(generation)
    };
    let mut found: Vec<u64> = names.iter().filter_map(generation).collect();
    found.sort_unstable();
    found
}

/// Removes the logs and snapshots that the snapshot of this generation stands for.
pub fn remove_before(disk: &dyn Disk, generation: u64) -> io::Result<()> {
    let names = disk.list()?;
    let obsolete = |kind| {
        let found = generations(&names, kind).into_iter();
        found.filter(|old| *old < generation)
    };
    let logs = obsolete("log").map(log_name);
    for name in logs.chain(obsolete("snapshot").map(snapshot_name)) {
        disk.remove(&name)?;
        faults::pass(Point::SnapshotOldRemoved);
    }
    Ok(())
}

/// Reads everything back, cuts a torn tail off, and removes what a crash left half done.
pub fn recover(
    disk: &dyn Disk,
    ring: Arc<Ring>,
    identity: &Identity,
    progress: &Progress,
) -> Result<Recovered, OpenError> {
    // A name that is seen here may not be durable yet, and what it replaces is removed below.
    disk.sync_folder()?;
    let (unfinished, names): (Vec<_>, Vec<_>) = disk
        .list()?
        .into_iter()
        .partition(|name| is_unfinished(name));
    for name in unfinished {
        disk.remove(&name)?;
    }
    let mut recovered = Recovered {
        records: Records::new(ring),
        sequences: 0,
        generation: FIRST_GENERATION,
        log_bytes: 0,
        position: Position::default(),
    };
    let snapshots = generations(&names, "snapshot");
    let covered = snapshots.last().copied().unwrap_or(0);
    let logs = generations(&names, "log");
    let current: Vec<u64> = logs.iter().copied().filter(|log| *log >= covered).collect();
    let snapshot = (covered > 0).then(|| snapshot_name(covered));
    for name in snapshot
        .into_iter()
        .chain(current.iter().copied().map(log_name))
    {
        progress.expect(disk.size(&name)?);
    }
    if covered > 0 {
        recovered.read_snapshot(disk, covered, progress)?;
    }
    let (last_used, mut last_content) = last_used(disk, &current)?;
    // Each start and each snapshot begins the next log, so none between the first and the last may
    // be missing.
    for (place, &log) in current.iter().enumerate() {
        let expected = covered.max(FIRST_GENERATION) + place as u64;
        if log != expected {
            return Err(OpenError::damaged(&log_name(expected), Broken::Missing));
        }
        let content = if log == last_used {
            mem::take(&mut last_content)
        } else {
            disk.read(&log_name(log))?
        };
        let end = recovered.read_log(disk, identity, log, content, log >= last_used, progress)?;
        recovered.position = Position { log, bytes: end };
        info!("{}: read {end} bytes of {}", identity.node, log_name(log));
    }
    if covered > 0 && current.is_empty() {
        return Err(OpenError::damaged(&log_name(covered), Broken::Missing));
    }
    remove_before(disk, covered)?;
    if let Some(last) = logs.last() {
        recovered.generation = last + 1;
    }
    Ok(recovered)
}

impl Recovered {
    fn read_snapshot(
        &mut self,
        disk: &dyn Disk,
        generation: u64,
        progress: &Progress,
    ) -> Result<(), OpenError> {
        let name = snapshot_name(generation);
        let content = disk.read(&name)?;
        let (mut end, mut ended) = (0, false);
        let mut frames = Frames::new(&content);
        while let Some(frame) = frames.next() {
            let payload = frame.map_err(|broken| OpenError::damaged(&name, broken))?;
            ended |= self.replay(&name, payload)?;
            progress.add(frames.offset() - end);
            end = frames.offset();
        }
        if !ended {
            let offset = content.len() as u64;
            return Err(OpenError::damaged(&name, Broken::Damaged { offset }));
        }
        Ok(())
    }

    /// Reads a log, and returns how long it is; `last` if nothing was written to any log after it.
    fn read_log(
        &mut self,
        disk: &dyn Disk,
        identity: &Identity,
        log: u64,
        content: Vec<u8>,
        last: bool,
        progress: &Progress,
    ) -> Result<u64, OpenError> {
        let name = log_name(log);
        let (mut end, mut ended) = (0, false);
        let mut frames = Frames::new(&content);
        while let Some(frame) = frames.next() {
            match frame {
                Ok(payload) => {
                    ended = payload == frame::END;
                    self.log_bytes += payload.len() as u64;
                    self.replay(&name, payload)?;
                    progress.add(frames.offset() - end);
                    end = frames.offset();
                }
                // What was not synced was not acknowledged: nobody has seen any of it.
                Err(Broken::Torn { offset }) if last => {
                    warn!(
                        "{}: {name} is cut off at byte {offset}, where a crash interrupted a write",
                        identity.node
                    );
                }
                Err(broken) => return Err(OpenError::damaged(&name, broken)),
            }
        }
        if last || !identity.logs_end {
            // The end of the process may have left the last frames with the operating system
            // alone, or a failed sync marked as written what is not. They are told from now on,
            // so they are written anew.
            let mut whole = content;
            whole.truncate(end as usize);
            if !ended {
                frame::encode(frame::END, &mut whole);
            }
            disk::replace(disk, &name, &whole)?;
        } else if !ended {
            return Err(OpenError::damaged(&name, Broken::CutOff { offset: end }));
        }
        Ok(end)
    }

    /// Returns whether the payload ends a snapshot.
    fn replay(&mut self, name: &str, payload: &[u8]) -> Result<bool, OpenError> {
        faults::slow_read();
        for line in payload
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let line: Line = serde_json::from_slice(line).map_err(|error| {
                let text = format!(
                    "{name}: a line with a good checksum is not understood: {error}. If a newer \
                     release wrote it start that one; otherwise start once with --rebuild"
                );
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?;
            match line {
                Line::Vote { key, update } => self.records.apply(&key, update, 0),
                Line::Record { key, record } => {
                    // A record without a value is one more in a set.
                    if let Some(accepted) = record.accepted {
                        self.records.apply(&key, Update::Accept(accepted), 0);
                    }
                    self.records
                        .apply(&key, Update::Promise(record.promised), 0);
                }
                Line::Dropped { key, ballot } => self.records.drop_tombstone(&key, ballot, 0),
                Line::Fence(fence) => self.records.merge_fence(&fence, 0),
                Line::Sequences(upto) => self.sequences = self.sequences.max(upto),
                Line::End(count) => return Ok(count == self.records.count() as u64),
            }
        }
        Ok(false)
    }
}

/// The last log that anything was written to, and what is in it, or 0: all before it are whole.
fn last_used(disk: &dyn Disk, logs: &[u64]) -> io::Result<(u64, Vec<u8>)> {
    for &log in logs.iter().rev() {
        let content = disk.read(&log_name(log))?;
        if Frames::new(&content).next().is_some() {
            return Ok((log, content));
        }
    }
    Ok((0, Vec::new()))
}
