//! What a client may say: one line, one command.

use std::borrow::Cow;

use super::group_command::{self, GroupCommand};
use crate::bytes::{Bytes, Key, MAX_KEY, MAX_VALUE, Value};
use crate::config::MOST_NODES;
use crate::error::Failure;
use crate::protocol::Change;
use crate::protocol::group::{GroupName, Sender, is_of_group};

/// Longer than the version of any key, in bytes: it has an entry for each node at the most, of 32
/// bytes at the most.
pub const MAX_VERSION: usize = 32 * MOST_NODES;

/// A request line, understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    Request(Request),
    /// `GET @`: what this node holds.
    ListOwn,
    /// `GET *`: every pair in the system.
    ListAll,
    DeleteOwn,
    DeleteAll,
    Where(Key),
    Ring,
    Stats,
    Ping,
    Help,
    Quit,
    Group(GroupCommand),
}

/// A request about one key, which runs beside those about others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// `PUT`, `DEL` or `CAS`, which change it, or `GET`.
    Key { key: Key, change: Option<Change> },
    /// `SAY`, or `SEND` with the name of the message. Several of them run side by side, and keep their
    /// order.
    Say {
        group: GroupName,
        sender: Option<Sender>,
        text: String,
    },
}

impl Request {
    /// The key that it is about.
    pub fn key(&self) -> Key {
        match self {
            Request::Key { key, .. } => key.clone(),
            Request::Say { group, .. } => group.key(),
        }
    }

    /// How many bytes it brings, beside the key.
    pub fn length(&self) -> usize {
        match self {
            Request::Key { change, .. } => {
                let value = change.as_ref().and_then(Change::value);
                value.map_or(0, Bytes::len)
            }
            Request::Say { text, .. } => text.len(),
        }
    }

    /// Whether it keeps its order among others about the same key, though it runs beside them.
    pub fn is_say(&self) -> bool {
        matches!(self, Request::Say { .. })
    }
}

/// Which keys a word stands for.
enum Target {
    Key(Key),
    Own,
    All,
}

/// What `HELP` prints.
pub const HELP: [&str; 18] = [
    "PUT key value            store a value; replies OK version",
    "GET key                  replies VALUE version value, or NOT_FOUND",
    "DEL key                  delete; replies OK version, or NOT_FOUND",
    "CAS key version value    store if the key has this version; - stands for no such key",
    "GET @                    the pairs that this node holds",
    "GET *                    all pairs of the cluster",
    "DEL @   DEL *            delete all of those",
    "WHERE key                the key's hash and the nodes that hold it, coordinator first",
    "RING                     the nodes in ring order, and whether they answer",
    "STATS                    the state of this node, and its counters",
    "NICK name   JOIN group [LAST n or AFTER n]   SAY group text   LEAVE group: talk; a member is sent MSG group number time nick text",
    "HISTORY group [AFTER n] [COUNT n]   WHO group   GROUPS   TRIM group: what was said, the members of all nodes, the groups here, empty it",
    "SEND group session/since/seq text: SAY that may be sent again, to any node, and is said once; session is random, since the number last shown, seq 1, 2, 3",
    "PING   HELP   QUIT",
    "A key with spaces, or a value with line ends, is written as a JSON string: PUT \"my key\" \"a\\nb\"",
    "A version such as 5554:12,5556:3 names the last write of the key that came through each node, by its number there.",
    "OK ? means done, but overwritten since; CONFLICT ? means refused in an earlier try. The version is not known any more.",
    "An ERROR UNAVAILABLE or BUSY means certainly not done. UNKNOWN means it may or may not have been done: read the key to see.",
];

/// Whether a line is how an HTTP request begins (RFC 9112): a method, a target and a version.
pub fn begins_http(line: &[u8]) -> bool {
    let words: Vec<&[u8]> = line.splitn(4, |byte| *byte == b' ').collect();
    match words[..] {
        [_, _, version] => version
            .strip_prefix(b"HTTP/1.")
            .is_some_and(|minor| matches!(minor, [b'0'..=b'9'])),
        _ => false,
    }
}

/// What a web browser is told.
pub fn no_web_server() -> Failure {
    Failure::Denied("this is not a web server".to_owned())
}

impl Command {
    /// Understands a line without its end.
    ///
    /// # Errors
    /// `SYNTAX` and `TOO_LARGE`, with what to write instead; `DENIED` for a web browser.
    pub fn parse(line: &[u8]) -> Result<Command, Failure> {
        let line = std::str::from_utf8(line)
            .map_err(|_| syntax("the line is not UTF-8; this protocol is text"))?;
        let (word, rest) = split_word(line.trim_start_matches(' '));
        let rest = rest.unwrap_or("");
        let upper = word.to_ascii_uppercase();
        if let Some(parsed) = group_command::parse(&upper, rest) {
            return parsed;
        }
        match upper.as_str() {
            "PUT" => Self::parse_put(rest),
            "GET" => Ok(match only_target(rest, "GET key, GET @ or GET *")? {
                Target::Key(key) => request(key, None),
                Target::Own => Command::ListOwn,
                Target::All => Command::ListAll,
            }),
            "DEL" => Ok(match only_target(rest, "DEL key, DEL @ or DEL *")? {
                Target::Key(key) => request(of_a_client(key)?, Some(Change::Delete)),
                Target::Own => Command::DeleteOwn,
                Target::All => Command::DeleteAll,
            }),
            "CAS" => Self::parse_compare_and_set(rest),
            "WHERE" => match only_target(rest, "WHERE key")? {
                Target::Key(key) => Ok(Command::Where(key)),
                Target::Own | Target::All => Err(reserved()),
            },
            "RING" => alone(rest, "RING", Command::Ring),
            "STATS" => alone(rest, "STATS", Command::Stats),
            "PING" => alone(rest, "PING", Command::Ping),
            "HELP" => alone(rest, "HELP", Command::Help),
            "QUIT" => alone(rest, "QUIT", Command::Quit),
            // A web page can make a browser send this: it shall not come to the commands below.
            "POST" | "HOST:" => Err(no_web_server()),
            "" => Err(syntax("an empty line; HELP lists the commands")),
            _ => {
                let word = start_of(word);
                let text = format!("unknown command {word:?}; HELP lists the commands");
                Err(syntax(&text))
            }
        }
    }

    fn parse_put(rest: &str) -> Result<Command, Failure> {
        let usage = "PUT key value";
        let (key, rest) = key(rest, usage)?;
        let put = Change::Put(value(rest, usage)?);
        Ok(request(of_a_client(key)?, Some(put)))
    }

    fn parse_compare_and_set(rest: &str) -> Result<Command, Failure> {
        let usage = "CAS key version value";
        let (key, rest) = key(rest, usage)?;
        let (word, rest) = split_word(rest.ok_or_else(|| expected(usage))?);
        let expected = match word {
            "-" => None,
            word if word.len() > MAX_VERSION => {
                return Err(syntax(&format!(
                    "no version is as long as {} bytes",
                    word.len()
                )));
            }
            word => Some(word.parse().map_err(|_| {
                let word = start_of(word);
                syntax(&format!(
                    "{word:?} is not a version such as 5554:12,5556:3, or - for none"
                ))
            })?),
        };
        let value = value(rest, usage)?;
        let compare_and_set = Change::CompareAndSet { expected, value };
        Ok(request(of_a_client(key)?, Some(compare_and_set)))
    }
}

fn request(key: Key, change: Option<Change>) -> Command {
    Command::Request(Request::Key { key, change })
}

/// A key that clients may change.
fn of_a_client(key: Key) -> Result<Key, Failure> {
    if is_of_group(&key) {
        return Err(syntax(
            "keys that begin with # are those of groups: SAY adds to one, TRIM empties it, GET shows it",
        ));
    }
    Ok(key)
}

/// Enough of a word to know it again.
pub(super) fn start_of(word: &str) -> String {
    word.chars().take(20).collect()
}

pub(super) fn syntax(text: &str) -> Failure {
    Failure::Syntax(text.to_owned())
}

pub(super) fn expected(usage: &str) -> Failure {
    syntax(&format!("expected: {usage}"))
}

fn reserved() -> Failure {
    syntax("@ and * are not keys: they stand for many keys in GET and DEL")
}

/// The first word, and what follows the one space after it.
pub(super) fn split_word(text: &str) -> (&str, Option<&str>) {
    match text.split_once(' ') {
        Some((word, rest)) => (word, Some(rest)),
        None => (text, None),
    }
}

pub(super) fn alone(rest: &str, word: &str, command: Command) -> Result<Command, Failure> {
    if rest.trim().is_empty() {
        Ok(command)
    } else {
        Err(expected(word))
    }
}

fn only_target(rest: &str, usage: &str) -> Result<Target, Failure> {
    let (target, rest) = target(rest, usage)?;
    match rest {
        Some(rest) if !rest.trim().is_empty() => Err(expected(usage)),
        _ => Ok(target),
    }
}

fn key<'a>(rest: &'a str, usage: &str) -> Result<(Key, Option<&'a str>), Failure> {
    match target(rest, usage)? {
        (Target::Key(key), rest) => Ok((key, rest)),
        _ => Err(reserved()),
    }
}

fn target<'a>(rest: &'a str, usage: &str) -> Result<(Target, Option<&'a str>), Failure> {
    let rest = rest.trim_start_matches(' ');
    let (text, rest) = if rest.starts_with('"') {
        let (text, rest) = json_string(rest)?;
        match rest.strip_prefix(' ') {
            Some(rest) => (Cow::from(text), Some(rest)),
            None if rest.is_empty() => (Cow::from(text), None),
            None => return Err(syntax("a key in double quotes must be followed by a space")),
        }
    } else {
        let (word, rest) = split_word(rest);
        if word.is_empty() {
            return Err(expected(usage));
        }
        if word.chars().any(char::is_control) {
            return Err(syntax(
                "write a key with control characters as a JSON string",
            ));
        }
        match word {
            "@" => return Ok((Target::Own, rest)),
            "*" => return Ok((Target::All, rest)),
            word => (Cow::from(word), rest),
        }
    };
    match &*text {
        "@" | "*" => Err(reserved()),
        text if text.len() > MAX_KEY => Err(Failure::TooLarge(format!(
            "the key has {} bytes; at most {MAX_KEY} are allowed",
            text.len()
        ))),
        text => Ok((Target::Key(text.into()), rest)),
    }
}

/// The rest of the line as it is, spaces included; or a JSON string.
pub(super) fn value(rest: Option<&str>, usage: &str) -> Result<Value, Failure> {
    let rest = rest
        .filter(|rest| !rest.is_empty())
        .ok_or_else(|| syntax(&format!("expected: {usage}; write the empty value as \"\"")))?;
    let text = if rest.starts_with('"') {
        match json_string(rest)? {
            (text, rest) if rest.trim().is_empty() => Cow::from(text),
            _ => {
                return Err(syntax(
                    "something follows the closing double quote of the value",
                ));
            }
        }
    } else {
        Cow::from(rest)
    };
    if text.len() > MAX_VALUE {
        let length = text.len();
        let text = format!("the value has {length} bytes; at most {MAX_VALUE} are allowed");
        return Err(Failure::TooLarge(text));
    }
    Ok((*text).into())
}

/// A JSON string at the front, and what follows it.
fn json_string(text: &str) -> Result<(String, &str), Failure> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
    match values.next() {
        Some(Ok(string)) => Ok((string, &text[values.byte_offset()..])),
        Some(Err(error)) => {
            let error = error.to_string();
            // Where in the string is of no use to somebody who sees one line.
            let what = error.split(" at line ").next().unwrap_or(&error);
            Err(syntax(&format!(
                "what starts with a double quote must be a JSON string: {what}"
            )))
        }
        None => Err(syntax("expected a JSON string")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Command {
        Command::parse(line.as_bytes()).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    fn code(line: impl AsRef<[u8]>) -> &'static str {
        Command::parse(line.as_ref()).unwrap_err().code()
    }

    fn put(key: &str, value: &str) -> Command {
        request(key.into(), Some(Change::Put(value.into())))
    }

    #[test]
    fn no_line_of_the_help_is_taken_for_its_end() {
        let ends = |line: &&&str| line.starts_with("ERROR") || line.starts_with("END");
        assert_eq!(HELP.iter().find(ends), None);
    }

    #[test]
    fn words_are_in_any_case_and_a_value_is_the_rest_of_the_line() {
        assert_eq!(parse("PUT k v"), put("k", "v"));
        assert_eq!(parse("put k  two words "), put("k", " two words "));
        assert_eq!(
            parse("Put gr\u{fc}n \u{e4}\u{1f980}"),
            put("gr\u{fc}n", "\u{e4}\u{1f980}")
        );
        assert_eq!(parse("PUT k 5554:1,x"), put("k", "5554:1,x"));
        assert_eq!(parse("get k "), request("k".into(), None));
        assert_eq!(parse("GET @"), Command::ListOwn);
        assert_eq!(parse("GET *"), Command::ListAll);
        assert_eq!(parse("DEL @"), Command::DeleteOwn);
        assert_eq!(parse("DEL *"), Command::DeleteAll);
        assert_eq!(parse("DEL @x"), request("@x".into(), Some(Change::Delete)));
        assert_eq!(parse("quit"), Command::Quit);
    }

    #[test]
    fn json_strings_hold_what_a_word_cannot() {
        assert_eq!(
            parse(r#"PUT "my key" "a\nb\u0000""#),
            put("my key", "a\nb\0")
        );
        assert_eq!(parse(r#"PUT k """#), put("k", ""));
        assert_eq!(parse(r#"GET "a\"b""#), request("a\"b".into(), None));
        assert_eq!(parse(r#"PUT k a"b"#), put("k", "a\"b"));
    }

    #[test]
    fn compare_and_set_takes_a_version_or_none() {
        let expected = Some("5554:12,5556:3".parse().unwrap());
        let cas = |expected| {
            let value = "v w".into();
            let change = Change::CompareAndSet { expected, value };
            request("k".into(), Some(change))
        };
        assert_eq!(parse("CAS k 5554:12,5556:3 v w"), cas(expected));
        assert_eq!(parse("cas k - v w"), cas(None));
        assert_eq!(code("CAS k 12 v"), "SYNTAX");
        // Hundreds of thousands of entries, the lowest last, would take minutes to put in order.
        let endless: Vec<_> = (1..1_000_000).rev().map(|id| format!("{id}:1")).collect();
        assert_eq!(code(format!("CAS k {} v", endless.join(","))), "SYNTAX");
    }

    #[test]
    fn what_is_not_understood_is_told_by_its_code() {
        let wrong = [
            "",
            " ",
            "FOO",
            "PUT",
            "PUT k",
            "PUT k ",
            "GET",
            "GET a b",
            "DEL",
            "CAS k",
            "CAS k -",
            "CAS k - ",
            "WHERE",
            "WHERE @",
            "PUT @ v",
            "PUT * v",
            "CAS * - v",
            "GET \"@\"",
            "PUT \"k v",
            "PUT \"k\"v w",
            "PUT k \"v",
            "PUT k \"v\" w",
            "RING now",
            "GET a\tb",
        ];
        for line in wrong {
            assert_eq!(code(line), "SYNTAX", "{line:?}");
        }
        assert_eq!(code(b"GET \xc3\x28"), "SYNTAX");
        assert_eq!(code("POST / HTTP/1.1"), "DENIED");
    }

    #[test]
    fn three_words_of_which_the_last_is_a_version_of_http_begin_an_http_request() {
        for line in ["PUT /x HTTP/1.1", "GET / HTTP/1.0", "FROB * HTTP/1.1"] {
            assert!(begins_http(line.as_bytes()), "{line}");
        }
        let others = [
            "PUT k HTTP/1.x",
            "PUT k HTTP/1.",
            "PUT k HTTP/1.1 ",
            "PUT k HTTP/1.11",
            "PUT k is HTTP/1.1",
            "GET HTTP/1.1",
            "",
        ];
        for line in others {
            assert!(!begins_http(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn the_longest_key_and_value_are_taken_and_one_byte_more_is_not() {
        let (key, value) = ("k".repeat(MAX_KEY), "v".repeat(MAX_VALUE));
        assert_eq!(parse(&format!("PUT {key} {value}")), put(&key, &value));
        assert_eq!(code(format!("PUT {key}k {value}")), "TOO_LARGE");
        assert_eq!(code(format!("PUT {key} {value}v")), "TOO_LARGE");
        assert_eq!(code(format!("GET {key}k")), "TOO_LARGE");
    }
}
