//! What an origin asks of a coordinator, and how the coordinator answers.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Change, State, Verdict};
use crate::bytes::Value;
use crate::protocol::ring::NodeId;
use crate::protocol::version::{Dot, VectorClock};

/// What an origin, or this node's anti-entropy, asks of a coordinator for one key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// A client reads the key.
    Get,
    /// A client changes the key. Every attempt of one request carries the same dot.
    Write { dot: Dot, change: Change },
    /// A full round gets the present state chosen again, at a higher ballot. A read needs it that
    /// cannot finish otherwise, and so does a replica that cannot accept the state at its old ballot.
    Refresh,
}

/// How a coordinator ended a request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The read found this value.
    Found { value: Value, version: VectorClock },
    /// The read found no such key.
    Missing,
    /// The write was applied or refused, for good.
    Decided(Verdict),
    /// The write has ended already, and may have been applied: see
    /// [`Absorbed::Superseded`](super::state::Absorbed::Superseded).
    Superseded,
    /// The coordinator gave up. If it sent no accept, the attempt has left no trace. If it sent one, the
    /// write may yet be applied.
    Failed { accept_sent: bool, why: Why },
}

/// Why a coordinator gave up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Too few replicas answered.
    NoQuorum { needed: usize, got: usize },
    /// A replica has lost its folder, and with it votes that the coordinator had counted.
    StartedOver,
    /// Another coordinator was faster, again and again.
    Contended,
    /// The coordinator has no capacity for one more request.
    Overloaded,
    /// Many large replies wait for the node that asks, and one more would hold up all others.
    Congested,
    /// This replica of the key holds as much data as it may.
    Full(NodeId),
    /// No chain of the key's range serves here now, or a member of it does not answer.
    NoChain,
    /// The coordinator does not vote, since its storage is in doubt.
    Recovering,
    /// The coordinator is no replica of the key. So the cluster files differ.
    NotReplica,
}

impl Why {
    /// The reason in a few words, which follow the name of the node.
    pub fn text(self) -> Cow<'static, str> {
        let text = match self {
            Why::NoQuorum { needed, got } => {
                return format!("reached {got} of the {needed} replicas needed").into();
            }
            Why::StartedOver => "started over, because a replica has lost its data folder",
            Why::Contended => "was outrun by other writers again and again",
            Why::Overloaded => "is overloaded",
            Why::Congested => "has too many large replies waiting",
            Why::NoChain => "serves no chain of the key's range now",
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
    /// The outcome of a request that was given up before any accept was sent.
    pub fn not_done(why: Why) -> Outcome {
        Outcome::Failed {
            accept_sent: false,
            why,
        }
    }

    /// The outcome of a read whose chosen state is this one, `None` if nothing was ever written.
    pub fn of_read(state: Option<&State>) -> Outcome {
        let found = state.and_then(|state| Some((state.value.clone()?, state.clock.clone())));
        found.map_or(Outcome::Missing, |(value, version)| Outcome::Found {
            value,
            version,
        })
    }
}
