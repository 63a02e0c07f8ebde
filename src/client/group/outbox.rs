//! What a client says in a group: when it is sent, and when it is sent again.
//!
//! Nothing is sent again while a `SEND` is in flight on the same connection, so each reply is about the latest
//! try.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::speaker::Speaker;
use crate::protocol::group::GroupName;

/// How long to leave a node alone that could not append a message.
const PAUSE: Duration = Duration::from_millis(100);
/// The most messages that may be unacknowledged. A node takes 64 requests ahead.
const MOST_UNACKNOWLEDGED: usize = 32;

/// A `SEND` request.
pub struct Sending {
    /// How the message is named: `session/since/seq`.
    pub name: String,
    /// The whole line, without its end.
    pub line: String,
}

/// What became of a message.
pub enum Receipt {
    Acknowledged,
    /// It is sent again when it is time.
    SentAgain,
    /// The node will never take it.
    Refused,
}

pub struct Outbox {
    group: GroupName,
    speaker: Speaker,
    /// How many `SEND` requests are not answered on this connection.
    in_flight: usize,
    /// When all that is unacknowledged is sent again. Until then nothing is sent, since it would leave a gap.
    send_again_at: Option<Instant>,
    /// The session was forgotten: the first number that a `GONE` told of it.
    gone: Option<u64>,
}

impl Outbox {
    pub fn new(group: GroupName) -> Outbox {
        Outbox {
            group,
            speaker: Speaker::new(new_session()),
            in_flight: 0,
            send_again_at: None,
            gone: None,
        }
    }

    /// The highest number in any reply, and of any message.
    pub fn shown(&self) -> u64 {
        self.speaker.shown()
    }

    /// A number was in a reply, or a message with it came.
    pub fn show(&mut self, number: u64) {
        self.speaker.show(number);
    }

    /// Whether one more may be said.
    pub fn has_room(&self) -> bool {
        self.speaker.unacknowledged().count() < MOST_UNACKNOWLEDGED
    }

    pub fn is_empty(&self) -> bool {
        self.speaker.unacknowledged().next().is_none()
    }

    /// The texts that are not acknowledged.
    pub fn unacknowledged(&self) -> Vec<String> {
        let own = self.speaker.unacknowledged();
        own.map(|(_, text)| text.to_owned()).collect()
    }

    /// Says something. Without a connection it is sent when there is one.
    pub fn say(&mut self, text: String, is_connected: bool) -> Option<Sending> {
        self.speaker.say(text);
        if !is_connected || self.send_again_at.is_some() {
            return None;
        }
        self.in_flight += 1;
        self.speaker
            .unacknowledged()
            .next_back()
            .map(|own| self.sending(own))
    }

    /// A new connection begins: what was in flight is lost, and all is sent again at once.
    pub fn begin(&mut self, now: Instant) {
        self.in_flight = 0;
        self.send_again_at = Some(now);
    }

    /// When there is something to send again, if nothing is in flight.
    pub fn sends_again_at(&self) -> Option<Instant> {
        self.send_again_at.filter(|_| self.in_flight == 0)
    }

    /// What is to be sent again now. If the session was forgotten, this begins a new one: the other texts are
    /// perhaps sent, and are not sent again.
    pub fn take_due(&mut self, now: Instant) -> (Vec<Sending>, Vec<String>) {
        if self.sends_again_at().is_none_or(|at| now < at) {
            return (Vec::new(), Vec::new());
        }
        self.send_again_at = None;
        let horizon = self.gone.take();
        let perhaps_sent = horizon.map(|horizon| self.speaker.gone(horizon, new_session()));
        let all = self.speaker.unacknowledged();
        let all: Vec<_> = all.map(|own| self.sending(own)).collect();
        self.in_flight = all.len();
        (all, perhaps_sent.unwrap_or_default())
    }

    /// The reply to the `SEND` of this name came, as words.
    pub fn receive(&mut self, name: &str, reply: &[&str], now: Instant) -> Receipt {
        self.in_flight -= 1;
        match *reply {
            ["OK", number] => {
                self.speaker.acknowledged(name, number.parse().ok());
                return Receipt::Acknowledged;
            }
            ["GONE", horizon] => {
                let horizon = horizon.parse().unwrap_or(0);
                self.speaker.show(horizon);
                self.gone.get_or_insert(horizon);
                self.send_again_at.get_or_insert(now);
            }
            ["CONFLICT", _] | ["ERROR", "BUSY" | "UNAVAILABLE" | "UNKNOWN", ..] => {
                self.send_again_at = Some(now + PAUSE);
            }
            _ => return Receipt::Refused,
        }
        Receipt::SentAgain
    }

    fn sending(&self, (name, text): (String, &str)) -> Sending {
        let line = format!("SEND {} {name} {}", self.group, Value::from(text));
        Sending { name, line }
    }
}

/// A random name for a session: nobody else uses it, and nobody guesses it.
fn new_session() -> String {
    (0..32).map(|_| fastrand::alphanumeric()).collect()
}
