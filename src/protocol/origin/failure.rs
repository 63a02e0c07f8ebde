//! What clients are told of requests that failed.

use std::fmt;

use super::{Origin, Request};
use crate::error::Failure;
use crate::protocol::Why;
use crate::protocol::ring::NodeId;

/// How a try at one replica ended.
pub(super) enum Trouble {
    Failed(Why),
    /// It says that the request has ended.
    Superseded,
    Silent,
    /// It is there, and let the request wait.
    Slow,
    Unreached,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Failed(why) => f.write_str(&why.text()),
            Trouble::Superseded => f.write_str("says that the request has ended"),
            Trouble::Slow => f.write_str("was slow"),
            Trouble::Silent => f.write_str("was silent"),
            Trouble::Unreached => f.write_str("could not be reached"),
        }
    }
}

impl<H> Origin<H> {
    /// Certainly not done only if every coordinator that was tried said so, or could not be sent it.
    pub(super) fn failure(&self, request: &Request<H>) -> Failure {
        let writes = request.change.is_some();
        if writes && request.dot.is_none() && self.last_sequence == self.reserved {
            return Failure::Unavailable(format!(
                "node {} takes no writes yet: it has just started, or is new and has not met all \
                 other nodes (see RING); nothing was changed",
                self.node
            ));
        }
        let replicas = self.ring.replicas_of_range(request.range);
        let story: Vec<String> = replicas
            .iter()
            .map(
                |node| match request.story.iter().find(|(tried, _)| tried == node) {
                    Some((_, trouble)) => format!("{node} {trouble}"),
                    None if request.tried.contains(node) => format!("{node} gave no answer"),
                    None => format!("{node} was not asked yet"),
                },
            )
            .collect();
        let millis = self.deadline.as_millis();
        let story = story.join(", ");
        if writes && (request.doubtful || request.outstanding) {
            Failure::Unknown(format!(
                "the write of {:?} may or may not have been done within {millis} ms: {story}; \
                 read the key to see",
                request.key
            ))
        } else {
            Failure::Unavailable(format!(
                "no coordinator of {:?} decided within {millis} ms: {story}; nothing was changed",
                request.key
            ))
        }
    }
}

/// For people: where there is no room, and what to do.
pub(super) fn no_room(from: NodeId, why: Why) -> String {
    match why {
        Why::Full(node) => format!(
            "node {node}, which holds this key, is full (data_memory_mib in the cluster file); \
             nothing was changed: delete keys, and try again once their tombstones are dropped \
             (tombstone_age_ms)"
        ),
        _ => format!(
            "node {from} {}; nothing was changed: try again later",
            why.text()
        ),
    }
}
