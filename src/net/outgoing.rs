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
use std::time::Duration;

use log::debug;

use super::socket::{TcpStream, send_without_waiting};
use crate::lock;
use crate::sync::{Instant, Mutex, thread, thread_local};

/// A receiver that takes nothing for so long loses its connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A buffer larger than this is given back to the allocator after use, in bytes.
const KEPT_BUFFER: usize = 64 << 10;

/// The sending side of one connection.
pub struct Outgoing {
    stream: TcpStream,
    /// How many bytes may wait.
    limit: usize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    writing: bool,
    closed: bool,
    /// When the receiver last took some of what did not fit the socket.
    progress: Option<Instant>,
}

thread_local! {
    static IN_BATCH: Cell<bool> = const { Cell::new(false) };
    static UNSENT: RefCell<Vec<Arc<Outgoing>>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work`, and writes what it sent on any connection only at its end: one system call per
/// connection, however many messages.
pub fn batch<T>(work: impl FnOnce() -> T) -> T {
    if IN_BATCH.replace(true) {
        return work();
    }
    let result = work();
    IN_BATCH.set(false);
    for connection in UNSENT.take() {
        connection.write_queue();
    }
    result
}

impl Outgoing {
    /// The sending side of `stream`, for at most `limit` bytes waiting.
    pub fn new(stream: TcpStream, limit: usize) -> io::Result<Arc<Outgoing>> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(Arc::new(Outgoing {
            stream,
            limit,
            queue: Mutex::default(),
        }))
    }

    /// Sends bytes, in the order of the calls; false if the connection is closed or too much
    /// waits already, and nothing was sent.
    pub fn send(self: &Arc<Self>, bytes: &[u8]) -> bool {
        let mut queue = lock(&self.queue);
        if queue.closed || queue.bytes.len() > self.limit {
            return false;
        }
        let first = queue.bytes.is_empty();
        queue.bytes.extend_from_slice(bytes);
        let carried = queue.writing;
        drop(queue);
        if carried {
            return true;
        }
        if !IN_BATCH.get() {
            self.write_queue();
        } else if first {
            UNSENT.with_borrow_mut(|unsent| unsent.push(self.clone()));
        }
        true
    }

    /// Sends no more, and makes the receiving side end.
    pub fn close(&self) {
        lock(&self.queue).closed = true;
        // An error says that the connection is gone already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Waits until all that was sent is with the operating system, or the connection closed.
    pub fn drained(&self) -> bool {
        let queue = lock(&self.queue);
        queue.closed || (queue.bytes.is_empty() && !queue.writing)
    }

    /// When the receiver last took some of a backlog: a sign of life while it reads a message
    /// that takes long to send.
    pub fn progress(&self) -> Option<Instant> {
        lock(&self.queue).progress
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
            match send_without_waiting(&self.stream, &bytes) {
                Ok(written) if written == bytes.len() => {}
                Ok(written) => return self.leave_to_a_thread(bytes.split_off(written)),
                Err(error) => return self.fail(&error),
            }
            queue = lock(&self.queue);
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
            match (&self.stream).write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            lock(&self.queue).progress = Some(Instant::now());
        }
        Ok(())
    }

    fn fail(&self, error: &io::Error) {
        debug!("closing a connection that cannot be written to: {error}");
        let mut queue = lock(&self.queue);
        queue.writing = false;
        queue.bytes = Vec::new();
        // In the same step: what another thread sends now would follow upon half a message.
        queue.closed = true;
        drop(queue);
        self.close();
    }
}
