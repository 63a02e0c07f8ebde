//! What clients asked of the store, and what the store replied: the checker's input.
//!
//! In a file a history is an operation a line, as JSON, between lines of comment that start with
//! `//`. Examples of every kind are in `tests/histories/`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One request of one client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Operation {
    pub client: u32,
    pub key: String,
    pub request: Request,
    /// When the client asked, on a clock that all clients share.
    pub called: u64,
    pub end: End,
}

/// What was asked. No two writes of a key in one history write the same value, so a value shows which
/// write a read saw.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    Get,
    Put {
        value: String,
    },
    Delete,
    /// `None` expects no such key.
    CompareAndSet {
        expected: Option<String>,
        value: String,
    },
    /// Adds to a number and answers the sum. The other requests of such a key are `Add` and `Get`, and no
    /// two of them add the same power of two: so a sum shows what was added before.
    Add {
        more: i64,
    },
}

/// How the request ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    Returned {
        at: u64,
        reply: Reply,
    },
    /// It may take effect at any time after the call, or never.
    Unknown,
    /// It is certainly not done.
    Failed,
}

/// What the client received. Versions are tokens: they are equal or not, and nothing more is known of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Found {
        value: String,
        version: String,
    },
    /// A read or a delete found no such key.
    Missing,
    /// The write is done. `version` is the version that it made, if the reply named it.
    Done {
        version: Option<String>,
    },
    /// The compare-and-set did not meet what it expected.
    Conflict {
        current: Current,
    },
    /// What an `Add` answers.
    Sum(String),
}

/// What a refusal says about the key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Current {
    Unsaid,
    Missing,
    Version(String),
}

impl Operation {
    /// The value that it writes, if it writes one.
    pub fn written(&self) -> Option<&str> {
        match &self.request {
            Request::Put { value } | Request::CompareAndSet { value, .. } => Some(value),
            Request::Get | Request::Delete | Request::Add { .. } => None,
        }
    }

    /// When it was over: never, where its outcome is unknown.
    pub fn returned(&self) -> Option<u64> {
        match self.end {
            End::Returned { at, .. } => Some(at),
            End::Unknown | End::Failed => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (called, client, key) = (self.called, self.client, &self.key);
        match self.returned() {
            Some(returned) => write!(f, "{called:>6} .. {returned:<6}")?,
            None => write!(f, "{called:>6} ..   ?   ")?,
        }
        write!(f, " client {client:<2} ")?;
        match &self.request {
            Request::Get => write!(f, "GET {key}")?,
            Request::Put { value } => write!(f, "PUT {key} {value}")?,
            Request::Delete => write!(f, "DEL {key}")?,
            Request::CompareAndSet { expected, value } => {
                let expected = expected.as_deref().unwrap_or("-");
                write!(f, "CAS {key} {expected} {value}")?;
            }
            Request::Add { more } => write!(f, "ADD {key} {more}")?,
        }
        match &self.end {
            End::Returned { reply, .. } => write!(f, " -> {reply}"),
            End::Unknown => f.write_str(" -> UNKNOWN"),
            End::Failed => f.write_str(" -> UNAVAILABLE"),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Found { value, version } => write!(f, "{value} {version}"),
            Reply::Missing => f.write_str("NOT_FOUND"),
            Reply::Done { version } => write!(f, "OK {}", version.as_deref().unwrap_or("?")),
            Reply::Conflict { current } => match current {
                Current::Unsaid => f.write_str("CONFLICT"),
                Current::Missing => f.write_str("CONFLICT -"),
                Current::Version(version) => write!(f, "CONFLICT {version}"),
            },
            Reply::Sum(sum) => write!(f, "OK {sum}"),
        }
    }
}

/// The whole history for people, in the order of the calls.
pub fn print(history: &[Operation]) -> String {
    history
        .iter()
        .map(|operation| format!("{operation}\n"))
        .collect()
}

/// The whole history for a file.
pub fn to_lines(history: &[Operation]) -> String {
    let line = |operation| serde_json::to_string(operation).expect("a history is text and numbers");
    history
        .iter()
        .map(|operation| line(operation) + "\n")
        .collect()
}

/// The history in a file, without its comments.
///
/// # Errors
/// The number of the first line that is no operation, and why it is none.
pub fn from_lines(text: &str) -> Result<Vec<Operation>, String> {
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with("//"))
        .map(|(number, line)| {
            serde_json::from_str(line).map_err(|error| format!("line {}: {error}", number + 1))
        })
        .collect()
}
