//! The names of the files in a data folder.

use std::io;

use super::disk::Disk;
use crate::testing::faults::{self, Point};

/// The file that says whose folder it is.
pub const IDENTITY: &str = "identity.json";
/// The generation of a new folder's log.
pub const FIRST_GENERATION: u64 = 1;

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
pub fn is_unfinished(name: &str) -> bool {
    let whole = name.strip_suffix(".tmp");
    whole.is_some_and(|whole| whole == IDENTITY || is_data(whole))
}

/// The generations of the files of one kind, ascending. A file with any other name, such as `log.1`, is
/// somebody's own.
pub fn generations(names: &[String], kind: &str) -> Vec<u64> {
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
