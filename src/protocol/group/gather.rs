//! What the clients of one node say in one group while its one append is in flight: it goes out as the next
//! batch.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::say::{Fate, Said, Say, Saying};
use super::sizes::sizes;
use super::state::{MOST_MESSAGE_BYTES, Message};

/// How long a message may wait to be appended.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many messages of one group may wait at a node.
const MOST_WAITING: usize = 2048;

/// What became of a message, for the client that `handle` stands for.
#[derive(Debug)]
pub struct Settled<H> {
    pub handle: H,
    pub saying: Saying,
    /// Never [`Fate::Full`]: such a message goes out again.
    pub fate: Fate,
    /// Its number, if it was appended now.
    pub number: Option<u64>,
}

struct Waiting<H> {
    handles: Vec<H>,
    saying: Saying,
    came: Duration,
}

/// The messages of one group that wait to be appended through this node. `H` is the caller's note of whom to
/// answer. Times are those since any fixed moment.
pub struct Gather<H> {
    waiting: VecDeque<Waiting<H>>,
    in_flight: Vec<Waiting<H>>,
    /// A page that is stored, and that the next append cuts off.
    stored: Option<u64>,
    /// The page that the append in flight cuts off.
    cutting: Option<u64>,
    /// Whether a page is to be stored.
    page_due: bool,
    /// Whether a page is being stored.
    storing: bool,
    /// Whether the group was full. Nothing is sent then until a page is stored.
    full: bool,
}

impl<H> Default for Gather<H> {
    fn default() -> Gather<H> {
        Gather {
            waiting: VecDeque::new(),
            in_flight: Vec::new(),
            stored: None,
            cutting: None,
            page_due: false,
            storing: false,
            full: false,
        }
    }
}

impl<H> Gather<H> {
    /// Whether nothing is to be done, so that this may be dropped.
    pub fn is_idle(&self) -> bool {
        let is_storing = self.page_due || self.storing;
        self.waiting.is_empty() && self.in_flight.is_empty() && !is_storing
    }

    /// Whether it knows a page that is stored. If it is dropped, the next one finds that out.
    pub fn remembers(&self) -> bool {
        self.stored.is_some()
    }

    /// Whether so many messages wait that no other one should be added.
    pub fn is_crowded(&self) -> bool {
        self.waiting.len() >= MOST_WAITING
    }

    /// About how many bytes its messages take.
    pub fn bytes(&self) -> usize {
        (self.waiting.len() + self.in_flight.len()) * MOST_MESSAGE_BYTES
    }

    /// Whether the group was full when it was heard of last.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Takes what a client says. A message that its client sends again while it waits is sent once.
    pub fn add(&mut self, handle: H, saying: Saying, now: Duration) {
        let is_same = |other: &&mut Waiting<H>| {
            saying.sender.is_some()
                && other.saying.sender == saying.sender
                && other.saying.text == saying.text
        };
        match self.waiting.iter_mut().find(is_same) {
            Some(same) => same.handles.push(handle),
            None => self.waiting.push_back(Waiting {
                handles: vec![handle],
                saying,
                came: now,
            }),
        }
    }

    /// The next append, if none is in flight and something waits.
    pub fn next_append(&mut self) -> Option<Say> {
        if !self.in_flight.is_empty() || self.waiting.is_empty() || self.full {
            return None;
        }
        let count = self.waiting.len().min(sizes().batch);
        self.in_flight = self.waiting.drain(..count).collect();
        self.cutting = self.stored;
        let batch = self
            .in_flight
            .iter()
            .map(|own| own.saying.clone())
            .collect();
        Some(Say {
            batch,
            stored: self.stored,
        })
    }

    /// The append was decided. Returns what to tell clients, and the messages that all nodes are to be pushed.
    pub fn answered(&mut self, said: &Said) -> (Vec<Settled<H>>, Vec<Arc<Message>>) {
        assert_eq!(
            said.fates.len(),
            self.in_flight.len(),
            "each message has a fate"
        );
        // A page that was stored meanwhile is still to be cut off.
        self.stored = self.stored.filter(|_| self.stored != self.cutting);
        let (mut settled, mut messages, mut again) = (Vec::new(), Vec::new(), Vec::new());
        let sent = std::mem::take(&mut self.in_flight).into_iter();
        for (own, (fate, number)) in sent.zip(said.fates.iter().zip(said.numbers())) {
            if *fate == Fate::Full {
                again.push(own);
                continue;
            }
            if let Some(number) = number {
                messages.push(Arc::new(Message {
                    number,
                    nick: own.saying.nick.clone(),
                    text: own.saying.text.clone(),
                    time: own.saying.time,
                }));
            }
            let (saying, fate) = (own.saying, *fate);
            settled.extend(own.handles.into_iter().map(|handle| Settled {
                handle,
                saying: saying.clone(),
                fate,
                number,
            }));
        }
        self.full = !again.is_empty() && self.stored.is_none();
        self.page_due |= said.page_filled || self.full;
        again
            .into_iter()
            .rev()
            .for_each(|own| self.waiting.push_front(own));
        (settled, messages)
    }

    /// The append has failed, and with it each of its messages. Returns whom to tell.
    pub fn failed(&mut self) -> Vec<H> {
        let sent = std::mem::take(&mut self.in_flight).into_iter();
        sent.flat_map(|own| own.handles).collect()
    }

    /// Takes out what has waited too long. Returns whom to tell.
    pub fn expire(&mut self, now: Duration) -> Vec<H> {
        let (late, waiting): (VecDeque<Waiting<H>>, _) = self
            .waiting
            .drain(..)
            .partition(|own| own.came + PATIENCE <= now);
        self.waiting = waiting;
        late.into_iter().flat_map(|own| own.handles).collect()
    }

    /// Whether a page is to be stored now. The caller stores it, and then calls [`Gather::page_stored`].
    pub fn take_page_due(&mut self) -> bool {
        let due = self.page_due && !self.storing;
        if due {
            self.page_due = false;
            self.storing = true;
        }
        due
    }

    /// A page is stored, or `None` if that failed or there was none to store.
    pub fn page_stored(&mut self, page: Option<u64>) {
        self.storing = false;
        self.full = false;
        self.stored = page.or(self.stored);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::group::Sender;

    fn saying(seq: u64, text: &str) -> Saying {
        Saying {
            sender: Some(Sender::parse(&format!("s/0/{seq}")).unwrap()),
            nick: "ann".to_owned(),
            text: text.to_owned(),
            time: 0,
        }
    }

    fn add(gather: &mut Gather<u32>, handle: u32, text: &str) {
        gather.add(handle, saying(u64::from(handle), text), Duration::ZERO);
    }

    fn texts(say: &Say) -> Vec<&str> {
        say.batch.iter().map(|own| own.text.as_str()).collect()
    }

    #[test]
    fn one_append_is_in_flight_and_what_is_said_meanwhile_follows_as_one() {
        let mut gather = Gather::default();
        add(&mut gather, 1, "one");
        assert_eq!(texts(&gather.next_append().unwrap()), ["one"]);
        add(&mut gather, 2, "two");
        add(&mut gather, 3, "three");
        assert!(gather.next_append().is_none());
        let (told, messages) = gather.answered(&"5 a".parse().unwrap());
        assert_eq!(
            (told[0].handle, told[0].number, messages[0].number),
            (1, Some(5), 5)
        );
        assert_eq!(texts(&gather.next_append().unwrap()), ["two", "three"]);
        assert_eq!(gather.failed(), [2, 3]);
        assert!(gather.is_idle());
    }

    #[test]
    fn what_is_said_again_while_it_waits_is_sent_once_and_both_are_told() {
        let mut gather = Gather::default();
        gather.add(1, saying(1, "x"), Duration::ZERO);
        gather.add(2, saying(1, "x"), Duration::ZERO);
        gather.add(3, saying(1, "other"), Duration::ZERO);
        assert_eq!(texts(&gather.next_append().unwrap()), ["x", "other"]);
        let (told, messages) = gather.answered(&"1 ac".parse().unwrap());
        let told: Vec<_> = told
            .iter()
            .map(|told| (told.handle, told.fate, told.number))
            .collect();
        let appended = Fate::Appended;
        assert_eq!(
            told,
            [
                (1, appended, Some(1)),
                (2, appended, Some(1)),
                (3, Fate::Conflict, None)
            ]
        );
        assert_eq!(messages.len(), 1);
    }

    #[test]
    fn a_full_group_is_told_to_nobody_and_goes_on_in_order_once_its_page_is_stored() {
        let mut gather = Gather::default();
        for handle in 1..=3 {
            add(&mut gather, handle, &handle.to_string());
        }
        gather.next_append();
        let (told, _) = gather.answered(&"128 aff+".parse().unwrap());
        assert_eq!(told.len(), 1);
        add(&mut gather, 4, "4");
        assert!(gather.next_append().is_none() && gather.is_full());
        assert!(gather.take_page_due() && !gather.take_page_due());
        gather.page_stored(Some(0));
        let say = gather.next_append().unwrap();
        assert_eq!((texts(&say), say.stored), (vec!["2", "3", "4"], Some(0)));
        gather.failed();
        // A page whose cut may have been lost is told of again.
        add(&mut gather, 5, "5");
        assert_eq!(gather.next_append().unwrap().stored, Some(0));
    }

    #[test]
    fn a_page_that_was_stored_while_an_append_was_in_flight_is_cut_off_by_the_next() {
        let mut gather = Gather::default();
        add(&mut gather, 1, "1");
        gather.next_append();
        gather.page_stored(Some(0));
        gather.answered(&"129 f".parse().unwrap());
        assert!(!gather.is_full() && !gather.take_page_due());
        assert_eq!(gather.next_append().unwrap().stored, Some(0));
        gather.answered(&"129 a".parse().unwrap());
        add(&mut gather, 2, "2");
        assert_eq!(gather.next_append().unwrap().stored, None);
    }

    #[test]
    fn a_message_waits_for_a_second_and_no_longer() {
        let mut gather = Gather::default();
        gather.add(1, saying(1, "x"), Duration::ZERO);
        gather.add(2, saying(2, "y"), Duration::from_millis(500));
        assert_eq!(gather.expire(Duration::from_millis(999)), [0; 0]);
        assert_eq!(gather.expire(Duration::from_millis(1000)), [1]);
        assert_eq!(texts(&gather.next_append().unwrap()), ["y"]);
    }
}
