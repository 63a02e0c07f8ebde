//! How a request can fail.

use std::fmt;

/// Why a client's request was not done, or may not have been.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The request was certainly not done.
    Unavailable(String),
    /// The request may have been done: it may have been proposed, and its origin saw no decision.
    Unknown(String),
    /// The request was certainly not done, because memory or another resource is used up.
    Busy(String),
    /// The request itself is wrong.
    Syntax(String),
    /// A key, a value or a line exceeds its limit.
    TooLarge(String),
    /// The request is not allowed here.
    Denied(String),
}

impl Failure {
    /// The word that follows `ERROR` in a reply, for programs.
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

    /// One line of text for people.
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
