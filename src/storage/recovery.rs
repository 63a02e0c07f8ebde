//! Starting: reads the newest snapshot and the logs after it.

use std::io;
use std::mem;
use std::sync::Arc;

use log::{info, warn};

use super::disk::{self, Disk};
use super::entry::LogEntry;
use super::files::{
    FIRST_GENERATION, generations, is_unfinished, log_name, remove_before, snapshot_name,
};
use super::frame::{self, Broken, Frames};
use super::identity::Identity;
use super::log::Position;
use super::records::Records;
use super::{OpenError, Progress};
use crate::protocol::Update;
use crate::protocol::ring::Ring;
use crate::testing::faults;

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
            let line: LogEntry = serde_json::from_slice(line).map_err(|error| {
                let text = format!(
                    "{name}: a line with a good checksum is not understood: {error}. If a newer \
                     release wrote it start that one; otherwise start once with --rebuild"
                );
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?;
            match line {
                LogEntry::Vote { key, update } => self.records.apply(&key, update, 0),
                LogEntry::Record { key, record } => {
                    // A record without a value is one more in a set.
                    if let Some(accepted) = record.accepted {
                        self.records.apply(&key, Update::Accept(accepted), 0);
                    }
                    self.records
                        .apply(&key, Update::Promise(record.promised), 0);
                }
                LogEntry::Dropped { key, ballot } => self.records.drop_tombstone(&key, ballot, 0),
                LogEntry::Fence(fence) => self.records.merge_fence(&fence, 0),
                LogEntry::Sequences(upto) => self.sequences = self.sequences.max(upto),
                LogEntry::End(count) => return Ok(count == self.records.count() as u64),
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
