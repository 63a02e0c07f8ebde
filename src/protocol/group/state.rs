//! What the keys of a group hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::name::SenderId;
use super::sizes::sizes;
use crate::bytes::Value;

/// Once nicks and texts of the open messages have so many bytes, only half as many may be open.
const MUCH_OPEN: usize = 28 << 10;

/// More than a message takes in memory, in bytes.
pub const MOST_MESSAGE_BYTES: usize = 1200;

/// One message of a group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Message {
    /// Its place in the group's order, from 1.
    pub number: u64,
    pub nick: String,
    pub text: String,
    /// When its node received it, in milliseconds since 1970 by that node's clock. It is only shown.
    pub time: u64,
}

/// The page that a number is on. Page k has the numbers 32 k + 1 to 32 k + 32.
pub fn page_of(number: u64) -> u64 {
    (number - 1) / sizes().page
}

/// The last number of a page.
pub fn last_of_page(page: u64) -> u64 {
    (page + 1) * sizes().page
}

/// What the key `#name` holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The number of the next message.
    pub next: u64,
    /// The messages after the last page that is known to be stored, in order.
    pub open: Vec<Arc<Message>>,
    /// For each sender the number within its session of its last message, and that message's number.
    pub senders: BTreeMap<SenderId, (u64, u64)>,
    /// The highest last number of a sender that was forgotten.
    pub horizon: u64,
}

/// What the key of a page holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    pub page: u64,
    /// Its messages in order. After a [`trim`](super::trim) in its middle the first ones are missing.
    pub messages: Vec<Arc<Message>>,
}

impl Default for Group {
    fn default() -> Group {
        Group {
            next: 1,
            open: Vec::new(),
            senders: BTreeMap::new(),
            horizon: 0,
        }
    }
}

impl Group {
    /// The group that a value holds; a new one if there is no value.
    ///
    /// # Errors
    /// The value is not that of a group.
    pub fn of(value: Option<&Value>) -> Result<Group, serde_json::Error> {
        value.map_or(Ok(Group::default()), |value| {
            serde_json::from_slice(value.as_slice())
        })
    }

    /// What its key holds.
    pub fn to_value(&self) -> Value {
        to_value(self)
    }

    /// The number of the first message in `open`, or of the next message if there is none.
    pub fn first_open(&self) -> u64 {
        self.open.first().map_or(self.next, |first| first.number)
    }

    /// The page that `open` begins with, if it has filled.
    pub fn front_page(&self) -> Option<Page> {
        let page = page_of(self.open.first()?.number);
        let last = last_of_page(page);
        let end = self
            .open
            .iter()
            .position(|message| message.number == last)?;
        Some(Page {
            page,
            messages: self.open[..=end].to_vec(),
        })
    }

    /// Takes a page out of `open`, which was stored. Nothing happens if that was done before.
    pub fn cut(&mut self, page: u64) {
        if self.front_page().is_some_and(|front| front.page == page) {
            self.open.retain(|message| page_of(message.number) > page);
        }
    }

    /// Whether a page has to be stored before any other message is appended.
    pub fn is_full(&self) -> bool {
        let length = |message: &Arc<Message>| message.nick.len() + message.text.len();
        let bytes = || self.open.iter().map(length).sum::<usize>();
        let count = self.open.len();
        let most = sizes().open;
        count >= most || (count >= most / 2 && bytes() > MUCH_OPEN)
    }
}

impl Page {
    /// What stands at the place of a page whose messages were given up.
    pub fn empty(page: u64) -> Page {
        let messages = Vec::new();
        Page { page, messages }
    }

    /// What its key holds.
    pub fn to_value(&self) -> Value {
        to_value(self)
    }

    /// The page that a value holds, if it holds one.
    pub fn of(value: Option<&Value>) -> Option<Page> {
        serde_json::from_slice(value?.as_slice()).ok()
    }
}

fn to_value(content: &impl Serialize) -> Value {
    let text = serde_json::to_string(content);
    text.expect("text and numbers become JSON").into()
}
