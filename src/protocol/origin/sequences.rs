//! The sequence numbers that name this origin's writes.
//!
//! They grow for ever, restarts included: a number that was used twice would make the second write look
//! like a retry of the first. So they are reserved on disk in blocks, before any of a block is used.

use crate::protocol::ring::NodeId;
use crate::protocol::version::Dot;

pub(super) struct Sequences {
    origin: NodeId,
    last: u64,
    /// The numbers up to this one are reserved on disk.
    reserved: u64,
}

impl Sequences {
    /// Numbers from `first` on, none of them reserved yet.
    pub fn new(origin: NodeId, first: u64) -> Sequences {
        Sequences {
            origin,
            last: first - 1,
            reserved: first - 1,
        }
    }

    pub fn left(&self) -> u64 {
        self.reserved - self.last
    }

    /// Allows the numbers up to `upto`, and skips those up to `used`.
    pub fn reserved(&mut self, used: u64, upto: u64) {
        self.reserved = self.reserved.max(upto);
        self.last = self.last.max(used);
    }

    /// The name of one more write, or `None` while no number is reserved.
    pub fn next(&mut self) -> Option<Dot> {
        if self.left() == 0 {
            return None;
        }
        self.last += 1;
        Some(Dot {
            origin: self.origin,
            sequence: self.last,
        })
    }
}
