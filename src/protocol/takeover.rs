//! What a replica that lost its votes takes over from the others, before it votes again.
//!
//! It has to hold what it may have accepted and to keep what it may have promised: each quorum that
//! it was part of has left its trace on one of the others. But what it takes over counts as its own
//! vote from then on, and a state that a single replica accepted must not get its second vote so,
//! long after others have been promised a higher ballot. So
//!
//! - it takes a state over as it is if *all* others have accepted it: that is chosen already;
//! - where they differ they first have to choose a state anew ([`Operation::Refresh`]), without the
//!   vote of the replica that copies. Their promises for it end every older proposal, also one that
//!   counted a vote of the life before. What any of them accepted since may be taken over.
//!
//! [`Operation::Refresh`]: super::Operation::Refresh

use super::{Accepted, Ballot, Record, Update};

/// What to take over of a key for which the other replicas have these records, one of each; `None`
/// if they have to choose its state anew.
pub fn agreed(others: &[Record]) -> Option<Record> {
    let mut ballots = others.iter().map(Record::accepted_ballot);
    let first = ballots.next().unwrap_or(Ballot::ZERO);
    let agree = ballots.all(|ballot| ballot == first);
    agree.then(|| highest(others))
}

/// What to take over of a key that the other replicas have chosen anew before they told these
/// records: the highest state, and the highest promise.
pub fn highest(others: &[Record]) -> Record {
    let promised = others.iter().map(|record| record.promised).max();
    let highest = others.iter().max_by_key(|record| record.accepted_ballot());
    Record {
        promised: promised.unwrap_or_default(),
        accepted: highest.and_then(|record| record.accepted.clone()),
    }
}

/// What taking this over changes in the own record: the state if it is higher, *below the own
/// promise too*, and the promise if it is.
pub fn updates(own: &Record, copied: Record) -> impl Iterator<Item = Update> {
    let newer = |accepted: &Accepted| accepted.ballot > own.accepted_ballot();
    let accept = copied.accepted.filter(newer).map(Update::Accept);
    let promise = (copied.promised > own.promised).then_some(Update::Promise(copied.promised));
    accept.into_iter().chain(promise)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::State;
    use crate::protocol::ring::NodeId;

    fn ballot(round: u64) -> Ballot {
        Ballot::first(round, NodeId(1))
    }

    fn record(promised: u64, accepted: Option<u64>) -> Record {
        let accepted = accepted.map(|round| Accepted {
            ballot: ballot(round),
            state: Arc::new(State::default()),
        });
        Record {
            promised: ballot(promised),
            accepted,
        }
    }

    #[test]
    fn what_all_others_accepted_is_taken_over_with_the_highest_promise() {
        let others = [record(3, Some(3)), record(5, Some(3))];
        assert_eq!(agreed(&others), Some(others[1].clone()));
        let promises = [record(7, None), record(2, None)];
        assert_eq!(agreed(&promises), Some(promises[0].clone()));
    }

    #[test]
    fn what_one_of_them_lacks_is_to_be_chosen_anew() {
        for other in [record(9, Some(4)), record(9, None), Record::default()] {
            let others = [record(3, Some(3)), other.clone(), record(3, Some(3))];
            assert_eq!(agreed(&others), None, "{other:?}");
        }
    }

    #[test]
    fn what_was_chosen_anew_may_have_been_followed_by_more() {
        let others = [record(8, Some(6)), record(7, Some(7))];
        assert_eq!(highest(&others), record(8, Some(7)));
    }
}
