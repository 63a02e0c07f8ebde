//! What must hold of a group, whatever has failed.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::chronicle::{Chronicle, End, Listing, Member, Message, Shown};

/// How soon all members have the same once nothing fails any more.
pub const SETTLED: Duration = Duration::from_secs(2);
/// What a busy machine may add to any time.
pub const SLACK: Duration = Duration::from_secs(1);
/// Messages that are so far behind the last one are kept, at least.
const KEPT: u64 = 1023 * 32;

/// What must hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Invariant {
    /// There is one message per number, and each member is shown all of them in the order of their numbers.
    TotalOrder,
    /// The messages of a stream have ascending numbers.
    Fifo,
    /// Each message that was said is there once. One that is certainly not done is not there.
    Once,
    /// What was acknowledged with a number has this number, and every node lists it so.
    Numbered,
    /// All members have the same soon after the last fault.
    Settled,
}

/// An invariant that does not hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Breach {
    pub invariant: Invariant,
    /// Where to look.
    pub place: String,
    pub seen: String,
    pub expected: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Breach {
            invariant,
            place,
            seen,
            expected,
        } = self;
        write!(f, "{invariant:?}: {place}: {seen}, instead of {expected}")
    }
}

/// Finds what does not hold.
pub fn judge(chronicle: &Chronicle) -> Vec<Breach> {
    let mut judge = Judge {
        chronicle,
        record: BTreeMap::new(),
        breaches: Vec::new(),
    };
    chronicle.members.iter().for_each(|own| judge.member(own));
    chronicle.listings.iter().for_each(|own| judge.listing(own));
    let numbers = judge.numbers();
    judge.order(&numbers);
    judge.ends(&numbers);
    judge.doubled(&numbers);
    judge.settled();
    judge.breaches
}

/// The numbers of each text, ascending.
type Numbers<'a> = HashMap<&'a str, Vec<u64>>;

struct Judge<'a> {
    chronicle: &'a Chronicle,
    /// Each message as it was shown first.
    record: BTreeMap<u64, &'a Message>,
    breaches: Vec<Breach>,
}

impl<'a> Judge<'a> {
    fn breach(
        &mut self,
        invariant: Invariant,
        place: impl Into<String>,
        seen: impl Into<String>,
        expected: impl Into<String>,
    ) {
        self.breaches.push(Breach {
            invariant,
            place: place.into(),
            seen: seen.into(),
            expected: expected.into(),
        });
    }

    /// Checks that what is shown goes on after the number `at`, and that it is what others were shown. Returns the
    /// number of the last message, or `None` after a breach.
    fn goes_on(
        &mut self,
        invariant: Invariant,
        place: &str,
        at: u64,
        shown: &'a [Shown],
    ) -> Option<u64> {
        let mut at = at;
        for item in shown {
            let expected = match item {
                Shown::Message(message) if message.number == at + 1 => {
                    let first = *self.record.entry(message.number).or_insert(message);
                    (message != first).then(|| format!("{first}, as others were shown"))
                }
                Shown::Message(_) => Some(format!("message {}", at + 1)),
                Shown::Missed(from, to) => {
                    let overwritten = self.chronicle.end.saturating_sub(KEPT);
                    let right = *from == at + 1 && from <= to && *to <= overwritten;
                    (!right).then(|| format!("message {}, which is kept", at + 1))
                }
            };
            if let Some(expected) = expected {
                self.breach(invariant, place, item.to_string(), expected);
                return None;
            }
            at = item.last();
        }
        Some(at)
    }

    fn member(&mut self, member: &'a Member) {
        let order = Invariant::TotalOrder;
        let mut at = 0;
        for (count, stay) in member.stays.iter().enumerate() {
            let stays = format!("stay {} at node {}", count + 1, stay.node);
            let place = format!("the member from node {}, {stays}", member.home);
            if stay.after != at {
                let seen = format!("it joined after {}", stay.after);
                return self.breach(order, place, seen, format!("after {at}"));
            }
            match self.goes_on(order, &place, at, &stay.shown) {
                Some(last) => at = last,
                None => return,
            }
        }
        let end = self.chronicle.end;
        if at < end {
            let place = format!("the member from node {}", member.home);
            self.breach(
                order,
                place,
                format!("messages up to {at}"),
                format!("up to {end}"),
            );
        }
    }

    fn listing(&mut self, listing: &'a Listing) {
        let place = format!("HISTORY of node {}", listing.node);
        let (numbered, end) = (Invariant::Numbered, self.chronicle.end);
        let last = self.goes_on(numbered, &place, listing.after, &listing.shown);
        if let Some(last) = last.filter(|last| *last < end) {
            self.breach(
                numbered,
                place,
                format!("messages up to {last}"),
                format!("up to {end}"),
            );
        }
    }

    fn numbers(&self) -> Numbers<'a> {
        let mut numbers = Numbers::new();
        for (number, message) in &self.record {
            numbers.entry(&message.text).or_default().push(*number);
        }
        numbers
    }

    fn order(&mut self, numbers: &Numbers) {
        for stream in &self.chronicle.streams {
            let mut last: Option<(u64, &str)> = None;
            for said in &stream.said {
                let Some(&number) = numbers.get(said.text.as_str()).and_then(|all| all.first())
                else {
                    continue;
                };
                if let Some((before, text)) = last.filter(|(before, _)| *before > number) {
                    let seen = format!("{:?} has number {number}", said.text);
                    let expected = format!("one over {before}, which {text:?} before it has");
                    self.breach(Invariant::Fifo, &stream.name, seen, expected);
                    break;
                }
                last = Some((number, &said.text));
            }
        }
    }

    fn ends(&mut self, numbers: &Numbers) {
        for stream in &self.chronicle.streams {
            for said in &stream.said {
                let there = numbers.get(said.text.as_str()).map(|all| all[0]);
                let place = format!("{}: {:?}", stream.name, said.text);
                let seen = there.map_or("it is not there".to_owned(), |number| {
                    format!("it has number {number}")
                });
                match (said.end, there) {
                    (End::Done(Some(told)), Some(number)) if told != number => {
                        let expected = format!("the number {told} that was acknowledged");
                        self.breach(Invariant::Numbered, place, seen, expected);
                    }
                    (End::Done(_), None) => {
                        let expected = "one that was acknowledged is there";
                        self.breach(Invariant::Once, place, seen, expected);
                    }
                    (End::NotDone, Some(_)) => {
                        let expected = "one that is certainly not done is not there";
                        self.breach(Invariant::Once, place, seen, expected);
                    }
                    (End::Unheard, _) => {
                        let expected = "its sender is told so";
                        self.breach(Invariant::Once, place, seen, expected);
                    }
                    _ => {}
                }
            }
        }
    }

    fn doubled(&mut self, numbers: &Numbers) {
        let said = self
            .chronicle
            .streams
            .iter()
            .flat_map(|stream| &stream.said);
        let said: HashMap<&str, ()> = said.map(|own| (own.text.as_str(), ())).collect();
        for (text, numbers) in numbers {
            let place = format!("{text:?}");
            if numbers.len() > 1 {
                let seen = format!("it has the numbers {numbers:?}");
                self.breach(Invariant::Once, place, seen, "one number");
            } else if !said.contains_key(text) {
                let seen = format!("it has number {}", numbers[0]);
                self.breach(
                    Invariant::Once,
                    place,
                    seen,
                    "nothing, since nobody said it",
                );
            }
        }
    }

    fn settled(&mut self) {
        let seen = match self.chronicle.settled.map(Duration::from_millis) {
            Some(after) if after <= SETTLED + SLACK => return,
            Some(after) => format!("they are after {after:?}"),
            None => "they are not".to_owned(),
        };
        let place = format!("all members have been shown message {}", self.chronicle.end);
        self.breach(
            Invariant::Settled,
            place,
            seen,
            format!("within {SETTLED:?}"),
        );
    }
}
