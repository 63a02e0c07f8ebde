//! What the clients of one group said and were shown, and what the nodes list of it in the end.

use std::fmt;

use serde::Serialize;

/// All that is known of one group after a run. Its messages are numbered from 1.
#[derive(Clone, Debug, Serialize)]
pub struct Chronicle {
    pub group: String,
    pub streams: Vec<Stream>,
    pub members: Vec<Member>,
    pub listings: Vec<Listing>,
    /// The number of the last message, once everybody had spoken.
    pub end: u64,
    /// How long it took from then on until all members had been shown that message, in milliseconds. `None` if
    /// they were not.
    pub settled: Option<u64>,
}

/// Messages that must be in the group in this order: those of one sender, or those that a client without a session
/// said at one node.
#[derive(Clone, Debug, Serialize)]
pub struct Stream {
    pub name: String,
    pub said: Vec<Said>,
}

/// One message that was said. No other has its text.
#[derive(Clone, Debug, Serialize)]
pub struct Said {
    pub text: String,
    /// The node that it was said at first.
    pub node: u32,
    pub end: End,
    /// From when it was said to its end, in milliseconds.
    pub waited: u64,
    /// Whether the node closed the connection meanwhile, or refused another one: it was down.
    pub node_failed: bool,
}

/// What a speaker knows of a message in the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum End {
    /// It is in the group, with this number if that was told.
    Done(Option<u64>),
    /// It is certainly not there.
    NotDone,
    /// It may be there.
    Unknown,
    /// Its sender asked again and again and has never heard of it.
    Unheard,
}

/// A client that was a member of the group.
#[derive(Clone, Debug, Serialize)]
pub struct Member {
    /// Its first node.
    pub home: u32,
    pub stays: Vec<Stay>,
}

/// What a member was shown from one `JOIN` on.
#[derive(Clone, Debug, Serialize)]
pub struct Stay {
    pub node: u32,
    /// The number in the reply to `JOIN`.
    pub after: u64,
    pub shown: Vec<Shown>,
    /// Whether it ended because the node could not read the group.
    pub behind: bool,
}

/// A line about messages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub enum Shown {
    Message(Message),
    /// Messages that are not kept any more, from the first to the last.
    Missed(u64, u64),
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Message {
    pub number: u64,
    pub time: u64,
    pub nick: String,
    pub text: String,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shown::Message(message) => message.fmt(f),
            Shown::Missed(from, to) => write!(f, "messages {from} to {to} are missed"),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Message {
            number, nick, text, ..
        } = self;
        write!(f, "message {number}, {text:?} of {nick}")
    }
}

impl Shown {
    /// Understands a line about messages of this group.
    pub fn parse(line: &str, group: &str) -> Option<Shown> {
        let words: Vec<&str> = line.splitn(6, ' ').collect();
        match words[..] {
            ["MSG", name, number, time, nick, text] if name == group => {
                Some(Shown::Message(Message {
                    number: number.parse().ok()?,
                    time: time.parse().ok()?,
                    nick: nick.to_owned(),
                    text: text.to_owned(),
                }))
            }
            ["MISSED", name, from, to] if name == group => {
                Some(Shown::Missed(from.parse().ok()?, to.parse().ok()?))
            }
            _ => None,
        }
    }

    /// The number of the last message that it is about.
    pub fn last(&self) -> u64 {
        match self {
            Shown::Message(message) => message.number,
            Shown::Missed(_, last) => *last,
        }
    }
}

/// What `HISTORY` of one node lists after a number, up to the last message.
#[derive(Clone, Debug, Serialize)]
pub struct Listing {
    pub node: u32,
    pub after: u64,
    pub shown: Vec<Shown>,
}
