//! The names of groups and senders.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::bytes::Key;

use super::sizes::sizes;

/// Longest name of a group, a sender or a session, in bytes.
const MAX_NAME: usize = 32;
/// Longest text of a message as a JSON string, in bytes.
const MAX_TEXT: usize = 1 << 10;
/// Numbers of messages stay below this, so that every JSON reader understands them.
pub const MOST_NUMBER: u64 = 1 << 53;

/// The name of a group: 1 to 32 bytes without spaces, control characters, `/`, `"` and `#`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupName(String);

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl GroupName {
    /// Understands a name. One leading `#` is dropped.
    ///
    /// # Errors
    /// What a name may consist of.
    pub fn parse(text: &str) -> Result<GroupName, String> {
        let name = text.strip_prefix('#').unwrap_or(text);
        check("a group", name, "/\"#")?;
        Ok(GroupName(name.to_owned()))
    }

    /// The key of the group's state.
    pub fn key(&self) -> Key {
        format!("#{self}").into()
    }

    /// The key at which a page is stored.
    pub fn page_key(&self, page: u64) -> Key {
        format!("#{self}/{}", page % sizes().pages).into()
    }
}

/// Whether a key is that of a group or a page.
pub fn is_of_group(key: &Key) -> bool {
    key.as_slice().starts_with(b"#")
}

/// Checks a nick: 1 to 32 bytes without spaces, `"` and control characters.
///
/// # Errors
/// What a nick may consist of.
pub fn check_nick(text: &str) -> Result<(), String> {
    check("a nick", text, "\"")
}

/// Checks what somebody says: no control characters, and at most 1 KiB as a JSON string.
///
/// # Errors
/// What a text may consist of.
pub fn check_text(text: &str) -> Result<(), String> {
    if text.contains(char::is_control) {
        return Err("a message must not contain control characters".to_owned());
    }
    let length = serde_json::Value::from(text).to_string().len();
    if length > MAX_TEXT {
        return Err(format!(
            "the message has {length} bytes as a JSON string; at most {MAX_TEXT} are allowed"
        ));
    }
    Ok(())
}

fn check(what: &str, text: &str, excluded: &str) -> Result<(), String> {
    let wrong = |c: char| c == ' ' || c.is_control() || excluded.contains(c);
    if text.is_empty() || text.len() > MAX_NAME || text.contains(wrong) {
        return Err(format!(
            "{what} is named by 1 to {MAX_NAME} bytes without spaces, control characters and any of {excluded}"
        ));
    }
    Ok(())
}

/// What stands for a session in a group's state: the first 12 bytes of the SHA-1 of its id, in hexadecimal.
/// Everybody can read the state, and who knew the id could send in the session's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SenderId(String);

impl SenderId {
    /// Hashes the id of a session: 1 to 32 of `A-Z a-z 0-9 _ -`, chosen at random by its client.
    ///
    /// # Errors
    /// What an id may consist of.
    pub fn of_session(id: &str) -> Result<SenderId, String> {
        let right = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if id.is_empty() || id.len() > MAX_NAME || !id.chars().all(right) {
            return Err(format!(
                "a session is named by 1 to {MAX_NAME} of the characters A-Z a-z 0-9 _ and -"
            ));
        }
        let hash = Sha1::digest(id.as_bytes());
        Ok(SenderId(
            hash[..12]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        ))
    }
}

/// Which message of which session this is, so that it is appended at most once and in order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sender {
    pub id: SenderId,
    /// The number up to which its client had been shown messages when the session began.
    pub since: u64,
    /// The number of the message within the session, from 1.
    pub seq: u64,
}

impl Sender {
    /// Understands `session/since/seq`.
    ///
    /// # Errors
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Sender, String> {
        let words: Vec<&str> = text.split('/').collect();
        let [id, since, seq] = words[..] else {
            return Err("a message is named by session/since/seq".to_owned());
        };
        let number = |word: &str, least: u64| {
            let number = word.parse().ok();
            let fits = number.filter(|number| (least..MOST_NUMBER).contains(number));
            fits.ok_or_else(|| format!("{word:?} is no number from {least} to 2^53 - 1"))
        };
        Ok(Sender {
            id: SenderId::of_session(id)?,
            since: number(since, 0)?,
            seq: number(seq, 1)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ring::Position;

    #[test]
    fn names_have_up_to_32_bytes_and_no_characters_that_a_line_or_a_key_needs() {
        let longest = "g".repeat(32);
        for (text, name) in [
            ("g", "g"),
            ("#g", "g"),
            ("gr\u{fc}n", "gr\u{fc}n"),
            (&longest, &longest),
        ] {
            assert_eq!(GroupName::parse(text).unwrap().to_string(), name);
        }
        for text in [
            "",
            "#",
            "##g",
            "a b",
            "a/b",
            "a#",
            "a\"",
            "a\n",
            &"g".repeat(33),
        ] {
            assert!(GroupName::parse(text).is_err(), "{text:?}");
        }
        assert!(check_nick("a#/b").is_ok());
        for nick in ["", "a b", "a\"", "a\u{7f}", &"n".repeat(33)] {
            assert!(check_nick(nick).is_err(), "{nick:?}");
        }
    }

    #[test]
    fn a_group_and_its_pages_are_placed_alike() {
        let group = GroupName::parse("g").unwrap();
        assert_eq!(group.key(), "#g".into());
        assert_eq!(group.page_key(1024 + 7), "#g/7".into());
        let place = Position::of(b"#g");
        assert_eq!(Position::of_key(&group.key()), place);
        assert_eq!(Position::of_key(&group.page_key(7)), place);
        // Other keys with a slash are placed by all their bytes.
        assert_eq!(Position::of_key(&"g/7".into()), Position::of(b"g/7"));
    }

    #[test]
    fn a_sender_is_three_words_and_its_session_is_hashed() {
        let sender = Sender::parse("abc/0/1").unwrap();
        // The SHA-1 of "abc" begins so (FIPS 180).
        assert_eq!(sender.id, SenderId("a9993e364706816aba3e2571".to_owned()));
        assert_eq!((sender.since, sender.seq), (0, 1));
        for wrong in [
            "",
            "abc",
            "abc/1",
            "a/b/0/1",
            "abc/0/0",
            "abc/-1/1",
            "/0/1",
            "a b/0/1",
            "abc/0/9007199254740992",
        ] {
            assert!(Sender::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(Sender::parse("abc/0/9007199254740991").is_ok());
    }
}
