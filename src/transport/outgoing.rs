//! The sending side of a connection, shared by all threads that have something to send.
//!
//! A thread that sends something appends it to a queue. If no other thread writes, it writes all queued
//! bytes with one system call, until the queue is empty. Otherwise the writing thread takes its bytes
//! along. No sender waits for a slow receiver: what does not fit the socket's buffer is left to a
//! thread that ends once the queue is empty.

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

/// A receiver that takes nothing for so long loses its connection, unless it was
/// [heard](Outgoing::heard) meanwhile.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A buffer of more bytes than this is not kept after use.
const KEPT_BUFFER: usize = 64 << 10;
/// A batch that has queued so many bytes for a connection writes them at once, so that the receiver does
/// not take the silence for a failure and can begin its work.
const MOST_HELD_BACK: usize = 64 << 10;

/// The sending side of one connection.
pub struct Outgoing {
    stream: TcpStream,
    queue: Mutex<SendQueue>,
    /// Wakes the threads in [`Outgoing::drain`].
    drained: Condvar,
    /// Whether the receiver has sent something since a write to it last timed out.
    heard: AtomicBool,
}

struct SendQueue {
    /// The bytes that no thread has begun to write.
    bytes: Vec<u8>,
    /// How many bytes the operating system has not taken yet, with those being written.
    waiting: usize,
    /// Holds them in a budget.
    share: Share,
    /// Whether a thread writes: no other one may, or the bytes would get out of order.
    writing: bool,
    closed: bool,
    /// How many threads are in [`Outgoing::drain`].
    draining: usize,
}

thread_local! {
    static IN_BATCH: Cell<bool> = const { Cell::new(false) };
    static UNSENT: RefCell<Vec<Arc<Outgoing>>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work`, and writes what it sends on any connection only at its end: with one system call per
/// connection, however many messages. More than 64 KiB are not held back.
pub fn batch<T>(work: impl FnOnce() -> T) -> T {
    if IN_BATCH.replace(true) {
        return work();
    }
    let result = work();
    IN_BATCH.set(false);
    // To write a queue sends nothing, so it does not borrow this list again.
    UNSENT.with_borrow_mut(|unsent| unsent.drain(..).for_each(|sent| sent.write_queue()));
    result
}

impl Outgoing {
    /// The sending side of `stream`. The bytes that wait for the receiver are held in a share of
    /// `budget`.
    pub fn new(stream: TcpStream, budget: &Arc<Budget>) -> io::Result<Arc<Outgoing>> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(Arc::new(Outgoing {
            stream,
            queue: Mutex::new(SendQueue {
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

    /// Sends bytes, in the order of the calls. Returns false, and sends nothing, if the connection is
    /// closed or too much waits already.
    pub fn send(self: &Arc<Self>, bytes: &[u8]) -> bool {
        let queued = self.append(bytes);
        if let Some(queued) = queued {
            self.flush(queued);
        }
        queued.is_some()
    }

    /// Queues bytes, for a later [`Outgoing::flush`]. Returns the length of the queue, or `None` if it
    /// does not accept them.
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

    /// Writes the `queued` bytes now, or leaves them to the end of the batch.
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

    /// Sends no more, and ends the receiving side.
    pub fn close(&self) {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        self.notify_draining(&queue);
        drop(queue);
        self.shut_down(Shutdown::Both);
    }

    /// Ends the receiving side. What was sent still goes out.
    pub fn stop_receiving(&self) {
        self.shut_down(Shutdown::Read);
    }

    fn shut_down(&self, how: Shutdown) {
        // An error means that the connection is closed already.
        let _ = self.stream.shutdown(how);
    }

    /// Notes that the receiver has sent something, so that it is not given up though it takes nothing.
    pub fn heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Waits until at most `most` of the sent bytes are not with the operating system yet, or the
    /// connection is closed.
    pub fn drain(&self, most: usize) {
        let mut queue = lock(&self.queue);
        queue.draining += 1;
        while queue.waiting > most && !queue.closed {
            queue = wait(&self.drained, queue);
        }
        queue.draining -= 1;
    }

    fn notify_draining(&self, queue: &SendQueue) {
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

    /// Writes the queue until it is empty, unless another thread does so.
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
            self.note_taken(&mut queue, written);
            if written < bytes.len() {
                drop(queue);
                return self.leave_to_a_thread(bytes.split_off(written));
            }
        }
    }

    /// Starts a thread that waits for room in the socket's buffer, and then writes the rest and the queue.
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

    /// Writes all bytes, and waits for room as long as the receiver takes or sends something.
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
            self.note_taken(&mut lock(&self.queue), count);
        }
        Ok(())
    }

    /// Notes that the operating system has taken so many bytes.
    fn note_taken(&self, queue: &mut SendQueue, count: usize) {
        queue.hold(queue.waiting - count);
        self.notify_draining(queue);
    }

    fn fail(&self, error: &io::Error) {
        debug!("closing a connection that cannot be written to: {error}");
        let mut queue = lock(&self.queue);
        queue.writing = false;
        queue.bytes = Vec::new();
        queue.hold(0);
        // The lock is still held: otherwise another thread could send something behind half a message.
        queue.closed = true;
        drop(queue);
        self.close();
    }
}

impl SendQueue {
    /// Holds fewer bytes than before in the budget.
    fn hold(&mut self, waiting: usize) {
        self.waiting = waiting;
        let held = self.share.hold(waiting);
        debug_assert!(held, "less is never refused");
    }
}
