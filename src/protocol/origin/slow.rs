//! Coordinators that are there and let requests wait.
//!
//! Silence tells nothing of them: they answer whoever asks whether they are there. One that has let a
//! request wait for long is passed over at first choice, as a suspect is, until it has carried a
//! request out. Whoever never does is tried again by one request now and then, and not by all.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::protocol::ring::NodeId;

/// When each of them is tried again, on the clock of the caller.
#[derive(Default)]
pub struct Slow(BTreeMap<NodeId, Duration>);

impl Slow {
    /// A request has waited for this coordinator for long; it is to be passed over until then.
    pub fn passed_over(&mut self, coordinator: NodeId, until: Duration) {
        self.0.insert(coordinator, until);
    }

    /// It has carried a request out.
    pub fn answered(&mut self, coordinator: NodeId) {
        self.0.remove(&coordinator);
    }

    /// Whether a request passes it over. The first one for which its time has come does not, and the
    /// others do for another `pause`.
    pub fn passes_over(&mut self, coordinator: NodeId, now: Duration, pause: Duration) -> bool {
        match self.0.get_mut(&coordinator) {
            Some(until) if *until <= now => {
                *until = now + pause;
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
        let mut slow = Slow::default();
        assert!(!slow.passes_over(node, second, 10 * second));
        slow.passed_over(node, 11 * second);
        let mut passes_over = |at: u32| slow.passes_over(node, at * second, 10 * second);
        assert!(passes_over(10));
        assert!(!passes_over(11), "the one");
        assert!(passes_over(11) && passes_over(20));
        assert!(!passes_over(21));
        slow.answered(node);
        assert!(!slow.passes_over(node, 22 * second, 10 * second));
    }
}
