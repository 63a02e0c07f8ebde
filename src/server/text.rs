//! How replies are printed: each a line, or several that end with `END count`.

use std::borrow::Cow;
use std::fmt::{Arguments, Write};

use crate::bytes::Bytes;
use crate::error::Failure;
use crate::node::listing::Pair;
use crate::protocol::version::VectorClock;
use crate::protocol::{Outcome, Verdict};

/// The room for what a reply says besides a value, in bytes: most versions are shorter.
const ROOM: usize = 100;

/// The reply to a request for one key.
pub fn outcome(result: &Result<Outcome, Failure>) -> String {
    match result {
        Ok(Outcome::Found { value, version }) => {
            let value = value_text(text_of(value));
            line(value.len(), format_args!("VALUE {version} {value}"))
        }
        Ok(Outcome::Missing) => "NOT_FOUND\n".to_owned(),
        Ok(Outcome::Decided(Verdict::Applied(Some(version)))) => {
            line(0, format_args!("OK {version}"))
        }
        Ok(Outcome::Decided(Verdict::Applied(None))) => "OK ?\n".to_owned(),
        Ok(Outcome::Decided(Verdict::Refused(version))) => {
            format!("CONFLICT {}\n", version_text(version.as_ref()))
        }
        Ok(Outcome::Decided(Verdict::RefusedBefore)) => "CONFLICT ?\n".to_owned(),
        // The router makes failures of the first two, and groups take their own answers.
        Ok(
            Outcome::Superseded | Outcome::Failed { .. } | Outcome::Decided(Verdict::Answered(_)),
        ) => failure(&Failure::Unknown(
            "the request ended without an answer".to_owned(),
        )),
        Err(error) => failure(error),
    }
}

/// The reply to a `DEL`: a refused one found nothing to delete.
pub fn deletion(result: &Result<Outcome, Failure>) -> String {
    match result {
        Ok(Outcome::Decided(Verdict::Refused(_) | Verdict::RefusedBefore)) => {
            "NOT_FOUND\n".to_owned()
        }
        other => outcome(other),
    }
}

/// An error, in one line whatever its text.
pub fn failure(failure: &Failure) -> String {
    let text = failure.text().replace(char::is_control, " ");
    format!("ERROR {} {text}\n", failure.code())
}

/// What a client is told when all clients together do too much of something.
pub fn busy(doing: &str) -> Failure {
    Failure::Busy(format!("too many clients {doing} at once; try again later"))
}

/// One line of a listing.
pub fn pair(pair: &Pair) -> String {
    format!(
        "PAIR {} {} {}\n",
        key_text(&pair.key),
        pair.version,
        value_text(text_of(&pair.value))
    )
}

/// The last line of a reply with several.
pub fn end(count: u64) -> String {
    format!("END {count}\n")
}

/// Lines, and the line that ends them.
pub fn listing(lines: impl IntoIterator<Item = String>) -> String {
    let mut text = String::new();
    let mut count = 0;
    for line in lines {
        let _ = writeln!(text, "{line}");
        count += 1;
    }
    text + &end(count)
}

/// One line, made in a single piece of memory unless it is unusually long.
fn line(value: usize, text: Arguments) -> String {
    let mut line = String::with_capacity(ROOM + value);
    let _ = writeln!(line, "{text}");
    line
}

fn version_text(version: Option<&VectorClock>) -> String {
    version.map_or("-".to_owned(), |version| version.to_string())
}

fn text_of(bytes: &Bytes) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes.as_slice())
}

/// A key as a word where it is one, otherwise as a JSON string.
fn key_text(key: &Bytes) -> Cow<'_, str> {
    quoted_if(text_of(key), |text| text.is_empty() || text.contains(' '))
}

/// A value as it is where it fits the rest of a line, otherwise as a JSON string.
pub(super) fn value_text(value: Cow<'_, str>) -> Cow<'_, str> {
    quoted_if(value, |_| false)
}

fn quoted_if(text: Cow<'_, str>, needs_quotes: impl Fn(&str) -> bool) -> Cow<'_, str> {
    if text.starts_with('"') || text.chars().any(char::is_control) || needs_quotes(&text) {
        serde_json::Value::from(text).to_string().into()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(value: &str) -> String {
        let version = "5554:12,5556:3".parse().unwrap();
        outcome(&Ok(Outcome::Found {
            value: value.into(),
            version,
        }))
    }

    #[test]
    fn replies_are_these_lines() {
        assert_eq!(found("v w "), "VALUE 5554:12,5556:3 v w \n");
        assert_eq!(found(""), "VALUE 5554:12,5556:3 \n");
        assert_eq!(found("\"x"), "VALUE 5554:12,5556:3 \"\\\"x\"\n");
        assert_eq!(found("a\nb"), "VALUE 5554:12,5556:3 \"a\\nb\"\n");
        let applied = |version| Ok(Outcome::Decided(Verdict::Applied(version)));
        let refused = |version| Ok(Outcome::Decided(Verdict::Refused(version)));
        let version: VectorClock = "1:2".parse().unwrap();
        assert_eq!(outcome(&applied(Some(version.clone()))), "OK 1:2\n");
        assert_eq!(outcome(&applied(None)), "OK ?\n");
        assert_eq!(outcome(&refused(Some(version))), "CONFLICT 1:2\n");
        assert_eq!(outcome(&refused(None)), "CONFLICT -\n");
        assert_eq!(outcome(&Ok(Outcome::Missing)), "NOT_FOUND\n");
        assert_eq!(deletion(&refused(None)), "NOT_FOUND\n");
        assert_eq!(deletion(&applied(None)), "OK ?\n");
        let before = Ok(Outcome::Decided(Verdict::RefusedBefore));
        assert_eq!(outcome(&before), "CONFLICT ?\n");
        assert_eq!(deletion(&before), "NOT_FOUND\n");
        assert_eq!(failure(&Failure::Busy("a\nb".into())), "ERROR BUSY a b\n");
        assert_eq!(listing(["a".to_owned(), "b".to_owned()]), "a\nb\nEND 2\n");
    }

    #[test]
    fn a_pair_can_be_read_back_whatever_its_key() {
        let pair_of = |key: &str| Pair {
            key: key.into(),
            version: "1:1".parse().unwrap(),
            value: "v".into(),
        };
        assert_eq!(pair(&pair_of("k")), "PAIR k 1:1 v\n");
        assert_eq!(pair(&pair_of("my key")), "PAIR \"my key\" 1:1 v\n");
        assert_eq!(pair(&pair_of("")), "PAIR \"\" 1:1 v\n");
    }
}
