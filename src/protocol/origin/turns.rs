//! One write of each key at a time.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};

use crate::bytes::Key;
use crate::testing::rules::{self, Rule};

/// The writes of this origin, per key.
#[derive(Default)]
pub struct Turns(HashMap<Key, Turn>);

struct Turn {
    in_flight: u64,
    waiting: VecDeque<u64>,
}

impl Turns {
    /// Takes a write in; whether it is its turn at once.
    pub fn enter(&mut self, key: Key, write: u64) -> bool {
        match self.0.entry(key) {
            Entry::Vacant(free) => {
                free.insert(Turn {
                    in_flight: write,
                    waiting: VecDeque::new(),
                });
                true
            }
            Entry::Occupied(mut taken) => {
                taken.get_mut().waiting.push_back(write);
                !rules::holds(Rule::OneWriteInFlight)
            }
        }
    }

    /// A write has ended, in flight or not; whose turn it is now.
    pub fn leave(&mut self, key: &Key, write: u64) -> Option<u64> {
        let turn = self.0.get_mut(key)?;
        if turn.in_flight != write {
            turn.waiting.retain(|waiting| *waiting != write);
            return None;
        }
        let next = turn.waiting.pop_front();
        match next {
            Some(next) => turn.in_flight = next,
            None => drop(self.0.remove(key)),
        }
        next
    }
}
