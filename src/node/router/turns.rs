//! One write of each key at a time.

use std::collections::{HashMap, VecDeque};

use crate::bytes::Key;
use crate::rules::{self, Rule};

/// The writes of this origin, per key: the first is in flight, the others wait for their turn.
#[derive(Default)]
pub struct Turns(HashMap<Key, VecDeque<u64>>);

impl Turns {
    /// Takes a write in; whether it is its turn at once.
    pub fn enter(&mut self, key: Key, write: u64) -> bool {
        let queue = self.0.entry(key).or_default();
        queue.push_back(write);
        queue.len() == 1 || !rules::holds(Rule::OneWriteInFlight)
    }

    /// A write has ended, in flight or not; whose turn it is now.
    pub fn leave(&mut self, key: &Key, write: u64) -> Option<u64> {
        let queue = self.0.get_mut(key)?;
        let was_in_flight = queue.front() == Some(&write);
        queue.retain(|waiting| *waiting != write);
        let next = queue.front().copied();
        if next.is_none() {
            self.0.remove(key);
        }
        next.filter(|_| was_in_flight)
    }
}
