//! What a node delivers to its members of a group: each message once, in order, and the recent ones again.

use std::collections::VecDeque;
use std::sync::Arc;

use super::hold_back::HoldBack;
use super::sizes::sizes;
use super::state::{Group, MOST_MESSAGE_BYTES, Message};

/// The messages of one group at one node.
pub struct Delivery {
    queue: HoldBack,
    /// The last messages that came out of the queue, without a gap.
    recent: VecDeque<Arc<Message>>,
    /// How many bytes the recent messages take.
    bytes: usize,
}

impl Delivery {
    /// Begins after what this state of the group has.
    pub fn new(group: &Group) -> Delivery {
        Delivery {
            queue: HoldBack::new(group.next - 1),
            recent: VecDeque::new(),
            bytes: 0,
        }
    }

    /// The number of the last message that was delivered.
    pub fn delivered(&self) -> u64 {
        self.queue.delivered()
    }

    /// Whether a message waits for one that is missing, so that the group should be read.
    pub fn has_gap(&self) -> bool {
        self.queue.has_gap()
    }

    /// Takes pushed messages, in any order. Those whose turn has come are [recent](Delivery::from) now.
    pub fn push(&mut self, messages: impl IntoIterator<Item = Arc<Message>>) {
        let ready = self.queue.take(messages);
        self.keep(ready);
    }

    /// Takes the state of the group. What lies on pages is skipped: members that need it read it.
    pub fn heal(&mut self, group: &Group) {
        if group.first_open() > self.delivered() + 1 {
            self.recent.clear();
            self.bytes = 0;
            let ready = self.queue.skip_to(group.first_open() - 1);
            self.keep(ready);
        }
        self.push(group.open.iter().cloned());
    }

    /// The messages from this number on, if all of them are still here.
    pub fn from(&self, number: u64) -> Option<impl Iterator<Item = &Arc<Message>>> {
        let first = self.delivered() + 1 - self.recent.len() as u64;
        let skipped = number.checked_sub(first)?;
        Some(self.recent.iter().skip(skipped as usize))
    }

    /// About how many bytes its messages take.
    pub fn bytes(&self) -> usize {
        self.bytes + self.queue.waiting() * MOST_MESSAGE_BYTES
    }

    /// Keeps nothing that can be read: for when too much memory is taken.
    pub fn forget(&mut self) {
        *self = Delivery {
            queue: HoldBack::new(self.delivered()),
            recent: VecDeque::new(),
            bytes: 0,
        };
    }

    fn keep(&mut self, messages: Vec<Arc<Message>>) {
        let size =
            |message: &Message| size_of::<Message>() + message.nick.len() + message.text.len();
        for message in messages {
            self.bytes += size(&message);
            self.recent.push_back(message);
        }
        while self.bytes > sizes().recent {
            let oldest = self.recent.pop_front();
            self.bytes -= oldest.map_or(0, |oldest| size(&oldest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u64, text: &str) -> Arc<Message> {
        Arc::new(Message {
            number,
            nick: "ann".to_owned(),
            text: text.to_owned(),
            time: 0,
        })
    }

    fn from(delivery: &Delivery, number: u64) -> Option<Vec<u64>> {
        let found = delivery.from(number)?;
        Some(found.map(|message| message.number).collect())
    }

    fn group(open: std::ops::Range<u64>) -> Group {
        Group {
            next: open.end,
            open: open.map(|number| message(number, "x")).collect(),
            ..Group::default()
        }
    }

    #[test]
    fn the_state_fills_what_no_push_brought() {
        let mut delivery = Delivery::new(&group(1..5));
        delivery.push([message(7, "x")]);
        assert!(delivery.has_gap());
        delivery.heal(&group(3..7));
        assert_eq!(from(&delivery, 5), Some(vec![5, 6, 7]));
        assert_eq!(from(&delivery, 7), Some(vec![7]));
        assert_eq!(from(&delivery, 8), Some(vec![]));
        assert_eq!(from(&delivery, 4), None);
        assert!(!delivery.has_gap());
    }

    #[test]
    fn what_is_on_pages_already_is_skipped() {
        let mut delivery = Delivery::new(&group(1..5));
        delivery.push([message(5, "x"), message(9, "x")]);
        delivery.heal(&group(8..9));
        assert_eq!(delivery.delivered(), 9);
        assert_eq!(from(&delivery, 5), None);
        assert_eq!(from(&delivery, 8), Some(vec![8, 9]));
    }

    #[test]
    fn recent_messages_are_bounded_in_bytes() {
        let mut delivery = Delivery::new(&Group::default());
        let long = "x".repeat(1 << 10);
        delivery.push((1..=1000).map(|number| message(number, &long)));
        let kept = from(&delivery, 800).unwrap();
        assert_eq!(kept.len(), 201);
        assert!(delivery.bytes <= 256 << 10 && from(&delivery, 700).is_none());
    }
}
