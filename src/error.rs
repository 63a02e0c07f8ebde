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
        self.parts().0
    }

    /// One line of text for people.
    pub fn text(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&'static str, &str) {
        match self {
            Failure::Unavailable(text) => ("UNAVAILABLE", text),
            Failure::Unknown(text) => ("UNKNOWN", text),
            Failure::Busy(text) => ("BUSY", text),
            Failure::Syntax(text) => ("SYNTAX", text),
            Failure::TooLarge(text) => ("TOO_LARGE", text),
            Failure::Denied(text) => ("DENIED", text),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code(), self.text())
    }
}

impl std::error::Error for Failure {}
