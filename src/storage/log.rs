//! Group commit: one fdatasync covers all that waited for it.
//!
//! Whoever appends gets a number and goes on; the commit thread writes what has gathered, syncs
//! it, and then runs what waited for these numbers. While the disk is busy the next group
//! gathers, so a slower disk or a higher load makes larger groups, not a longer queue of syncs.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::disk::Appender;
use super::frame;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex};
use crate::testing::faults::{self, Point};
use crate::{lock, wait};

/// The number of an appended entry; entries become durable in the order of their numbers.
pub type Lsn = u64;

/// How far the logs of a folder are written, durably: it grows with each group, over all starts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Serialize, Deserialize)]
pub struct Position {
    /// The number of the last log.
    pub log: u64,
    /// How many bytes of it.
    pub bytes: u64,
}

/// What waits for an entry to be durable.
pub type Callback = Box<dyn FnOnce() + Send>;

/// A buffer larger than this is given back to the allocator after use, in bytes.
const KEPT_BUFFER: usize = 1 << 20;

/// Whether the log waits for the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncMode {
    /// Each group is synced before it is told: survives the loss of power.
    Always,
    /// The operating system syncs when it likes: survives the end of the process only.
    Os,
}

/// How the commit thread meets the world outside.
pub struct Hooks {
    /// Runs a group's callbacks.
    pub deliver: Box<dyn Fn(Vec<Callback>) + Send>,
    /// The disk failed; nothing is written any more. Expected to end the process.
    pub failed: Box<dyn Fn(io::Error) + Send>,
}

/// The queue in front of the log, and the thread behind it.
pub struct GroupCommit {
    queue: Arc<(Mutex<Queue>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    /// Entries that are not being written yet, as lines of JSON.
    bytes: Vec<u8>,
    appended: Lsn,
    durable: Lsn,
    /// What waits, by ascending numbers.
    waiting: VecDeque<(Lsn, Callback)>,
    /// The logs that follow, each on the one before it; the next group goes to the last.
    next_logs: Vec<Box<dyn Appender>>,
    written: u64,
    position: Position,
    /// Whether the commit thread waits for an entry, and must be woken.
    idle: bool,
    ending: bool,
    failed: bool,
}

impl GroupCommit {
    /// Starts the commit thread on the log of this number, after `written` bytes in older logs.
    pub fn start(
        log: Box<dyn Appender>,
        number: u64,
        sync: SyncMode,
        hooks: Hooks,
        written: u64,
    ) -> io::Result<GroupCommit> {
        let position = Position {
            log: number,
            bytes: 0,
        };
        let queue = Arc::new((
            Mutex::new(Queue {
                written,
                position,
                ..Queue::default()
            }),
            Condvar::new(),
        ));
        let shared = queue.clone();
        let thread = thread::Builder::new()
            .name("commit".into())
            .spawn(move || run(&shared, log, sync, &hooks))?;
        Ok(GroupCommit {
            queue,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Queues one entry, a line of JSON, which `encode` appends to what is queued already.
    pub fn append(&self, encode: impl FnOnce(&mut Vec<u8>)) -> Lsn {
        let mut queue = lock(&self.queue.0);
        encode(&mut queue.bytes);
        queue.appended += 1;
        if std::mem::take(&mut queue.idle) {
            self.queue.1.notify_one();
        }
        queue.appended
    }

    /// Gives `value` back if everything up to `lsn` is durable. Otherwise `later` gets it on the commit
    /// thread, once that is so. Drops both if the log fails.
    pub fn when_durable<T: Send + 'static>(
        &self,
        lsn: Lsn,
        value: T,
        later: impl FnOnce(T) + Send + 'static,
    ) -> Option<T> {
        let mut queue = lock(&self.queue.0);
        if lsn <= queue.durable {
            return Some(value);
        }
        if queue.failed {
            return None;
        }
        let place = queue
            .waiting
            .partition_point(|(waiting, _)| *waiting <= lsn);
        let callback: Callback = Box::new(move || later(value));
        queue.waiting.insert(place, (lsn, callback));
        None
    }

    /// Lets everything that is appended from now on go to another log.
    pub fn switch_log(&self, log: Box<dyn Appender>) {
        let mut queue = lock(&self.queue.0);
        queue.next_logs.push(log);
        queue.written = 0;
    }

    /// The number of the last entry that was appended.
    pub fn appended(&self) -> Lsn {
        lock(&self.queue.0).appended
    }

    /// How many bytes wait to be written, and how many callbacks for the disk.
    pub fn backlog(&self) -> (usize, usize) {
        let queue = lock(&self.queue.0);
        (queue.bytes.len(), queue.waiting.len())
    }

    /// The number up to which all entries are durable.
    pub fn durable(&self) -> Lsn {
        lock(&self.queue.0).durable
    }

    /// How far the log is durable.
    pub fn position(&self) -> Position {
        lock(&self.queue.0).position
    }

    /// Bytes written since the last snapshot.
    pub fn written(&self) -> u64 {
        lock(&self.queue.0).written
    }

    /// Writes and syncs what is queued, and ends the thread.
    pub fn end(&self) {
        lock(&self.queue.0).ending = true;
        self.queue.1.notify_one();
        let thread = lock(&self.thread).take();
        // A panic of the commit thread has been reported by itself.
        drop(thread.map(|thread| thread.join()));
    }
}

fn run(
    shared: &(Mutex<Queue>, Condvar),
    mut log: Box<dyn Appender>,
    sync: SyncMode,
    hooks: &Hooks,
) {
    let queue = &shared.0;
    let mut payload = Vec::new();
    let mut frame = Vec::new();
    let mut position = lock(queue).position;
    while gather(shared) {
        let mut gathered = lock(queue);
        std::mem::swap(&mut payload, &mut gathered.bytes);
        let upto = gathered.appended;
        let next_logs = std::mem::take(&mut gathered.next_logs);
        drop(gathered);
        for next in next_logs {
            let ended = std::mem::replace(&mut log, next);
            if let Err(error) = close(ended) {
                return fail(queue, error, hooks);
            }
            position.log += 1;
            position.bytes = 0;
        }
        frame::encode(&payload, &mut frame);
        if let Err(error) = write(log.as_mut(), &frame, sync) {
            return fail(queue, error, hooks);
        }
        let written = frame.len() as u64;
        position.bytes += written;
        for buffer in [&mut payload, &mut frame] {
            buffer.clear();
            buffer.shrink_to(KEPT_BUFFER);
        }
        let mut gathered = lock(queue);
        gathered.durable = upto;
        gathered.written += written;
        gathered.position = position;
        let ready = gathered.waiting.partition_point(|(lsn, _)| *lsn <= upto);
        let ready: Vec<_> = gathered
            .waiting
            .drain(..ready)
            .map(|(_, callback)| callback)
            .collect();
        drop(gathered);
        (hooks.deliver)(ready);
    }
}

/// Waits until an entry is queued; false if nothing is left to write at the end.
fn gather((queue, wake): &(Mutex<Queue>, Condvar)) -> bool {
    let mut gathered = lock(queue);
    while gathered.bytes.is_empty() && !gathered.ending {
        gathered.idle = true;
        gathered = wait(wake, gathered);
    }
    gathered.idle = false;
    if gathered.ending && gathered.bytes.is_empty() {
        return false;
    }
    drop(gathered);
    // Whoever is ready to append gets into this group.
    thread::yield_now();
    true
}

/// What waits for the log is never run; whoever owns it may notice that it is dropped.
fn fail(queue: &Mutex<Queue>, error: io::Error, hooks: &Hooks) {
    let mut failed = lock(queue);
    failed.failed = true;
    let waiting = std::mem::take(&mut failed.waiting);
    drop(failed);
    (hooks.failed)(error);
    drop(waiting);
}

/// Ends a log that another follows. It is synced whatever the mode: a later start in another mode relies
/// on it.
fn close(mut log: Box<dyn Appender>) -> io::Result<()> {
    let mut end = Vec::new();
    frame::encode(frame::END, &mut end);
    log.append(&end)?;
    log.sync()
}

fn write(log: &mut dyn Appender, frame: &[u8], sync: SyncMode) -> io::Result<()> {
    log.append(frame)?;
    faults::pass(Point::LogAppended);
    if sync == SyncMode::Always {
        log.sync()?;
    }
    faults::pass(Point::LogSynced);
    Ok(())
}
