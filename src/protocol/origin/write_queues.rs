//! One write of each key at a time.

use std::collections::{HashMap, VecDeque};

use crate::bytes::Key;
use crate::testing::rules::{self, Rule};

/// Per key with a write in flight the writes of this origin: first the one in flight, then those that
/// wait for its end.
#[derive(Default)]
pub(super) struct WriteQueues(HashMap<Key, VecDeque<u64>>);

impl WriteQueues {
    /// Adds a write. Returns whether it may start at once.
    pub fn enter(&mut self, key: Key, write: u64) -> bool {
        let queue = self.0.entry(key).or_default();
        queue.push_back(write);
        queue.len() == 1 || !rules::holds(Rule::OneWriteInFlight)
    }

    /// Removes a write that has ended, whether it was in flight or not. Returns the write that may
    /// start now.
    pub fn leave(&mut self, key: &Key, write: u64) -> Option<u64> {
        let queue = self.0.get_mut(key).expect("each write has entered");
        if queue.front() != Some(&write) {
            queue.retain(|waiting| *waiting != write);
            return None;
        }
        queue.pop_front();
        let next = queue.front().copied();
        if next.is_none() {
            self.0.remove(key);
        }
        next
    }
}
