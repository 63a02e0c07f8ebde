//! When tombstones are dropped, and what a replica remembers of all of them together.
//!
//! The record of a deleted key may go once every replica of the key holds the very same tombstone, or
//! has dropped it. Then nobody holds an older state that could come back. Two things of the past must
//! still be kept out:
//!
//! - an *accept* or *prepare* with an older ballot that is still on its way. So a replica has promised
//!   the highest ballot that it ever dropped for every key that it holds no record of;
//! - a *request* that the tombstone had absorbed, and that is tried again. So a replica keeps a *floor*:
//!   per origin the highest number that it ever dropped. It sends the floor with each promise for a key
//!   without a state, and the key's new state takes it over ([`State::floor`](super::State::floor)).
//!   Requests up to the floor are refused. None of them is still under way: a tombstone is dropped
//!   only long after every request that it absorbed has ended.
//!
//! Both are one ballot and one clock per node, however many keys it has dropped. A replica may also drop
//! the record of a key that has a promise and no state, without asking the others: the same ballot
//! keeps the promise.

use serde::{Deserialize, Serialize};

use super::{Ballot, Record};
use crate::protocol::version::VectorClock;
use crate::testing::rules::{self, Rule};

/// What a replica refuses for every key that it holds no record of. Durable; it only grows.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fence {
    /// At least the promise of each dropped record.
    pub promised: Ballot,
    /// Per origin, requests up to this number are refused, since a dropped tombstone may contain them.
    #[serde(alias = "decided")]
    pub floor: VectorClock,
}

impl Fence {
    /// The record of each key that the replica holds no record of.
    pub fn record(&self) -> Record {
        Record {
            promised: self.promised,
            accepted: None,
        }
    }

    /// Remembers of a dropped record what must still be kept out.
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

/// Whether a tombstone may be dropped. Each other replica of its key has answered whether it holds or
/// has dropped it: see [`Record::holds`].
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
