//! Tells clients how far a node is that still reads its folder.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::info;

use super::turn_away;
use crate::error::Failure;
use crate::protocol::ring::NodeId;
use crate::storage::Progress;

/// A start that takes no longer turns nobody away: who connects meanwhile is served after it.
const SHORT: Duration = Duration::from_millis(400);
/// How often it looks for clients, and at most how long they wait for what they are told.
const LOOK: Duration = Duration::from_millis(20);
/// How often the log tells of the progress.
const TELL: Duration = Duration::from_secs(2);

/// Stands in for the server until it can serve.
pub struct Starting {
    listener: TcpListener,
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Starting {
    /// Starts the thread that turns clients away.
    ///
    /// # Errors
    /// If the system has no thread or file for it.
    pub fn begin(
        id: NodeId,
        listener: &TcpListener,
        progress: &Arc<Progress>,
    ) -> io::Result<Starting> {
        let (clients, progress) = (listener.try_clone()?, progress.clone());
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        clients.set_nonblocking(true)?;
        let thread = thread::Builder::new()
            .name("starting".into())
            .spawn(move || run(id, &clients, &progress, &is_over))?;
        Ok(Starting {
            listener: listener.try_clone()?,
            over,
            thread,
        })
    }

    /// Leaves the clients to the server.
    pub fn end(self) -> io::Result<()> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        // A panic of the thread has been reported by itself.
        let _ = self.thread.join();
        self.listener.set_nonblocking(false)
    }
}

fn run(id: NodeId, clients: &TcpListener, progress: &Progress, over: &AtomicBool) {
    let began = Instant::now();
    let mut tell = began + TELL;
    while !over.load(Ordering::Relaxed) {
        if Instant::now() >= tell {
            info!("has read {progress} of its data");
            tell += TELL;
        }
        let client = (began.elapsed() >= SHORT).then(|| clients.accept());
        match client {
            Some(Ok((client, _))) => turn_away(client, &Failure::Unavailable(text(id, progress))),
            // There is none, or none that could be accepted.
            _ => thread::park_timeout(LOOK),
        }
    }
}

const BEFORE: &str = " is starting: has read ";
const AFTER: &str = " of its data; try again soon";

fn text(id: NodeId, progress: &Progress) -> String {
    format!("node {id}{BEFORE}{progress}{AFTER}")
}

/// How far a node is, if that is what it replied: `45 of 120 MiB`.
pub fn progress_in(reply: &str) -> Option<&str> {
    reply.split_once(BEFORE)?.1.strip_suffix(AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_node_is_can_be_told_from_its_reply() {
        let reply = text(NodeId(5554), &Progress::default());
        assert_eq!(progress_in(&reply), Some("0 of 0 MiB"));
        assert_eq!(progress_in("ERROR UNAVAILABLE no quorum"), None);
    }
}
