//! Faults that tests of whole processes cause on purpose. The environment of `dynamo node` names them.
//!
//! - `DYNAMO_CRASH_AT=POINT:COUNT`: the process ends as by `kill -9` when it passes the [`Point`] for
//!   the COUNT-th time.
//! - `DYNAMO_SLOW_DISK=FILE`: before each sync the process sleeps as many milliseconds as the file says
//!   at that moment. It does not sleep while there is no file.
//! - `DYNAMO_SLOW_READ=FILE`: a start sleeps in the same way before it reads what one sync wrote.
//! - `DYNAMO_DISK_FULL=FILE`: while the file exists, an append writes only half of its bytes and fails
//!   for lack of space.
//! - `DYNAMO_SNAPSHOT_AFTER=BYTES`: a snapshot is due when the log is this long.
//!
//! In a build without debug assertions there are no faults: for the compiler these functions are constants.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};

/// A place in the code at which a process can be made to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub enum Point {
    /// A group of entries is in the log, and not synced.
    LogAppended,
    /// A group of entries is durable, and no vote of it has been sent.
    LogSynced,
    /// A snapshot has begun: its new log exists, but perhaps not after a loss of power.
    SnapshotLogCreated,
    /// The new log is in use, and nothing of the snapshot is written.
    SnapshotLogSwitched,
    /// The whole snapshot is in its temporary file, and not synced.
    SnapshotWritten,
    /// The temporary file is durable, and not renamed.
    SnapshotSynced,
    /// The snapshot has its name, but perhaps not after a loss of power.
    SnapshotRenamed,
    /// The snapshot is durable, and the old log is still there.
    SnapshotDurable,
    /// One of the old files is gone.
    SnapshotOldRemoved,
    /// A coordinator has received a promise, and not counted it.
    PromiseHeard,
    /// A coordinator has received an accept's vote, and not counted it.
    AcceptHeard,
    /// A proposer has received a member's word that it has adopted the epoch, and not counted it.
    AdoptHeard,
    /// A proposer has seen what all members hold, and has renewed nothing. Or a member has taken what the proposer
    /// gives, and has not said so.
    Collected,
    /// A proposer has received a member's word that it holds what the proposer holds, and not counted it.
    GiveHeard,
    /// A member of a chain has received the next one's word that all behind hold a state, and told nobody.
    PassHeard,
    /// A tail has received another member's yes, and has not answered the reads that wait for it.
    ConfirmHeard,
    /// A coordinator, or a member of a chain, has carried a request out, and has not answered.
    Decided,
}

/// How often a slow disk reads its file again.
const STEP: Duration = Duration::from_millis(20);

struct Armed {
    /// The point at which to end the process, and how many passings are left until then.
    crash: Option<(Point, AtomicU64)>,
    slow_disk: Option<PathBuf>,
    slow_read: Option<PathBuf>,
    disk_full: Option<PathBuf>,
    snapshot_after: Option<u64>,
}

static ARMED: OnceLock<Armed> = OnceLock::new();

/// What the environment demands. It demands nothing in a build without debug assertions.
fn armed() -> Option<&'static Armed> {
    cfg!(debug_assertions).then(|| ARMED.get())?
}

/// Reads the environment.
///
/// # Errors
/// A variable is wrong, or this is the second call.
pub fn arm() -> Result<(), String> {
    let file = |name| std::env::var_os(name).map(PathBuf::from);
    let read = |name| std::env::var(name).ok();
    let crash = read("DYNAMO_CRASH_AT")
        .map(|text| crash_at(&text).ok_or(format!("DYNAMO_CRASH_AT={text} is no POINT:COUNT")));
    let snapshot_after = read("DYNAMO_SNAPSHOT_AFTER").map(|text| {
        let wrong = |_| format!("DYNAMO_SNAPSHOT_AFTER={text} is no number of bytes");
        text.parse().map_err(wrong)
    });
    let armed = Armed {
        crash: crash.transpose()?,
        slow_disk: file("DYNAMO_SLOW_DISK"),
        slow_read: file("DYNAMO_SLOW_READ"),
        disk_full: file("DYNAMO_DISK_FULL"),
        snapshot_after: snapshot_after.transpose()?,
    };
    ARMED.set(armed).map_err(|_| "armed twice".to_owned())
}

fn crash_at(text: &str) -> Option<(Point, AtomicU64)> {
    let (name, count) = text.split_once(':')?;
    let name: StrDeserializer<ValueError> = name.into_deserializer();
    let point = Point::deserialize(name).ok()?;
    let count: u64 = count.parse().ok()?;
    (count > 0).then_some((point, AtomicU64::new(count)))
}

/// Ends the process if this is the passing at which it shall end.
pub fn pass(point: Point) {
    let Some((at, left)) = armed().and_then(|armed| armed.crash.as_ref()) else {
        return;
    };
    if *at == point && left.fetch_sub(1, Ordering::Relaxed) == 1 {
        eprintln!("crash point {point:?}");
        let killed = kill_process(getpid(), Signal::KILL);
        unreachable!("kill -9 of oneself: {killed:?}");
    }
}

/// Makes a sync as slow as the environment demands.
pub fn slow_down() {
    sleep_as_demanded(armed().and_then(|armed| armed.slow_disk.as_ref()));
}

/// Makes a start as slow as the environment demands.
pub fn slow_read() {
    sleep_as_demanded(armed().and_then(|armed| armed.slow_read.as_ref()));
}

fn sleep_as_demanded(file: Option<&PathBuf>) {
    let read = || std::fs::read_to_string(file?).ok()?.trim().parse().ok();
    let began = Instant::now();
    while let Some(left) =
        read().and_then(|millis: u64| Duration::from_millis(millis).checked_sub(began.elapsed()))
    {
        std::thread::sleep(left.min(STEP));
    }
}

/// Whether an append shall fail for lack of space.
pub fn disk_is_full() -> bool {
    let file = armed().and_then(|armed| armed.disk_full.as_ref());
    file.is_some_and(|file| file.exists())
}

/// The length of the log, in bytes, after which a snapshot is due.
pub fn snapshot_after() -> Option<u64> {
    armed().and_then(|armed| armed.snapshot_after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_point_has_a_name_and_a_count() {
        let (point, left) = crash_at("LogSynced:3").unwrap();
        assert_eq!((point, left.into_inner()), (Point::LogSynced, 3));
        for wrong in ["LogSynced", "LogSynced:", "LogSynced:0", "Nowhere:1", ""] {
            assert!(crash_at(wrong).is_none(), "{wrong}");
        }
    }
}
