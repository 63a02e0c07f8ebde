//! A client's connection, as groups see it.

use std::sync::{Arc, Mutex};

use crate::lock;
use crate::protocol::group::{GroupName, Item};
use crate::transport::Outgoing;

/// A member with fewer bytes waiting is told of messages at once.
const KEEPS_UP: usize = 64 << 10;

/// What a member is told.
pub enum News<'a> {
    Items(&'a [Item]),
    /// Its node cannot read the group.
    Unreadable,
}

/// How news of a group is printed for clients, as whole lines.
pub type Print = fn(&GroupName, News) -> String;

/// A client's connection, which may be a member of groups.
pub struct Participant {
    /// The number of the connection at this node.
    pub connection: u64,
    nick: Mutex<String>,
    outgoing: Arc<Outgoing>,
    pub(super) print: Print,
    /// How many replies are under way that no message may cut into.
    replies: Mutex<usize>,
}

/// Keeps messages from a connection until it is dropped.
pub struct Quiet<'a>(&'a Participant);

impl Participant {
    pub fn new(
        connection: u64,
        nick: String,
        outgoing: Arc<Outgoing>,
        print: Print,
    ) -> Arc<Participant> {
        Arc::new(Participant {
            connection,
            nick: Mutex::new(nick),
            outgoing,
            print,
            replies: Mutex::new(0),
        })
    }

    pub fn nick(&self) -> String {
        lock(&self.nick).clone()
    }

    pub fn set_nick(&self, nick: String) {
        *lock(&self.nick) = nick;
    }

    /// No message is sent to the client until what is returned is dropped.
    pub fn quiet(&self) -> Quiet<'_> {
        *lock(&self.replies) += 1;
        Quiet(self)
    }

    /// Whether messages may be sent now.
    pub(super) fn keeps_up(&self) -> bool {
        *lock(&self.replies) == 0 && self.outgoing.waiting() < KEEPS_UP
    }

    /// Sends lines, unless the client does not keep up or is in the middle of a reply.
    pub(super) fn send(&self, lines: &str) -> bool {
        let replies = lock(&self.replies);
        *replies == 0 && self.outgoing.waiting() < KEEPS_UP && self.outgoing.send(lines.as_bytes())
    }

    /// Sends the reply to the client's own request.
    pub(super) fn reply(&self, line: &str) {
        if !self.outgoing.send(line.as_bytes()) {
            self.outgoing.close();
        }
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        *lock(&self.0.replies) -= 1;
    }
}
