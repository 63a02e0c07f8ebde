//! The changes of a group.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::name::Sender;
use super::sizes::sizes;
use super::state::{Group, Message, Page};
use crate::bytes::Value;
use crate::testing::rules::{self, Rule};

/// Appends messages to a group, in order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Say {
    /// At most 32, so that the answer is short enough.
    pub batch: Vec<Saying>,
    /// The page of this number is stored: `open` does not need it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<u64>,
}

/// A message that has no number yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Saying {
    /// Without one it is appended once for each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Sender>,
    pub nick: String,
    pub text: String,
    pub time: u64,
}

/// What became of one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It was appended.
    Appended,
    /// It had been appended before.
    Before,
    /// The one before it in its session has not been appended, so it was not.
    Gap,
    /// Its sender may have been forgotten, so nobody can tell whether it was appended before. It was not
    /// appended now, and never will be.
    Gone,
    /// Nobody can have been shown as many messages as it says. It was not appended.
    Beyond,
    /// A page must be stored first. It was not appended.
    Full,
    /// Another text was sent under the same name. It was not appended.
    Conflict,
}

/// Each fate with its letter in an answer.
const LETTERS: [(Fate, char); 7] = [
    (Fate::Appended, 'a'),
    (Fate::Before, 'b'),
    (Fate::Gap, 'g'),
    (Fate::Gone, 'o'),
    (Fate::Beyond, 'y'),
    (Fate::Full, 'f'),
    (Fate::Conflict, 'c'),
];

/// The answer of a [`Say`]. As text it has at most 51 bytes, such as `17 aagb+`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// The number of the first message that was appended; the others follow it.
    pub first: u64,
    /// One for each message of the batch.
    pub fates: Vec<Fate>,
    /// Whether a page filled.
    pub page_filled: bool,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.first)?;
        for fate in &self.fates {
            let found = LETTERS.iter().find(|(known, _)| known == fate);
            write!(f, "{}", found.expect("each fate has a letter").1)?;
        }
        f.write_str(if self.page_filled { "+" } else { "" })
    }
}

impl FromStr for Said {
    type Err = String;

    fn from_str(text: &str) -> Result<Said, String> {
        let wrong = || format!("this is not the answer of a group: {text}");
        let (first, letters) = text.split_once(' ').ok_or_else(wrong)?;
        let page_filled = letters.ends_with('+');
        let fate = |letter| LETTERS.iter().find(|(_, known)| *known == letter);
        let fates: Option<Vec<Fate>> = letters
            .trim_end_matches('+')
            .chars()
            .map(|letter| Some(fate(letter)?.0))
            .collect();
        Ok(Said {
            first: first.parse().map_err(|_| wrong())?,
            fates: fates.ok_or_else(wrong)?,
            page_filled,
        })
    }
}

impl Said {
    /// The number of each message of the batch that was appended, in order; `None` for the others.
    pub fn numbers(&self) -> Vec<Option<u64>> {
        let mut next = self.first;
        let mut number = |fate: &Fate| {
            (*fate == Fate::Appended).then(|| {
                next += 1;
                next - 1
            })
        };
        self.fates.iter().map(&mut number).collect()
    }
}

/// Carries out a [`Say`]: the group's new value, unless nothing changes, and the answer.
pub fn say(value: Option<&Value>, say: &Say) -> (Option<Value>, String) {
    let Ok(before) = Group::of(value) else {
        return (None, "the key holds something else than a group".to_owned());
    };
    let mut group = before.clone();
    if let Some(page) = say.stored {
        group.cut(page);
    }
    let first = group.next;
    let mut fates = Vec::with_capacity(say.batch.len());
    for saying in &say.batch {
        // What follows must not overtake what has to come again.
        let fate = match fates.last() {
            Some(Fate::Full) => Fate::Full,
            _ => take(&mut group, saying),
        };
        fates.push(fate);
    }
    let page_filled = (first..group.next).any(|number| number % sizes().page == 0);
    let answer = Said {
        first,
        fates,
        page_filled,
    };
    (
        (group != before).then(|| group.to_value()),
        answer.to_string(),
    )
}

/// Appends one message, or tells why not.
fn take(group: &mut Group, saying: &Saying) -> Fate {
    if let Some(sender) = &saying.sender
        && let Some(fate) = look_up(group, sender, &saying.text)
    {
        return fate;
    }
    // Rule 3.
    if group.is_full() && rules::holds(Rule::FullRefused) {
        return Fate::Full;
    }
    let number = group.next;
    group.next += 1;
    group.open.push(Arc::new(Message {
        number,
        nick: saying.nick.clone(),
        text: saying.text.clone(),
        time: saying.time,
    }));
    if let Some(Sender { id, seq, .. }) = &saying.sender {
        group.senders.insert(id.clone(), (*seq, number));
        forget_one(group);
    }
    Fate::Appended
}

/// Why a message is not appended, if it is not.
fn look_up(group: &Group, sender: &Sender, text: &str) -> Option<Fate> {
    match group.senders.get(&sender.id) {
        // Rule 1: the session is known.
        Some(&(last, number)) if sender.seq <= last && rules::holds(Rule::SendersKnown) => {
            let same = group.open.iter().find(|message| message.number == number);
            let other = sender.seq == last && same.is_some_and(|message| message.text != text);
            Some(if other { Fate::Conflict } else { Fate::Before })
        }
        Some((last, _)) if sender.seq > last + 1 && rules::holds(Rule::GapsRefused) => {
            Some(Fate::Gap)
        }
        Some(_) => None,
        // Rule 2: it is not.
        None if sender.since >= group.next && rules::holds(Rule::SinceChecked) => {
            Some(Fate::Beyond)
        }
        None if sender.since < group.horizon && rules::holds(Rule::HorizonChecked) => {
            Some(Fate::Gone)
        }
        // Its earlier messages may be on their way, so nothing is lost yet.
        None if sender.seq > 1 && rules::holds(Rule::GapIsNotGone) => Some(Fate::Gap),
        None if sender.seq > 1 => Some(Fate::Gone),
        None => None,
    }
}

/// Rule 4: forgets the sender that has been silent the longest, if there are too many.
fn forget_one(group: &mut Group) {
    if group.senders.len() <= sizes().senders {
        return;
    }
    let oldest = group.senders.iter().min_by_key(|(_, (_, number))| *number);
    if let Some((id, &(_, number))) = oldest.map(|(id, last)| (id.clone(), last)) {
        group.senders.remove(&id);
        group.horizon = group.horizon.max(number);
    }
}

/// Stores a page: its new value, unless the same page or a later one is there.
pub fn put_page(value: Option<&Value>, page: &Page) -> Option<Value> {
    let is_there = Page::of(value).is_some_and(|stored| stored.page >= page.page);
    (!is_there || !rules::holds(Rule::PagesGoForward)).then(|| page.to_value())
}

/// Empties a page: its new value, unless nothing changes. It is there, empty, even if it was never stored, lest
/// somebody stores it late. A page after it stays.
pub fn trim_page(value: Option<&Value>, page: u64) -> Option<Value> {
    let stored = Page::of(value);
    let stays =
        |stored: Page| stored.page > page || (stored.page == page && stored.messages.is_empty());
    (!stored.is_some_and(stays)).then(|| Page::empty(page).to_value())
}

/// Empties a group: its new value, unless nothing changes, and the number of its last message. The numbers go
/// on, and no session goes on that began before.
pub fn trim(value: Option<&Value>) -> (Option<Value>, String) {
    let Ok(before) = Group::of(value) else {
        return (None, "the key holds something else than a group".to_owned());
    };
    let group = Group {
        next: before.next,
        horizon: before.next - 1,
        ..Group::default()
    };
    let last = group.horizon.to_string();
    ((group != before).then(|| group.to_value()), last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST_SENDERS: usize = 128;

    fn saying(session: &str, since: u64, seq: u64, text: &str) -> Saying {
        let sender = (!session.is_empty())
            .then(|| Sender::parse(&format!("{session}/{since}/{seq}")).unwrap());
        Saying {
            sender,
            nick: "ann".to_owned(),
            text: text.to_owned(),
            time: 7,
        }
    }

    /// A group under test.
    #[derive(Default)]
    struct Tested(Option<Value>);

    impl Tested {
        fn say_all(&mut self, stored: Option<u64>, batch: Vec<Saying>) -> Said {
            let (value, answer) = say(self.0.as_ref(), &Say { batch, stored });
            assert!(answer.len() <= 51, "{answer}");
            self.0 = value.or(self.0.take());
            answer.parse().unwrap()
        }

        fn say(&mut self, session: &str, since: u64, seq: u64, text: &str) -> String {
            self.say_all(None, vec![saying(session, since, seq, text)])
                .to_string()
        }

        fn plain(&mut self, count: usize) -> Said {
            self.say_all(None, vec![saying("", 0, 0, "x"); count])
        }

        fn group(&self) -> Group {
            Group::of(self.0.as_ref()).unwrap()
        }
    }

    #[test]
    fn the_state_of_a_group_is_this_json() {
        let mut group = Tested::default();
        group.say("abc", 0, 1, "hi");
        let json = concat!(
            r#"{"next":2,"open":[{"number":1,"nick":"ann","text":"hi","time":7}],"#,
            r#""senders":{"a9993e364706816aba3e2571":[1,1]},"horizon":0}"#
        );
        assert_eq!(group.0.unwrap().to_string(), json);
    }

    #[test]
    fn a_known_session_goes_on_by_one_and_is_told_what_was_done_before() {
        let mut group = Tested::default();
        assert_eq!(group.say("s", 0, 1, "one"), "1 a");
        assert_eq!(group.say("s", 0, 1, "one"), "2 b");
        assert_eq!(group.say("s", 0, 3, "three"), "2 g");
        assert_eq!(group.say("s", 0, 2, "two"), "2 a");
        assert_eq!(group.say("s", 0, 1, "one"), "3 b");
        assert_eq!(group.group().next, 3);
    }

    #[test]
    fn a_name_that_is_used_for_another_text_is_told_apart() {
        let mut group = Tested::default();
        group.say("s", 0, 1, "one");
        assert_eq!(group.say("s", 0, 1, "other"), "2 c");
        // Once the message is on a page, nobody can tell.
        group.plain(31);
        group.say_all(Some(0), vec![]);
        assert_eq!(group.say("s", 0, 1, "other"), "33 b");
    }

    #[test]
    fn an_unknown_session_begins_with_one_and_with_what_it_can_have_seen() {
        let mut group = Tested::default();
        assert_eq!(group.say("s", 0, 2, "two"), "1 g");
        assert_eq!(group.say("s", 1, 1, "one"), "1 y");
        assert_eq!(group.say("s", 0, 1, "one"), "1 a");
        assert_eq!(group.say("t", 2, 1, "one"), "2 y");
        assert_eq!(group.say("t", 1, 1, "one"), "2 a");
    }

    #[test]
    fn the_sender_that_was_silent_longest_is_forgotten_and_never_taken_for_a_new_one() {
        let mut group = Tested::default();
        for sender in 0..=MOST_SENDERS as u64 {
            if group.group().front_page().is_some() {
                let page = group.group().front_page().unwrap().page;
                group.say_all(Some(page), vec![]);
            }
            group.say(&format!("s{sender}"), 0, 1, "x");
        }
        let state = group.group();
        assert_eq!((state.senders.len(), state.horizon), (MOST_SENDERS, 1));
        let next = state.next;
        assert_eq!(group.say("s0", 0, 1, "x"), format!("{next} o"));
        assert_eq!(group.say("s0", 0, 2, "y"), format!("{next} o"));
        // A session that began after the horizon cannot have been forgotten.
        assert_eq!(group.say("new", 1, 1, "x"), format!("{next} a"));
    }

    #[test]
    fn a_full_group_takes_nothing_until_its_page_is_stored_and_nothing_overtakes() {
        let mut group = Tested::default();
        for _ in 0..4 {
            assert!(group.plain(32).page_filled);
        }
        let mixed = vec![
            saying("s", 0, 1, "one"),
            saying("s", 0, 2, "two"),
            saying("", 0, 0, "x"),
        ];
        assert_eq!(group.say_all(None, mixed.clone()).to_string(), "129 fff");
        // The wrong page, and one that is cut already, change nothing.
        assert_eq!(group.say_all(Some(1), mixed.clone()).to_string(), "129 fff");
        assert_eq!(group.say_all(Some(0), mixed.clone()).to_string(), "129 aaa");
        assert_eq!(group.say_all(Some(0), vec![]).to_string(), "132 ");
        assert_eq!(group.group().first_open(), 33);
        assert_eq!(group.group().front_page().unwrap().messages.len(), 32);
    }

    #[test]
    fn long_messages_fill_a_group_earlier_so_its_state_stays_small() {
        let mut group = Tested::default();
        let long = "x".repeat(1022);
        let mut appended = 0;
        while group.say("", 0, 0, &long).ends_with(['a', '+']) {
            appended += 1;
        }
        assert_eq!(appended, 64);
        assert!(group.0.unwrap().len() < 75 << 10);
    }

    #[test]
    fn a_page_is_stored_unless_it_or_a_later_one_is_there() {
        let page = |page| Page {
            page,
            messages: Vec::new(),
        };
        let stored = put_page(None, &page(3));
        assert_eq!(Page::of(stored.as_ref()), Some(page(3)));
        assert_eq!(put_page(stored.as_ref(), &page(3)), None);
        assert_eq!(put_page(stored.as_ref(), &page(2)), None);
        assert!(put_page(stored.as_ref(), &page(1027)).is_some());
    }

    #[test]
    fn a_trimmed_group_is_empty_and_its_numbers_and_only_new_sessions_go_on() {
        let mut group = Tested::default();
        assert_eq!(trim(None), (None, "0".to_owned()));
        group.say("s", 0, 1, "one");
        group.plain(4);
        let (value, last) = trim(group.0.as_ref());
        assert_eq!(last, "5");
        group.0 = value;
        assert_eq!(trim(group.0.as_ref()).0, None);
        assert_eq!(group.say("s", 0, 1, "one"), "6 o");
        assert_eq!(group.say("t", 5, 1, "new"), "6 a");
        // The page that was trimmed in its middle has the rest.
        group.plain(26);
        let page = group.group().front_page().unwrap();
        assert_eq!(
            (page.page, page.messages[0].number, page.messages.len()),
            (0, 6, 27)
        );
    }

    #[test]
    fn another_value_refuses_every_change_and_is_kept() {
        let value: Value = "an old user's value".into();
        let (new, answer) = say(
            Some(&value),
            &Say {
                batch: vec![saying("", 0, 0, "x")],
                stored: None,
            },
        );
        assert!(new.is_none() && answer.parse::<Said>().is_err() && answer.len() <= 64);
        assert_eq!(trim(Some(&value)).0, None);
    }

    #[test]
    fn the_numbers_of_a_batch_count_what_was_appended() {
        let said: Said = "17 abga+".parse().unwrap();
        assert_eq!(said.numbers(), [Some(17), None, None, Some(18)]);
        assert!(said.page_filled);
        assert_eq!(said.to_string(), "17 abga+");
        assert!(
            "17".parse::<Said>().is_err()
                && "x a".parse::<Said>().is_err()
                && "1 q".parse::<Said>().is_err()
        );
    }
}
