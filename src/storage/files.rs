//! The names of the files in a data folder.

use std::io;

use super::disk::Disk;
use crate::testing::faults::{self, Point};

/// The file that says which node and cluster the folder belongs to.
pub const IDENTITY: &str = "identity.json";
/// The generation of the first log of a new folder.
pub const FIRST_GENERATION: u64 = 1;

/// The log of a generation.
pub fn log_name(generation: u64) -> String {
    name("log", generation)
}

/// The snapshot that replaces all logs before `generation`.
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

/// Whether a file is one of the store that a crash left half written.
pub fn is_unfinished(name: &str) -> bool {
    let whole = name.strip_suffix(".tmp");
    whole.is_some_and(|whole| whole == IDENTITY || is_data(whole))
}

/// The generations of the files of one kind, `log` or `snapshot`, ascending. A file with a similar
/// name, such as `log.1`, is not the store's own, and is left alone.
pub fn generations(names: &[String], kind: &str) -> Vec<u64> {
    let generation = |file: &String| {
        let generation = file.strip_prefix(kind)?.strip_prefix('.')?.parse().ok()?;
        (*file == name(kind, generation)).then_some(generation)
    };
    let mut found: Vec<u64> = names.iter().filter_map(generation).collect();
    found.sort_unstable();
    found
}

/// Removes the logs and snapshots that the snapshot of this generation replaces.
pub fn remove_before(disk: &dyn Disk, generation: u64) -> io::Result<()> {
    let names = disk.list()?;
    for kind in ["log", "snapshot"] {
        let found = generations(&names, kind).into_iter();
        for obsolete in found.filter(|found| *found < generation) {
            disk.remove(&name(kind, obsolete))?;
            faults::pass(Point::SnapshotOldRemoved);
        }
    }
    Ok(())
}
