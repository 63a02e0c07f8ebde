//! What an origin asks of a coordinator, and what it is told.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Change, State, Verdict};
use crate::bytes::Value;
use crate::protocol::ring::NodeId;
use crate::protocol::version::{Dot, VectorClock};

/// One request for one key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Get,
    Write {
        dot: Dot,
        change: Change,
    },
    /// Get the present state chosen again, at a higher ballot: a full round for a read that cannot
    /// finish otherwise, and for a replica that cannot take the state at its old ballot.
    Refresh,
}

/// How a coordinator ended a request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Found {
        value: Value,
        version: VectorClock,
    },
    Missing,
    Decided(Verdict),
    /// Given up by its origin, and perhaps done before: see [`Absorbed::Superseded`](super::state::Absorbed::Superseded).
    Superseded,
    /// Not done here. Without an accept sent it has left no trace; with one it may yet be done.
    Failed {
        accept_sent: bool,
        why: Why,
    },
}

/// Why a coordinator gave up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Too few replicas answered.
    NoQuorum { needed: usize, got: usize },
    /// A replica has lost its folder, and with it votes that were counted.
    StartedOver,
    /// Another coordinator was faster, again and again.
    Contended,
    /// No room for one more request.
    Overloaded,
    /// So many replies wait for the asking node that a large one would hold up the others.
    Congested,
    /// This replica, here or elsewhere, holds as much data as it may.
    Full(NodeId),
    /// This node does not vote: its storage is in doubt.
    Recovering,
    /// The key is not this node's: the cluster files differ.
    NotReplica,
}

impl Why {
    /// A few words for people.
    pub fn text(self) -> Cow<'static, str> {
        let text = match self {
            Why::NoQuorum { needed, got } => {
                return format!("reached {got} of the {needed} replicas needed").into();
            }
            Why::StartedOver => "started over, because a replica has lost its data folder",
            Why::Contended => "was outrun by other writers again and again",
            Why::Overloaded => "is overloaded",
            Why::Congested => "has too many large replies waiting",
            Why::Full(_) => "says that a replica is full",
            Why::Recovering => {
                "does not vote yet: it has just started and reaches no other node, is new and has not \
                 met all others (see RING), or copies what it lost (see its STATS)"
            }
            Why::NotReplica => "says that it does not hold the key: do the cluster files differ?",
        };
        text.into()
    }
}

impl Outcome {
    /// Failed without a trace.
    pub fn not_done(why: Why) -> Outcome {
        Outcome::Failed {
            accept_sent: false,
            why,
        }
    }

    /// What a read tells of a chosen state.
    pub fn of_read(state: Option<&State>) -> Outcome {
        match state.and_then(|state| Some((state.value.clone()?, state))) {
            Some((value, state)) => Outcome::Found {
                value,
                version: state.clock.clone(),
            },
            None => Outcome::Missing,
        }
    }
}
