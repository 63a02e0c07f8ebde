//! The write-ahead log, with group commit: one fdatasync covers all entries that waited for it.
//!
//! A thread that appends an entry gets its number and goes on. The commit thread writes all entries
//! that have gathered as one group, syncs them, and then runs the callbacks that waited for their
//! numbers. The next group gathers while the disk is busy. So a slower disk or a higher load makes
//! larger groups, and not a longer queue of syncs.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::disk::AppendOnlyFile;
use super::frame;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex};
use crate::testing::faults::{self, Point};
use crate::{lock, wait};

/// The log sequence number of an entry. Entries become durable in the order of their numbers, from 1
/// at each start; 0 stands for what was durable before.
pub type Lsn = u64;

/// How far the logs of a folder are durable. It grows with each group, over all starts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Serialize, Deserialize)]
pub struct LogPosition {
    /// The generation of the last log.
    pub log: u64,
    /// How many bytes of it are durable.
    pub bytes: u64,
}

/// What runs once an entry is durable.
pub type Callback = Box<dyn FnOnce() + Send>;

/// A buffer that is larger than this after use shrinks to it, in bytes.
const KEPT_BUFFER: usize = 1 << 20;

/// When the log is synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum SyncMode {
    /// Before writes are acknowledged, a group of them at a time: they survive a loss of power.
    Always,
    /// When the operating system likes: faster, but a loss of power may lose acknowledged writes.
    Os,
}

/// What the commit thread calls.
pub struct Hooks {
    /// Runs the callbacks of a group.
    pub deliver: Box<dyn Fn(Vec<Callback>) + Send>,
    /// Ends the process, because the disk has failed. Nothing is written after that.
    pub failed: Box<dyn Fn(io::Error) + Send>,
}

/// The queue in front of the log, and the thread that writes it.
pub struct WriteAheadLog {
    queue: Arc<(Mutex<AppendQueue>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct AppendQueue {
    /// Entries that are not being written yet, as lines of JSON.
    bytes: Vec<u8>,
    /// The number of the entry that was appended last.
    appended: Lsn,
    /// All entries up to this number are durable.
    durable: Lsn,
    /// Callbacks and the entries that they wait for, ascending by number.
    waiting: VecDeque<(Lsn, Callback)>,
    /// The logs that follow the present one, in order. The next group goes to the last of them.
    next_logs: Vec<Box<dyn AppendOnlyFile>>,
    /// How many bytes of log were written since the last snapshot.
    written: u64,
    position: LogPosition,
    /// Whether the commit thread waits for an entry, and must be woken.
    idle: bool,
    ending: bool,
    failed: bool,
}

impl WriteAheadLog {
    /// Starts the commit thread on the log of this generation. `written` is the length of the older
    /// logs that no snapshot covers, in bytes.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(
        log: Box<dyn AppendOnlyFile>,
        generation: u64,
        sync: SyncMode,
        hooks: Hooks,
        written: u64,
    ) -> io::Result<WriteAheadLog> {
        let position = LogPosition {
            log: generation,
            bytes: 0,
        };
        let queue = Mutex::new(AppendQueue {
            written,
            position,
            ..AppendQueue::default()
        });
        let queue = Arc::new((queue, Condvar::new()));
        let shared = queue.clone();
        let thread = thread::Builder::new()
            .name("commit".into())
            .spawn(move || run(&shared, log, sync, &hooks))?;
        Ok(WriteAheadLog {
            queue,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Queues one entry, and returns its number. `encode` appends it, a line of JSON, to the queue.
    pub fn append(&self, encode: impl FnOnce(&mut Vec<u8>)) -> Lsn {
        let mut queue = lock(&self.queue.0);
        encode(&mut queue.bytes);
        queue.appended += 1;
        if std::mem::take(&mut queue.idle) {
            self.queue.1.notify_one();
        }
        queue.appended
    }

    /// Gives `value` back if all entries up to `lsn` are durable. Otherwise the commit thread calls
    /// `later` with it once they are. If the log fails, both are dropped.
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
        if !queue.failed {
            let place = queue.waiting.partition_point(|(other, _)| *other <= lsn);
            let callback: Callback = Box::new(move || later(value));
            queue.waiting.insert(place, (lsn, callback));
        }
        None
    }

    /// Sends all entries that are appended from now on to another log, of the next generation.
    pub fn switch_log(&self, log: Box<dyn AppendOnlyFile>) {
        let mut queue = lock(&self.queue.0);
        queue.next_logs.push(log);
        queue.written = 0;
    }

    /// The number of the entry that was appended last.
    pub fn appended(&self) -> Lsn {
        lock(&self.queue.0).appended
    }

    /// How many bytes wait to be written, and how many callbacks wait for the disk.
    pub fn backlog(&self) -> (usize, usize) {
        let queue = lock(&self.queue.0);
        (queue.bytes.len(), queue.waiting.len())
    }

    /// All entries up to this number are durable.
    pub fn durable(&self) -> Lsn {
        lock(&self.queue.0).durable
    }

    /// How far the log is durable.
    pub fn position(&self) -> LogPosition {
        lock(&self.queue.0).position
    }

    /// How many bytes of log were written since the last snapshot.
    pub fn written(&self) -> u64 {
        lock(&self.queue.0).written
    }

    /// Writes and syncs the queue, and ends the thread.
    pub fn end(&self) {
        lock(&self.queue.0).ending = true;
        self.queue.1.notify_one();
        let thread = lock(&self.thread).take();
        // A panic of the commit thread has been reported already.
        drop(thread.map(|thread| thread.join()));
    }
}

/// The commit thread.
fn run(
    shared: &(Mutex<AppendQueue>, Condvar),
    mut log: Box<dyn AppendOnlyFile>,
    sync: SyncMode,
    hooks: &Hooks,
) {
    let queue = &shared.0;
    let mut payload = Vec::new();
    let mut frame = Vec::new();
    while gather(shared) {
        let mut gathered = lock(queue);
        std::mem::swap(&mut payload, &mut gathered.bytes);
        let upto = gathered.appended;
        let next_logs = std::mem::take(&mut gathered.next_logs);
        let mut position = gathered.position;
        drop(gathered);
        frame::encode(&payload, &mut frame);
        let written = next_logs.into_iter().try_for_each(|next| {
            position.log += 1;
            position.bytes = 0;
            close(std::mem::replace(&mut log, next))
        });
        if let Err(error) = written.and_then(|()| write(log.as_mut(), &frame, sync)) {
            return fail(queue, error, hooks);
        }
        let bytes = frame.len() as u64;
        position.bytes += bytes;
        for buffer in [&mut payload, &mut frame] {
            buffer.clear();
            buffer.shrink_to(KEPT_BUFFER);
        }
        let mut committed = lock(queue);
        committed.durable = upto;
        committed.written += bytes;
        committed.position = position;
        let ready = committed.waiting.partition_point(|(lsn, _)| *lsn <= upto);
        let ready = committed.waiting.drain(..ready);
        let ready = ready.map(|(_, callback)| callback).collect();
        drop(committed);
        (hooks.deliver)(ready);
    }
}

/// Waits until an entry is queued. Returns false if the log ends and nothing is left to write.
fn gather((queue, wake): &(Mutex<AppendQueue>, Condvar)) -> bool {
    let mut queue = lock(queue);
    while queue.bytes.is_empty() {
        if queue.ending {
            return false;
        }
        queue.idle = true;
        queue = wait(wake, queue);
    }
    queue.idle = false;
    drop(queue);
    // Threads that are ready to append get into this group, and need no sync of their own.
    thread::yield_now();
    true
}

/// Drops all callbacks without running them, because their entries may not be on the disk. An owner
/// of a callback may notice that.
fn fail(queue: &Mutex<AppendQueue>, error: io::Error, hooks: &Hooks) {
    let mut failed = lock(queue);
    failed.failed = true;
    let waiting = std::mem::take(&mut failed.waiting);
    drop(failed);
    (hooks.failed)(error);
    drop(waiting);
}

/// Ends a log that is followed by another. It is synced in each mode, because a later start in
/// another mode takes all logs but the last for whole.
fn close(mut log: Box<dyn AppendOnlyFile>) -> io::Result<()> {
    let mut end = Vec::new();
    frame::encode(frame::END, &mut end);
    log.append(&end)?;
    log.sync()
}

fn write(log: &mut dyn AppendOnlyFile, frame: &[u8], sync: SyncMode) -> io::Result<()> {
    log.append(frame)?;
    faults::pass(Point::LogAppended);
    if sync == SyncMode::Always {
        log.sync()?;
    }
    faults::pass(Point::LogSynced);
    Ok(())
}
