//! The sequence numbers of this node's writes. They are reserved durably, in blocks, before they are used.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::bounded;

use super::Node;
use crate::lock;

/// How many sequence numbers are reserved at a time, with one log entry. The next block is reserved when half
/// a block is left, which is enough for a minute in which the disk hangs.
const BLOCK: u64 = 1_000_000;

/// Whether a block is being reserved.
#[derive(Default)]
pub struct Numbers {
    /// Whether this node has numbers, and none are being reserved.
    settled: AtomicBool,
}

impl Node {
    /// Reserves the first block of numbers, all above `used`, and waits until that is durable.
    pub(super) fn number_writes(self: &Arc<Node>, used: u64) {
        let (sender, reserved) = bounded(1);
        self.reserve(used, move || {
            let _ = sender.send(());
        });
        // There is no error to handle: if the log fails, the commit thread ends the process.
        let _ = reserved.recv();
        self.numbers.settled.store(true, Ordering::Relaxed);
    }

    /// Reserves the next block if less than half a block is left.
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
        self.store.reserve(upto, reserved);
    }
}
