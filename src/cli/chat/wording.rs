//! How news are worded.

use std::time::Duration;

use jiff::{Timestamp, Zoned};

use crate::client::group::News;
use crate::protocol::group::{GroupName, Message};
use crate::protocol::ring::NodeId;

/// How a terminal shows what follows.
const DIM: &str = "2";
const BOLD: &str = "1";
const GREEN: &str = "32";
/// How many characters of a text are repeated in a notice.
const START: usize = 40;

/// What the words depend on.
pub struct Wording {
    pub group: GroupName,
    pub nick: String,
    /// The nodes by their places.
    pub ids: Vec<NodeId>,
    /// How long it takes to give up.
    pub patience: Duration,
    pub has_colors: bool,
}

impl Wording {
    /// The line for a message. The time is that of `now`'s time zone.
    pub fn message(&self, message: &Message, now: &Zoned) -> String {
        let style = if message.nick == self.nick {
            GREEN
        } else {
            BOLD
        };
        let time = self.styled(DIM, &clock(message.time, now));
        let nick = self.styled(style, &harmless(&message.nick));
        format!("{time} {nick} {}", harmless(&message.text))
    }

    /// What a person is told of anything else.
    pub fn notice(&self, news: &News) -> String {
        let text = match news {
            News::Message(message) => format!("message {}", message.number),
            News::Joined { node, left: None } => {
                let id = self.ids[*node];
                format!("in {} through node {id}; Ctrl-D leaves", self.group)
            }
            News::Joined {
                node,
                left: Some(left),
            } => {
                format!(
                    "{}; going on at node {}",
                    self.trouble(left),
                    self.ids[*node]
                )
            }
            News::Missed { from, to } => format!("messages {from} to {to} are not kept any more"),
            News::Unreachable(last) => {
                let last = self.trouble(last);
                format!("no node can be reached, the last: {last}; still trying")
            }
            News::PerhapsSent(text) => format!("perhaps sent: {text}"),
            News::NotSent { text, why } => format!("not sent: {why}: {}", start_of(text)),
            News::GaveUp {
                left,
                unacknowledged,
            } => self.given_up(left.as_ref(), unacknowledged),
        };
        harmless(&text)
    }

    /// A notice as a terminal shows it.
    pub fn styled_notice(&self, text: &str) -> String {
        self.styled(DIM, &format!("-- {text}"))
    }

    fn trouble(&self, (node, why): &(usize, String)) -> String {
        format!("node {} {why}", self.ids[*node])
    }

    fn given_up(&self, left: Option<&(usize, String)>, unacknowledged: &[String]) -> String {
        let why = match left {
            Some(left) => self.trouble(left),
            None => format!("nothing was acknowledged for {:?}", self.patience),
        };
        let lost = match unacknowledged {
            [] => String::new(),
            [first, ..] => {
                let (count, first) = (unacknowledged.len(), start_of(first));
                format!(
                    " {count} messages are not acknowledged, and none after them is sent; the first: {first}."
                )
            }
        };
        format!("gave up: {why}.{lost} dynamo status tells how the nodes are")
    }

    fn styled(&self, style: &str, text: &str) -> String {
        if self.has_colors {
            format!("\x1b[{style}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// The time of day, with the date if that is not today.
fn clock(millis: u64, now: &Zoned) -> String {
    let time = i64::try_from(millis).ok().map(Timestamp::from_millisecond);
    let Some(Ok(time)) = time else {
        return "--:--".to_owned();
    };
    let time = time.to_zoned(now.time_zone().clone());
    let is_today = time.date() == now.date();
    let format = if is_today { "%H:%M" } else { "%Y-%m-%d %H:%M" };
    time.strftime(format).to_string()
}

/// The text without characters that could control a terminal, or show a line in another order.
fn harmless(text: &str) -> String {
    let is_harmful =
        |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.replace(is_harmful, "\u{fffd}")
}

fn start_of(text: &str) -> String {
    let mut start: String = text.chars().take(START).collect();
    if start.len() < text.len() {
        start.push_str("...");
    }
    start
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use jiff::tz::TimeZone;

    use super::*;

    fn wording() -> Wording {
        Wording {
            group: GroupName::parse("g").unwrap(),
            nick: "ann".to_owned(),
            ids: [5554, 5556].map(NodeId).to_vec(),
            patience: Duration::from_secs(10),
            has_colors: false,
        }
    }

    fn now() -> Zoned {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        date(1970, 1, 2).at(12, 0, 0, 0).to_zoned(zone).unwrap()
    }

    #[test]
    fn a_message_has_the_local_time_and_of_another_day_the_date() {
        let line = |time| {
            let (nick, text) = ("bob".to_owned(), "hello".to_owned());
            let message = Message {
                number: 7,
                nick,
                text,
                time,
            };
            wording().message(&message, &now())
        };
        let minute = 60_000;
        let day = 24 * 60 * minute;
        assert_eq!(line(day + minute), "02:01 bob hello");
        assert_eq!(line(minute), "1970-01-01 02:01 bob hello");
        // It is the next day there already.
        assert_eq!(line(day - minute), "01:59 bob hello");
        assert_eq!(line(u64::MAX), "--:-- bob hello");
    }

    #[test]
    fn nothing_that_came_from_elsewhere_controls_the_terminal() {
        let text = "a\x1b[2Jb\u{9b}c\rd\u{202e}e\u{2066}f\u{2028}g\tgr\u{fc}n".to_owned();
        let message = Message {
            number: 1,
            nick: "n\x07".to_owned(),
            text: text.clone(),
            time: 0,
        };
        let clean = "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\u{fffd}e\u{fffd}f\u{fffd}g\u{fffd}gr\u{fc}n";
        let line = wording().message(&message, &now());
        assert_eq!(line, format!("1970-01-01 02:00 n\u{fffd} {clean}"));
        let why = text.clone();
        for news in [
            News::PerhapsSent(text.clone()),
            News::NotSent {
                text,
                why: why.clone(),
            },
            News::Unreachable((0, why.clone())),
            News::Joined {
                node: 1,
                left: Some((0, why)),
            },
        ] {
            let notice = wording().notice(&news);
            assert!(
                notice.contains(clean) && !notice.contains('\x1b'),
                "{notice:?}"
            );
        }
    }

    #[test]
    fn notices_name_the_nodes_and_what_was_not_acknowledged() {
        let notice = |news| wording().notice(&news);
        let left = Some((0, "does not answer".to_owned()));
        assert_eq!(
            notice(News::Joined {
                node: 1,
                left: left.clone()
            }),
            "node 5554 does not answer; going on at node 5556"
        );
        let text = "x".repeat(50);
        assert_eq!(
            notice(News::GaveUp {
                left,
                unacknowledged: vec![text, "y".to_owned()]
            }),
            format!(
                "gave up: node 5554 does not answer. 2 messages are not acknowledged, and none after them is \
                 sent; the first: {}.... dynamo status tells how the nodes are",
                "x".repeat(40)
            )
        );
        assert_eq!(
            notice(News::GaveUp {
                left: None,
                unacknowledged: Vec::new()
            }),
            "gave up: nothing was acknowledged for 10s. dynamo status tells how the nodes are"
        );
    }
}
