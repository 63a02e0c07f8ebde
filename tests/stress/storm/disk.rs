//! Whether the machine's disk stands still by itself, since other programs use it, too.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde::Serialize;

/// The pause between two syncs.
const PAUSE: Duration = Duration::from_millis(20);
/// A sync that takes longer than this, in microseconds, is a stall: mostly it takes one or two
/// milliseconds.
const STALL: u64 = 100_000;

/// A time in which a sync did not come to its end. Microseconds of the history.
#[derive(Clone, Debug, Serialize)]
pub struct Stall {
    pub began: u64,
    pub ended: u64,
}

/// Writes a little and syncs again and again, until `stop`. Returns the times in which that took long.
pub fn watch(folder: &Path, now: impl Fn() -> u64, stop: &AtomicBool) -> io::Result<Vec<Stall>> {
    let mut file = File::create(folder.join("disk-watch"))?;
    let mut stalls = Vec::new();
    let mut last = now();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(PAUSE);
        let asked = now();
        file.write_all(b"a line as a log might hold it\n")?;
        file.sync_data()?;
        let ended = now();
        if ended - asked > STALL {
            // The stall may have begun as soon as the sync before had ended.
            stalls.push(Stall { began: last, ended });
        }
        last = ended;
    }
    Ok(stalls)
}
