//! What a client of a group has said and not heard the end of, so that nothing is lost or doubled when it goes on
//! at another node.

use std::collections::VecDeque;

/// The side of one client that speaks in a group.
pub struct Speaker {
    session: String,
    /// The number that had been shown when the session began.
    since: u64,
    /// How many messages the session has.
    said: u64,
    /// The highest number in any reply, and of any message.
    shown: u64,
    unacknowledged: VecDeque<Unacknowledged>,
}

struct Unacknowledged {
    seq: u64,
    text: String,
    /// The number that had been shown when it was first said. A message that is sent again keeps it.
    shown: u64,
}

impl Speaker {
    /// Nothing is said yet. `session` is a random name that nobody else uses.
    pub fn new(session: String) -> Speaker {
        Speaker {
            session,
            since: 0,
            said: 0,
            shown: 0,
            unacknowledged: VecDeque::new(),
        }
    }

    /// The number that has been shown.
    pub fn shown(&self) -> u64 {
        self.shown
    }

    /// A number was in a reply, or a message with it came.
    pub fn show(&mut self, number: u64) {
        self.shown = self.shown.max(number);
    }

    /// Says something. What is to be sent is among the [unacknowledged](Speaker::unacknowledged) from now on.
    pub fn say(&mut self, text: String) {
        if self.said == 0 {
            self.since = self.shown;
        }
        self.said += 1;
        self.unacknowledged.push_back(Unacknowledged {
            seq: self.said,
            text,
            shown: self.shown,
        });
    }

    /// What is not acknowledged, in order: each with its name, `session/since/seq`, and its text.
    pub fn unacknowledged(&self) -> impl DoubleEndedIterator<Item = (String, &str)> {
        self.unacknowledged.iter().map(|own| {
            let name = format!("{}/{}/{}", self.session, self.since, own.seq);
            (name, own.text.as_str())
        })
    }

    /// A message of this name is done, with this number if it is known.
    pub fn acknowledged(&mut self, name: &str, number: Option<u64>) {
        let (session, since) = (&self.session, self.since);
        let is_it = |own: &Unacknowledged| name == format!("{session}/{since}/{}", own.seq);
        self.unacknowledged.retain(|own| !is_it(own));
        number.into_iter().for_each(|number| self.show(number));
    }

    /// The session is forgotten, and messages up to `horizon` may have been of it. All that is certainly not
    /// there is said again in the new session. Returns the texts that are perhaps there.
    pub fn gone(&mut self, horizon: u64, new_session: String) -> Vec<String> {
        self.show(horizon);
        self.session = new_session;
        self.said = 0;
        let mut perhaps_sent = Vec::new();
        for own in std::mem::take(&mut self.unacknowledged) {
            if own.shown < horizon {
                perhaps_sent.push(own.text);
            } else {
                self.say(own.text);
            }
        }
        perhaps_sent
    }

    /// A mistake, for tests: forgets what had been shown when each message was first said.
    #[cfg(debug_assertions)]
    pub fn renew_shown(&mut self) {
        let shown = self.shown;
        self.unacknowledged
            .iter_mut()
            .for_each(|own| own.shown = shown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(speaker: &Speaker) -> Vec<String> {
        speaker.unacknowledged().map(|(name, _)| name).collect()
    }

    #[test]
    fn messages_are_numbered_within_a_session_that_says_what_it_had_seen() {
        let mut speaker = Speaker::new("s".to_owned());
        speaker.show(7);
        speaker.say("a".to_owned());
        speaker.show(9);
        speaker.say("b".to_owned());
        assert_eq!(names(&speaker), ["s/7/1", "s/7/2"]);
        speaker.acknowledged("s/7/1", Some(12));
        assert_eq!(names(&speaker), ["s/7/2"]);
        assert_eq!(speaker.shown(), 12);
    }

    #[test]
    fn only_what_cannot_be_there_is_said_again_in_a_new_session() {
        let mut speaker = Speaker::new("s".to_owned());
        speaker.say("a".to_owned());
        speaker.show(20);
        speaker.say("b".to_owned());
        assert_eq!(speaker.gone(15, "t".to_owned()), ["a"]);
        assert_eq!(names(&speaker), ["t/20/1"]);
    }
}
