//! What members of a chain say to each other.

use serde::{Deserialize, Serialize};

use super::epoch::{Adopted, Epoch};
use crate::bytes::Key;
use crate::protocol::Accepted;

/// What one member of a chain asks another about their range.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// From the member before: take this state, and pass it on. Answered once all members behind hold it.
    Pass {
        epoch: Epoch,
        key: Key,
        accepted: Accepted,
    },
    /// From the tail: do you serve this epoch?
    Confirm(Epoch),
    /// Which epoch have you adopted, do you serve it, and are you at work on beginning one? Refused by a node whose
    /// disk hangs.
    Status,
    /// From a proposer: adopt this epoch.
    Adopt(Adopted),
    /// From a proposer that holds all that any member of its epoch held: take it.
    Give(Epoch),
    /// From a proposer: the epoch has begun.
    Begin(Epoch),
    /// From a node that lists the range: a member of the chain does not answer, and is needed.
    Missed,
}

/// The answer to a [`Question`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Done,
    /// To [`Question::Adopt`]: it is done, and whether the sender holds what it has copied from one other replica.
    Adopted {
        copied: bool,
    },
    /// The sender takes no part in that epoch, or cannot go on with it.
    Refused,
    Status(Status),
}

/// What a replica says of its part in the chain of a range.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    pub adopted: Adopted,
    /// Whether it serves that epoch.
    pub serves: bool,
    /// Whether it has proposed that epoch, and is beginning it.
    pub at_work: bool,
}
