//! What clients read about requests that failed.

use std::fmt;

use super::Origin;
use super::request::ClientRequest;
use crate::error::Failure;
use crate::protocol::Why;
use crate::protocol::ring::NodeId;

/// How an attempt at one replica failed.
pub(super) enum Trouble {
    /// The coordinator gave the request up, for this reason.
    Failed(Why),
    /// The coordinator found that the request has ended already.
    Superseded,
    /// The coordinator did not answer.
    Silent,
    /// The coordinator is there, and let the request wait.
    Slow,
    /// The coordinator could not be sent the request.
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
    /// The failure of a request that was not decided before its deadline. It says "certainly not done"
    /// only if every coordinator that was tried said so, or could not be sent the request.
    pub(super) fn failure(&self, request: &ClientRequest<H>) -> Failure {
        let writes = request.change.is_some();
        if writes && request.dot.is_none() && self.sequences.left() == 0 {
            return Failure::Unavailable(format!(
                "node {} takes no writes yet: it has just started, or is new and has not met all \
                 other nodes (see RING); nothing was changed",
                self.node
            ));
        }
        let replicas = self.ring.replicas_of_range(request.range).iter();
        let troubles: Vec<String> = replicas
            .map(
                |node| match (request.troubles.get(node), request.waits_for) {
                    (Some(trouble), _) => format!("{node} {trouble}"),
                    (None, Some((asked, _))) if asked == *node => format!("{node} gave no answer"),
                    (None, _) => format!("{node} was not asked yet"),
                },
            )
            .collect();
        let (millis, troubles) = (self.deadline.as_millis(), troubles.join(", "));
        if writes && (request.doubtful || request.waits_for.is_some()) {
            Failure::Unknown(format!(
                "the write of {:?} may or may not have been done within {millis} ms: {troubles}; \
                 read the key to see",
                request.key
            ))
        } else {
            Failure::Unavailable(format!(
                "no coordinator of {:?} decided within {millis} ms: {troubles}; nothing was changed",
                request.key
            ))
        }
    }
}

/// The failure of a write for which a replica has no capacity: it says where, and what to do.
pub(super) fn no_capacity(from: NodeId, why: Why) -> Failure {
    Failure::Busy(match why {
        Why::Full(node) => format!(
            "node {node}, which holds this key, is full (data_memory_mib in the cluster file); \
             nothing was changed: delete keys, and try again once their tombstones are dropped \
             (tombstone_age_ms)"
        ),
        _ => format!(
            "node {from} {}; nothing was changed: try again later",
            why.text()
        ),
    })
}
