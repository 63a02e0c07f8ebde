//! What a node sends without being asked.

use super::News;
use crate::protocol::group::Message;

/// Understands a `MSG` or `MISSED` line. Returns the highest number that it tells of, too.
pub fn parse(words: &[&str]) -> Option<(u64, News)> {
    match *words {
        ["MSG", _, number, time, nick, text] => {
            let number = number.parse().ok()?;
            let message = Message {
                number,
                nick: nick.to_owned(),
                text: unquoted(text)?,
                time: time.parse().ok()?,
            };
            Some((number, News::Message(message)))
        }
        ["MISSED", _, from, to] => {
            let (from, to) = (from.parse().ok()?, to.parse().ok()?);
            Some((to, News::Missed { from, to }))
        }
        _ => None,
    }
}

/// A text that begins with a double quote is a JSON string.
fn unquoted(text: &str) -> Option<String> {
    if text.starts_with('"') {
        return serde_json::from_str(text).ok();
    }
    Some(text.to_owned())
}
