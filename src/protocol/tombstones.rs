//! Dropping tombstones: what a replica remembers of all keys that it has dropped, together.
//!
//! A deleted key's record may go once every replica of the key holds the very same tombstone, or
//! has dropped it: then nobody holds anything older, and no two replicas are needed to agree any
//! more that the key is gone. Two things of the past must still be kept out:
//!
//! - an *accept* or *prepare* of an older ballot that is still on its way. So a replica treats
//!   every key that it holds no record of as promised to the highest ballot that it ever dropped;
//! - a *request* that the tombstone had absorbed and that is tried again. So the highest sequence
//!   number per origin that was ever dropped goes with each promise for a key without a state,
//!   and from there into the key's new state ([`State::floor`](super::State::floor)): whatever
//!   is numbered up to it is refused. Tombstones wait before they are dropped until every request
//!   that they absorbed has long ended, so no living request is concerned.
//!
//! Both are one ballot and one clock per node, however many keys it has dropped. A promise for a
//! key without a state is dropped into the same ballot, by each replica as it likes.

use serde::{Deserialize, Serialize};

use super::{Ballot, Record};
use crate::protocol::version::VectorClock;
use crate::testing::rules::{self, Rule};

/// What is out of date for every key that a replica holds no record of. Durable; only grows.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fence {
    /// At least the promise of each dropped record.
    pub promised: Ballot,
    /// Per origin at least the last request that a dropped tombstone had absorbed or refused.
    #[serde(alias = "decided")]
    pub floor: VectorClock,
}

impl Fence {
    /// What a key's record is while there is none.
    pub fn record(&self) -> Record {
        Record {
            promised: self.promised,
            accepted: None,
        }
    }

    /// Takes over what must be remembered of a record that is dropped.
    pub fn raise(&mut self, dropped: &Record) {
        if rules::holds(Rule::DroppedBallotsFenced) {
            self.promised = self.promised.max(dropped.promised);
        }
        if let Some(tombstone) = &dropped.accepted
            && rules::holds(Rule::DroppedRequestsFenced)
        {
            tombstone.state.add_decided(&mut self.floor);
        }
    }

    /// Takes over the fence of another replica.
    pub fn merge(&mut self, other: &Fence) {
        self.promised = self.promised.max(other.promised);
        self.floor.merge(&other.floor);
    }
}

/// Whether a tombstone may be dropped, by what the other replicas of its key said when they were
/// asked whether they hold it, or are past it.
pub fn may_drop(others: &[bool]) -> bool {
    if rules::holds(Rule::TombstoneEverywhere) {
        others.iter().all(|&holds| holds)
    } else {
        others.iter().any(|&holds| holds)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::ring::NodeId;
    use crate::protocol::{Accepted, State};

    fn tombstone(round: u64, clock: &str, refusals: &str) -> Accepted {
        let state = State {
            clock: clock.parse().unwrap(),
            refusals: refusals.parse().unwrap(),
            ..State::default()
        };
        Accepted {
            ballot: Ballot::first(round, NodeId(1)),
            state: Arc::new(state),
        }
    }

    fn record(tombstone: Accepted) -> Record {
        Record {
            promised: tombstone.ballot,
            accepted: Some(tombstone),
        }
    }

    #[test]
    fn a_replica_holds_what_it_has_dropped_and_nothing_later() {
        let mut fence = Fence::default();
        fence.raise(&record(tombstone(7, "1:3,2:9", "3:4")));
        let holds = |tombstone| fence.record().holds(&tombstone, &fence);
        assert!(holds(tombstone(7, "1:3,2:9", "3:4")));
        assert!(holds(tombstone(6, "2:1", "1:2")));
        assert!(!holds(tombstone(8, "2:1", "1:2")), "a later ballot");
        assert!(!holds(tombstone(6, "2:1", "3:5")), "a later request");
        assert!(!holds(tombstone(6, "4:1", "1:1")), "another origin");
        let mut value = tombstone(6, "2:1", "1:2");
        Arc::make_mut(&mut value.state).value = Some("x".into());
        assert!(!holds(value), "a value");
    }

    #[test]
    fn a_record_holds_the_tombstone_of_its_ballot_and_no_other() {
        let fence = Fence::default();
        let record = Record {
            promised: Ballot::first(9, NodeId(1)),
            accepted: Some(tombstone(7, "1:3", "3:4")),
        };
        assert!(record.holds(&tombstone(7, "1:3", "3:4"), &fence));
        assert!(!record.holds(&tombstone(6, "1:2", "3:4"), &fence));
        assert!(!record.holds(&tombstone(8, "1:3", "3:4"), &fence));
    }

    #[test]
    fn fences_grow_together() {
        let (mut one, mut other) = (Fence::default(), Fence::default());
        one.raise(&record(tombstone(7, "1:3", "3:4")));
        other.raise(&record(tombstone(2, "1:1,2:8", "4:4")));
        one.merge(&other);
        assert_eq!(one.promised.round, 7);
        assert_eq!(one.floor, "1:3,2:8,3:4,4:4".parse().unwrap());
    }
}
