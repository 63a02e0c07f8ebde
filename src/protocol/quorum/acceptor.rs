//! A replica's votes: record and request in, new record and reply out.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::bytes::{Bytes, Value};
use crate::protocol::version::VectorClock;
use crate::protocol::{Ballot, Fence, State};
use crate::testing::rules::{self, Rule};

/// A state, and the ballot at which it was accepted. A clone shares the state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Accepted {
    pub ballot: Ballot,
    #[serde(deserialize_with = "shared")]
    pub state: Arc<State>,
}

/// Reads a state. The way of serde itself would copy it once more, into the [`Arc`].
fn shared<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<State>, D::Error> {
    State::deserialize(deserializer).map(Arc::new)
}

/// What one replica has promised and accepted for one key. Durable.
///
/// - Neither the promise nor the accepted ballot ever decreases, restarts included.
/// - `promised` is at least the accepted ballot.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The replica rejects everything below this ballot.
    pub promised: Ballot,
    /// The last state that it accepted.
    pub accepted: Option<Accepted>,
}

/// What a coordinator asks of a replica, for one key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VoteRequest {
    /// A proposer starts a round: promise this ballot, and report the last state accepted.
    Prepare(Ballot),
    /// A proposer or a reader gets this state chosen, or a repair brings it: accept it.
    Accept(Accepted),
    /// A reader asks for the accepted ballot, and for the state too if `state` is true.
    Read { state: bool },
}

impl VoteRequest {
    /// The ballot of the state to accept, if there is one.
    pub fn proposed(&self) -> Option<Ballot> {
        match self {
            VoteRequest::Accept(accepted) => Some(accepted.ballot),
            VoteRequest::Prepare(_) | VoteRequest::Read { .. } => None,
        }
    }

    /// The same question to the own replica. It always hands out its state, since that costs nothing.
    pub fn of_own_replica(&self) -> VoteRequest {
        match self {
            VoteRequest::Read { .. } => VoteRequest::Read { state: true },
            other => other.clone(),
        }
    }
}

/// What a replica answers the coordinator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VoteReply {
    /// The prepare is granted.
    Promised(Promise),
    /// The state is accepted.
    Taken,
    /// The prepare or accept is refused, since this ballot was promised.
    Rejected(Ballot),
    /// The answer to a read.
    Seen(Seen),
}

/// What a replica reports with its promise, so that the proposal contains what may be chosen.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Promise {
    /// The last state that it accepted.
    pub accepted: Option<Accepted>,
    /// If that is nothing, the floor of its [`Fence`]: it becomes the floor of the key's first state.
    #[serde(default, skip_serializing_if = "VectorClock::is_empty")]
    pub floor: VectorClock,
}

/// What a replica has accepted, as a read sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// The ballot of the accepted state, [`Ballot::ZERO`] if there is none. It stands for the state,
    /// since no ballot is ever used for two.
    pub ballot: Ballot,
    /// The accepted state, if there is one and the read asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Arc<State>>,
}

impl Seen {
    /// The accepted state with its ballot, if the read asked for it.
    pub fn accepted(self) -> Option<Accepted> {
        let ballot = self.ballot;
        self.state.map(|state| Accepted { ballot, state })
    }
}

/// How a vote changes the record. It must be durable before the reply goes out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Update {
    /// A prepare was granted.
    Promise(Ballot),
    /// A state was accepted.
    Accept(Accepted),
}

/// The ballot of an accepted state, [`Ballot::ZERO`] if there is none.
pub fn ballot_of(accepted: &Option<Accepted>) -> Ballot {
    accepted.as_ref().map_or(Ballot::ZERO, |own| own.ballot)
}

impl Record {
    /// Votes. The caller applies the update, if there is one, and makes it durable before it sends the
    /// reply.
    pub fn vote(&self, request: &VoteRequest, fence: &Fence) -> (Option<Update>, VoteReply) {
        match request {
            VoteRequest::Prepare(ballot) => self.prepare(*ballot, fence),
            VoteRequest::Accept(proposal) => self.accept(proposal),
            VoteRequest::Read { state } => (None, VoteReply::Seen(self.seen(*state))),
        }
    }

    /// Grants only a ballot that is strictly above the promise. A ballot that was granted twice could
    /// carry two states.
    fn prepare(&self, ballot: Ballot, fence: &Fence) -> (Option<Update>, VoteReply) {
        let again = ballot == self.promised && rules::holds(Rule::StrictPrepare);
        let stale = ballot < self.promised || again;
        if stale {
            return (None, VoteReply::Rejected(self.promised));
        }
        let accepted = self.accepted.clone();
        let floor = match accepted {
            Some(_) => VectorClock::default(),
            None => fence.floor.clone(),
        };
        let promise = Promise { accepted, floor };
        (Some(Update::Promise(ballot)), VoteReply::Promised(promise))
    }

    /// Takes a state at the promise or above. The same state again is answered as taken, so that an
    /// accept may come twice.
    fn accept(&self, proposal: &Accepted) -> (Option<Update>, VoteReply) {
        let stale = proposal.ballot < self.promised && rules::holds(Rule::PromiseKept);
        if stale || self.contradicts(proposal) {
            return (None, VoteReply::Rejected(self.promised));
        }
        match &self.accepted {
            Some(own) if own.ballot == proposal.ballot => (None, VoteReply::Taken),
            _ => (Some(Update::Accept(proposal.clone())), VoteReply::Taken),
        }
    }

    /// Whether another state was accepted at the very ballot of this one. That breaks invariant 2: no
    /// proposer that keeps the rules does it.
    pub fn contradicts(&self, proposal: &Accepted) -> bool {
        let own = self.accepted.as_ref();
        own.is_some_and(|own| own.ballot == proposal.ballot && own.state != proposal.state)
    }

    /// What a read sees.
    pub fn seen(&self, state: bool) -> Seen {
        let own = self.accepted.as_ref().filter(|_| state);
        Seen {
            ballot: self.accepted_ballot(),
            state: own.map(|own| own.state.clone()),
        }
    }

    /// Applies the update of a vote, or replays it from the log after a restart. It may come again and
    /// in any order, and never lowers a ballot.
    pub fn apply(&mut self, update: Update) {
        match update {
            Update::Promise(ballot) => self.promised = self.promised.max(ballot),
            Update::Accept(accepted) => {
                let kept = rules::holds(Rule::PromiseKept);
                if kept {
                    self.promised = self.promised.max(accepted.ballot);
                }
                if self.accepted_ballot() <= accepted.ballot || !kept {
                    self.accepted = Some(accepted);
                }
            }
        }
    }

    /// The length of the accepted value in bytes, 0 without one.
    pub fn value_size(&self) -> usize {
        self.value().map_or(0, Bytes::len)
    }

    /// The accepted value. Without one the accepted state is a tombstone, or there is none.
    pub fn value(&self) -> Option<&Value> {
        self.accepted.as_ref()?.state.value.as_ref()
    }

    /// How many entries the clocks of the accepted state have together. Each of its answers counts as
    /// `answer` of them.
    pub fn clock_entries(&self, answer: usize) -> usize {
        let Some(Accepted { state, .. }) = &self.accepted else {
            return 0;
        };
        let clocks = state.clock.len() + state.refusals.len() + state.floor.len();
        clocks + answer * state.answers.len()
    }

    /// Whether this replica holds this very tombstone, or has dropped it. In that case it accepts
    /// nothing older, and lets nobody apply again what the tombstone had absorbed.
    pub fn holds(&self, tombstone: &Accepted, fence: &Fence) -> bool {
        match &self.accepted {
            Some(own) => own.ballot == tombstone.ballot,
            None => {
                let state = &tombstone.state;
                state.value.is_none()
                    && self.promised >= tombstone.ballot
                    && fence.floor.dominates(&state.decided())
            }
        }
    }

    /// The ballot of the accepted state, [`Ballot::ZERO`] if there is none.
    pub fn accepted_ballot(&self) -> Ballot {
        ballot_of(&self.accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ring::NodeId;

    fn ballot(round: u64, node: u32) -> Ballot {
        Ballot::first(round, NodeId(node))
    }

    fn accepted(ballot: Ballot, value: &str) -> Accepted {
        let state = State {
            value: Some(value.into()),
            ..State::default()
        };
        Accepted {
            ballot,
            state: Arc::new(state),
        }
    }

    fn cast(record: &mut Record, request: VoteRequest) -> VoteReply {
        let (update, reply) = record.vote(&request, &Fence::default());
        if let Some(update) = update {
            record.apply(update);
        }
        reply
    }

    #[test]
    fn a_ballot_is_promised_once_and_only_above_the_last_promise() {
        let mut record = Record::default();
        let prepare = |round| VoteRequest::Prepare(ballot(round, 1));
        assert_eq!(
            cast(&mut record, prepare(2)),
            VoteReply::Promised(Promise::default())
        );
        assert_eq!(
            cast(&mut record, prepare(2)),
            VoteReply::Rejected(ballot(2, 1))
        );
        assert_eq!(
            cast(&mut record, prepare(1)),
            VoteReply::Rejected(ballot(2, 1))
        );
        assert_eq!(record.promised, ballot(2, 1));
    }

    #[test]
    fn a_promise_without_a_state_reports_the_floor() {
        let fence = Fence {
            promised: ballot(4, 1),
            floor: "1:7".parse().unwrap(),
        };
        let mut record = fence.record();
        let prepare = |round| VoteRequest::Prepare(ballot(round, 1));
        let refused = (None, VoteReply::Rejected(ballot(4, 1)));
        assert_eq!(record.vote(&prepare(4), &fence), refused);
        let promise = Promise {
            accepted: None,
            floor: fence.floor.clone(),
        };
        let (_, reply) = record.vote(&prepare(5), &fence);
        assert_eq!(reply, VoteReply::Promised(promise));
        let own = accepted(ballot(5, 1), "new");
        record.apply(Update::Accept(own.clone()));
        let (_, reply) = record.vote(&prepare(6), &fence);
        let promise = Promise {
            accepted: Some(own),
            ..Promise::default()
        };
        assert_eq!(reply, VoteReply::Promised(promise));
    }

    #[test]
    fn a_state_below_the_promise_is_refused_and_one_at_it_is_taken() {
        let mut record = Record::default();
        cast(&mut record, VoteRequest::Prepare(ballot(2, 1)));
        let late = accepted(ballot(1, 1), "late");
        assert_eq!(
            cast(&mut record, VoteRequest::Accept(late)),
            VoteReply::Rejected(ballot(2, 1))
        );
        let own = accepted(ballot(2, 1), "own");
        assert_eq!(
            cast(&mut record, VoteRequest::Accept(own.clone())),
            VoteReply::Taken
        );
        assert_eq!(
            cast(&mut record, VoteRequest::Prepare(ballot(3, 2))),
            VoteReply::Promised(Promise {
                accepted: Some(own),
                ..Promise::default()
            })
        );
    }

    #[test]
    fn the_same_state_again_is_taken_and_another_at_its_ballot_is_refused() {
        let mut record = Record::default();
        let first = accepted(ballot(1, 1), "first");
        cast(&mut record, VoteRequest::Accept(first.clone()));
        let before = record.clone();
        assert_eq!(
            record.vote(&VoteRequest::Accept(first), &Fence::default()),
            (None, VoteReply::Taken)
        );
        let other = accepted(ballot(1, 1), "other");
        assert_eq!(
            cast(&mut record, VoteRequest::Accept(other)),
            VoteReply::Rejected(ballot(1, 1))
        );
        assert_eq!(record, before);
    }

    #[test]
    fn a_read_reports_the_ballot_and_the_state_when_asked() {
        let mut record = Record::default();
        let read = |state| VoteRequest::Read { state };
        let nothing = Seen {
            ballot: Ballot::ZERO,
            state: None,
        };
        assert_eq!(cast(&mut record, read(true)), VoteReply::Seen(nothing));
        let own = accepted(ballot(1, 1), "x");
        cast(&mut record, VoteRequest::Accept(own.clone()));
        let short = Seen {
            ballot: own.ballot,
            state: None,
        };
        assert_eq!(cast(&mut record, read(false)), VoteReply::Seen(short));
        let whole = Seen {
            ballot: own.ballot,
            state: Some(own.state),
        };
        assert_eq!(cast(&mut record, read(true)), VoteReply::Seen(whole));
    }

    #[test]
    fn applying_updates_again_or_in_another_order_never_lowers_a_ballot() {
        let (old, new) = (accepted(ballot(1, 1), "old"), accepted(ballot(3, 1), "new"));
        let mut record = Record::default();
        record.apply(Update::Accept(new.clone()));
        record.apply(Update::Accept(old));
        record.apply(Update::Promise(ballot(2, 9)));
        assert_eq!(
            record,
            Record {
                promised: ballot(3, 1),
                accepted: Some(new)
            }
        );
    }
}
