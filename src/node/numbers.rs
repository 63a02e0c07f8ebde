//! The sequence numbers of this node's writes: reserved durably, in blocks, before they are used.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::bounded;

use super::Node;
use crate::lock;

/// Sequence numbers that are reserved at a time: one log entry for so many writes. Half as many are
/// left when more are reserved, enough for a minute in which the disk hangs.
const BLOCK: u64 = 1_000_000;

/// Whether numbers are there, and not being reserved: first by [`Node::number_writes`].
#[derive(Default)]
pub struct Numbers {
    settled: AtomicBool,
}

impl Node {
    /// Gives this node's writes their first numbers, all above `used`, once that is durable.
    pub(super) fn number_writes(self: &Arc<Node>, used: u64) {
        let (sender, reserved) = bounded(1);
        self.reserve(used, move || {
            let _ = sender.send(());
        });
        // The commit thread ends the process if it cannot.
        let _ = reserved.recv();
        self.numbers.settled.store(true, Ordering::Relaxed);
    }

    /// Reserves the next block where less than half of one is left.
    pub(super) fn reserve_more_numbers(self: &Arc<Node>) {
        let running_out = lock(&self.origin).sequences_left() < BLOCK / 2;
        if running_out && self.numbers.settled.swap(false, Ordering::Relaxed) {
            let node = self.clone();
            self.reserve(0, move || {
                node.numbers.settled.store(true, Ordering::Relaxed);
            });
        }
    }

    fn reserve(self: &Arc<Node>, used: u64, then: impl FnOnce() + Send + 'static) {
        let upto = self.store.sequences().max(used) + BLOCK;
        let node = self.clone();
        let reserved = move || {
            lock(&node.origin).reserved(used, upto);
            then();
        };
        self.store.reserve(upto, Box::new(reserved));
    }
}
