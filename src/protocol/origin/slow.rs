//! Coordinators that are there, and still let requests wait.
//!
//! They are no suspects, since they answer pings. A coordinator that has let a request wait for long is
//! skipped at first choice, as a suspect is, until it has carried out a request. While it carries out
//! none, one request now and then tries it again.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::protocol::ring::NodeId;

/// After so many deadlines one request tries a slow coordinator again.
const TRIED_AGAIN_AFTER: u32 = 5;

pub(super) struct SlowCoordinators {
    /// How long each of them is skipped before one request tries it again.
    pause: Duration,
    /// When that is, on the caller's clock.
    skipped_until: BTreeMap<NodeId, Duration>,
}

impl SlowCoordinators {
    pub fn new(deadline: Duration) -> SlowCoordinators {
        SlowCoordinators {
            pause: TRIED_AGAIN_AFTER * deadline,
            skipped_until: BTreeMap::new(),
        }
    }

    /// A request has waited for this coordinator for long.
    pub fn add(&mut self, coordinator: NodeId, now: Duration) {
        self.skipped_until.insert(coordinator, now + self.pause);
    }

    /// The coordinator has carried out a request.
    pub fn remove(&mut self, coordinator: NodeId) {
        self.skipped_until.remove(&coordinator);
    }

    /// Whether a request skips this coordinator at first choice. The first request that asks once the
    /// pause has passed does not, and begins another pause for all others.
    pub fn skips(&mut self, coordinator: NodeId, now: Duration) -> bool {
        match self.skipped_until.get_mut(&coordinator) {
            Some(until) if *until <= now => {
                *until = now + self.pause;
                false
            }
            Some(_) => true,
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_tries_a_slow_coordinator_again_once_its_time_has_come() {
        let (node, second) = (NodeId(1), Duration::from_secs(1));
        let mut slow = SlowCoordinators::new(2 * second);
        assert!(!slow.skips(node, second));
        slow.add(node, second);
        let mut skips = |at: u32| slow.skips(node, at * second);
        assert!(skips(10));
        assert!(!skips(11), "the one");
        assert!(skips(11) && skips(20));
        assert!(!skips(21));
        slow.remove(node);
        assert!(!slow.skips(node, 22 * second));
    }
}
