//! The hold-back queue of a node: what was pushed comes out in the order of its numbers, each once.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::sizes::sizes;
use super::state::Message;
use crate::testing::rules::{self, Rule};

/// The messages of a group that a node has been pushed, put in order.
pub struct HoldBack {
    /// The number of the last message that came out.
    delivered: u64,
    /// Messages that came ahead of their turn.
    ahead: BTreeMap<u64, Arc<Message>>,
}

impl HoldBack {
    /// Everything up to `delivered` is known already.
    pub fn new(delivered: u64) -> HoldBack {
        HoldBack {
            delivered,
            ahead: BTreeMap::new(),
        }
    }

    /// The number of the last message that came out.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Whether a message waits for one that is missing.
    pub fn has_gap(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// How many messages wait.
    pub fn waiting(&self) -> usize {
        self.ahead.len()
    }

    /// Takes messages in any order, and returns those whose turn has come.
    pub fn take(&mut self, messages: impl IntoIterator<Item = Arc<Message>>) -> Vec<Arc<Message>> {
        let mut ready = Vec::new();
        for message in messages {
            if message.number <= self.delivered {
                continue;
            }
            if rules::holds(Rule::HeldBack) {
                self.ahead.insert(message.number, message);
            } else {
                self.delivered = message.number;
                ready.push(message);
            }
        }
        while let Some(message) = self.ahead.remove(&(self.delivered + 1)) {
            self.delivered += 1;
            ready.push(message);
        }
        while self.ahead.len() > sizes().ahead {
            self.ahead.pop_last();
        }
        ready
    }

    /// Goes on after this number: what is before it is on pages, where members that need it read it. Returns
    /// the messages whose turn has come with that.
    pub fn skip_to(&mut self, number: u64) -> Vec<Arc<Message>> {
        self.delivered = self.delivered.max(number);
        self.ahead = self.ahead.split_off(&(self.delivered + 1));
        self.take([])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST_AHEAD: usize = 1024;

    fn message(number: u64) -> Arc<Message> {
        Arc::new(Message {
            number,
            nick: "ann".to_owned(),
            text: number.to_string(),
            time: 0,
        })
    }

    fn numbers(messages: Vec<Arc<Message>>) -> Vec<u64> {
        messages.iter().map(|message| message.number).collect()
    }

    #[test]
    fn messages_come_out_in_order_and_once_however_they_come_in() {
        let mut queue = HoldBack::new(4);
        assert_eq!(numbers(queue.take([message(7), message(6)])), [0; 0]);
        assert!(queue.has_gap());
        assert_eq!(numbers(queue.take([message(5), message(6)])), [5, 6, 7]);
        assert!(!queue.has_gap());
        assert_eq!(numbers(queue.take([message(7), message(4)])), [0; 0]);
        assert_eq!(queue.delivered(), 7);
    }

    #[test]
    fn the_highest_numbers_are_dropped_when_too_many_wait() {
        let mut queue = HoldBack::new(0);
        let most = MOST_AHEAD as u64;
        queue.take((2..most + 3).map(message));
        assert_eq!(queue.ahead.len(), MOST_AHEAD);
        assert_eq!(queue.take([message(1)]).len(), MOST_AHEAD + 1);
        assert_eq!(queue.delivered(), most + 1);
    }

    #[test]
    fn what_is_skipped_is_not_delivered_any_more() {
        let mut queue = HoldBack::new(0);
        queue.take([message(2), message(9)]);
        assert_eq!(numbers(queue.skip_to(8)), [9]);
        assert_eq!(numbers(queue.skip_to(3)), [0; 0]);
        assert_eq!(queue.delivered(), 9);
    }
}
