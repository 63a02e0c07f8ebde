//! How what happens in groups is printed.

use std::fmt::Write;

use super::text::{failure, value_text};
use crate::error::Failure;
use crate::node::groups::{News, Presence, Receipt};
use crate::protocol::group::{GroupName, Item, Sender};

/// What a member is told, as whole lines.
pub fn news(group: &GroupName, news: News) -> String {
    let mut lines = String::new();
    match news {
        News::Items(items) => items.iter().for_each(|item| print(group, item, &mut lines)),
        News::Unreadable => lines = format!("BEHIND {group}\n"),
    }
    lines
}

fn print(group: &GroupName, item: &Item, lines: &mut String) {
    let _ = match item {
        Item::Message(message) => {
            let text = value_text(message.text.as_str().into());
            let (number, time, nick) = (message.number, message.time, &message.nick);
            writeln!(lines, "MSG {group} {number} {time} {nick} {text}")
        }
        Item::Missed(from, to) => writeln!(lines, "MISSED {group} {from} {to}"),
    };
}

/// The reply to `SAY`, and to `SEND` with this name.
pub fn receipt(result: &Result<Receipt, Failure>, sender: Option<&Sender>) -> String {
    let (since, seq) = sender.map_or((0, 0), |sender| (sender.since, sender.seq));
    match result {
        Ok(Receipt::Done(Some(number))) => format!("OK {number}\n"),
        Ok(Receipt::Done(None)) => "OK ?\n".to_owned(),
        Ok(Receipt::Conflict) => format!("CONFLICT {seq}\n"),
        Ok(Receipt::Gone(horizon)) => format!("GONE {horizon}\n"),
        Ok(Receipt::Beyond) => failure(&Failure::Syntax(format!(
            "nobody was shown message {since} yet: the group is not as long"
        ))),
        Err(error) => failure(error),
    }
}

/// A line of `WHO`.
pub fn presence(presence: &Presence) -> String {
    match presence {
        Presence::Member(node, nick) => format!("MEMBER {node} {nick}"),
        Presence::Silent(node) => format!("SILENT {node}"),
    }
}
