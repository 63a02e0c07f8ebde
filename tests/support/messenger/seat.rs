//! Where a client is, and where it goes on.

use std::io::{self, ErrorKind};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use super::connection::Connection;
use super::{Board, Conversation};

/// How long a client waits before it tries once more what was refused.
pub const AGAIN: Duration = Duration::from_millis(100);

/// A client of a group, at the node where it is now.
pub struct Seat<'a> {
    pub conversation: &'a Conversation<'a>,
    board: &'a Board,
    pub group: &'a str,
    pub name: String,
    /// Where it began.
    pub home: u32,
    pub node: u32,
    pub rng: Rng,
}

impl<'a> Seat<'a> {
    pub fn new(
        conversation: &'a Conversation<'a>,
        board: &'a Board,
        group: &'a str,
        home: u32,
        name: String,
    ) -> Seat<'a> {
        let names = group.bytes().chain(name.bytes());
        let own = names.fold(conversation.seed, |sum, byte| {
            sum.rotate_left(7) ^ u64::from(byte)
        });
        Seat {
            conversation,
            board,
            group,
            name,
            home,
            node: home,
            rng: Rng::with_seed(own),
        }
    }

    /// Connects to the node, and takes the name as a nick.
    pub fn connect(&self) -> io::Result<Connection> {
        Connection::open(&self.conversation.cluster.address(self.node), &self.name)
    }

    /// Goes to another node, or back home if it is away.
    pub fn go_on(&mut self) {
        self.node = match self.node == self.home {
            true => {
                let others = self
                    .conversation
                    .cluster
                    .ids()
                    .filter(|id| *id != self.home);
                let others: Vec<u32> = others.collect();
                others[self.rng.usize(..others.len())]
            }
            false => self.home,
        };
    }

    /// Whether nobody says anything new any more.
    pub fn is_silent(&self) -> bool {
        self.board.silent.load(Ordering::Relaxed)
    }

    /// Whether all clients end.
    pub fn is_over(&self) -> bool {
        self.board.over.load(Ordering::Relaxed)
    }

    /// A message was acknowledged.
    pub fn count(&self) {
        self.board.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// The time from one message to the next.
    pub fn think(&mut self) -> Duration {
        self.conversation.think.mul_f64(self.rng.f64())
    }

    /// A short wait before a node is tried that may be down.
    pub fn rest(&mut self) {
        thread::sleep(Duration::from_millis(self.rng.u64(10..50)));
    }
}

/// Whether a node was down, and not only late.
pub fn is_down(error: &io::Error) -> bool {
    error.kind() != ErrorKind::TimedOut && error.kind() != ErrorKind::WouldBlock
}
