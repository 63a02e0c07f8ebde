//! The sending side of a connection, shared by all threads that have something to send.
//!
//! A thread that sends appends to a queue. If nobody is writing it writes, all that is queued
//! with one system call, until the queue is empty; otherwise whoever writes takes its bytes
//! along. Nobody waits for a slow receiver: what does not fit the socket's buffer is left to a
//! thread that lives only as long as the rest.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use log::debug;

use super::budget::{Budget, Share};
use super::socket::{TcpStream, send_without_waiting};
use crate::sync::{AtomicBool, Condvar, Mutex, thread, thread_local};
use crate::{lock, wait};

/// A receiver that takes nothing for so long, and has not been [heard](Outgoing::heard) meanwhile, loses
/// its connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A buffer larger than this is given back to the allocator after use, in bytes.
const KEPT_BUFFER: usize = 64 << 10;
/// A batch that has queued so many bytes for a connection writes them at once: the receiver takes
/// silence for a failure, and has something to do meanwhile.
const MOST_HELD_BACK: usize = 64 << 10;

/// The sending side of one connection.
pub struct Outgoing {
    stream: TcpStream,
    queue: Mutex<Queue>,
    drained: Condvar,
    /// Whether the receiver has sent something since it was last waited for in vain.
    heard: AtomicBool,
}

struct Queue {
    bytes: Vec<u8>,
    /// How many bytes the operating system has not taken yet: these, and those being written.
    waiting: usize,
    /// The part of a budget that they take.
    share: Share,
    writing: bool,
    closed: bool,
    /// How many threads are in [`Outgoing::drain`].
    draining: usize,
}

thread_local! {
    static IN_BATCH: Cell<bool> = const { Cell::new(false) };
    static UNSENT: RefCell<Vec<Arc<Outgoing>>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work`, and writes what it sent on any connection only at its end: one system call per
/// connection, however many messages. Of more than 64 KiB nothing is held back.
pub fn batch<T>(work: impl FnOnce() -> T) -> T {
    if IN_BATCH.replace(true) {
        return work();
    }
    let result = work();
    IN_BATCH.set(false);
    // Nothing that writes a queue sends anything.
    UNSENT.with_borrow_mut(|unsent| unsent.drain(..).for_each(|sent| sent.write_queue()));
    result
}

impl Outgoing {
    /// The sending side of `stream`. What waits for the receiver is held in a share of `budget`.
    pub fn new(stream: TcpStream, budget: &Arc<Budget>) -> io::Result<Arc<Outgoing>> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(Arc::new(Outgoing {
            stream,
            queue: Mutex::new(Queue {
                bytes: Vec::new(),
                waiting: 0,
                share: Share::of(budget),
                writing: false,
                closed: false,
                draining: 0,
            }),
            drained: Condvar::new(),
            heard: AtomicBool::new(false),
        }))
    }

    /// Sends bytes, in the order of the calls; false if the connection is closed or too much
    /// waits already, and nothing was sent.
    pub fn send(self: &Arc<Self>, bytes: &[u8]) -> bool {
        let queued = self.append(bytes);
        if let Some(queued) = queued {
            self.flush(queued);
        }
        queued.is_some()
    }

    /// Queues bytes, to be [flushed](Outgoing::flush). Returns how many are queued now; none if these
    /// cannot be.
    pub fn append(&self, bytes: &[u8]) -> Option<usize> {
        let mut queue = lock(&self.queue);
        let waiting = queue.waiting + bytes.len();
        if queue.closed || !queue.share.hold(waiting) {
            return None;
        }
        queue.waiting = waiting;
        queue.bytes.extend_from_slice(bytes);
        Some(queue.bytes.len())
    }

    /// Has the bytes that are queued written, which are so many: now, or at the end of the batch.
    pub fn flush(self: &Arc<Self>, queued: usize) {
        if !IN_BATCH.get() || queued >= MOST_HELD_BACK {
            return self.write_queue();
        }
        UNSENT.with_borrow_mut(|unsent| {
            if !unsent.iter().any(|known| Arc::ptr_eq(known, self)) {
                unsent.push(self.clone());
            }
        });
    }

    /// Sends no more, and makes the receiving side end.
    pub fn close(&self) {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        self.tell_drained(&queue);
        drop(queue);
        self.shut_down(Shutdown::Both);
    }

    /// Makes the receiving side end; what is sent still goes out.
    pub fn stop_receiving(&self) {
        self.shut_down(Shutdown::Read);
    }

    fn shut_down(&self, how: Shutdown) {
        // An error says that the connection is gone already.
        let _ = self.stream.shutdown(how);
    }

    /// The receiver has sent something: it is there, though it may not take what it is sent.
    pub fn heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Waits until all that was sent but `most` bytes is with the operating system, or the
    /// connection closed.
    pub fn drain(&self, most: usize) {
        let mut queue = lock(&self.queue);
        queue.draining += 1;
        while queue.waiting > most && !queue.closed {
            queue = wait(&self.drained, queue);
        }
        queue.draining -= 1;
    }

    fn tell_drained(&self, queue: &Queue) {
        if queue.draining > 0 {
            self.drained.notify_all();
        }
    }

    /// How many bytes the operating system has not taken yet.
    pub fn waiting(&self) -> usize {
        lock(&self.queue).waiting
    }

    pub fn closed(&self) -> bool {
        lock(&self.queue).closed
    }

    fn write_queue(self: &Arc<Self>) {
        let mut bytes = Vec::new();
        let mut queue = lock(&self.queue);
        if queue.writing {
            return;
        }
        queue.writing = true;
        loop {
            bytes.clear();
            if queue.bytes.is_empty() || queue.closed {
                queue.writing = false;
                if bytes.capacity() <= KEPT_BUFFER {
                    queue.bytes = bytes;
                }
                return;
            }
            std::mem::swap(&mut queue.bytes, &mut bytes);
            drop(queue);
            let written = match send_without_waiting(&self.stream, &bytes) {
                Ok(written) => written,
                Err(error) => return self.fail(&error),
            };
            queue = lock(&self.queue);
            queue.taken(written);
            self.tell_drained(&queue);
            if written < bytes.len() {
                drop(queue);
                return self.leave_to_a_thread(bytes.split_off(written));
            }
        }
    }

    /// The socket's buffer is full: a thread waits for room and then writes all that is queued.
    fn leave_to_a_thread(self: &Arc<Self>, rest: Vec<u8>) {
        let connection = self.clone();
        let builder = thread::Builder::new()
            .name("overflow".into())
            .stack_size(64 << 10);
        let spawned = builder.spawn(move || {
            let mut bytes = rest;
            loop {
                if let Err(error) = connection.write_waiting(&bytes) {
                    return connection.fail(&error);
                }
                let mut queue = lock(&connection.queue);
                if queue.bytes.is_empty() || queue.closed {
                    queue.writing = false;
                    return;
                }
                bytes = std::mem::take(&mut queue.bytes);
            }
        });
        if let Err(error) = spawned {
            self.fail(&error);
        }
    }

    fn write_waiting(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = match (&self.stream).write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => count,
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => continue,
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                        if self.heard.swap(false, Ordering::Relaxed) =>
                    {
                        continue;
                    }
                    _ => return Err(error),
                },
            };
            bytes = &bytes[count..];
            let mut queue = lock(&self.queue);
            queue.taken(count);
            self.tell_drained(&queue);
        }
        Ok(())
    }

    fn fail(&self, error: &io::Error) {
        debug!("closing a connection that cannot be written to: {error}");
        let mut queue = lock(&self.queue);
        queue.writing = false;
        queue.bytes = Vec::new();
        let waiting = queue.waiting;
        queue.taken(waiting);
        // In the same step: what another thread sends now would follow upon half a message.
        queue.closed = true;
        drop(queue);
        self.close();
    }
}

impl Queue {
    /// So much of what waited is with the operating system, or of no use any more.
    fn taken(&mut self, count: usize) {
        self.waiting -= count;
        let waiting = self.waiting;
        let held = self.share.hold(waiting);
        debug_assert!(held, "less is never refused");
    }
}
