//! How a request can end other than well, with the numbers that tell why.

use std::fmt;

/// Why a client's request was not done, or may not have been.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Certainly not done.
    Unavailable(String),
    /// It may or may not have been done: no decision was seen, and it may have been proposed.
    Unknown(String),
    /// Certainly not done, for want of room.
    Busy(String),
    /// The request itself is wrong.
    Syntax(String),
    /// Key, value or line over its limit.
    TooLarge(String),
    /// This request is not allowed here.
    Denied(String),
}

impl Failure {
    /// The word for programs, after `ERROR`.
    pub fn code(&self) -> &'static str {
        match self {
            Failure::Unavailable(_) => "UNAVAILABLE",
            Failure::Unknown(_) => "UNKNOWN",
            Failure::Busy(_) => "BUSY",
            Failure::Syntax(_) => "SYNTAX",
            Failure::TooLarge(_) => "TOO_LARGE",
            Failure::Denied(_) => "DENIED",
        }
    }

    /// The text for people: one line.
    pub fn text(&self) -> &str {
        match self {
            Failure::Unavailable(text)
            | Failure::Unknown(text)
            | Failure::Busy(text)
            | Failure::Syntax(text)
            | Failure::TooLarge(text)
            | Failure::Denied(text) => text,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code(), self.text())
    }
}

impl std::error::Error for Failure {}
