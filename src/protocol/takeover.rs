//! What a replica that lost its votes takes over from the others, before it votes again.
//!
//! It has to hold what it may have accepted, and to keep what it may have promised. Each quorum that it
//! was part of has left its trace on one of the others. But what it takes over counts as its own vote
//! from then on. A state that a single replica accepted must not get its second vote in this way, long
//! after a higher ballot was promised. So
//!
//! - if *all* others have accepted a state, the replica takes it over as it is: it is chosen already;
//! - if they differ, they first have to refresh the key ([`Operation::Refresh`]), without the vote of
//!   the replica that copies. Their promises for this end every older proposal, also one that counted
//!   a vote that is lost now. Whatever any of them has accepted since may be taken over.
//!
//! [`Operation::Refresh`]: super::Operation::Refresh

use super::{Accepted, Ballot, Record, Update};

/// What to take over of a key. `others` has one record of each other replica. `None` if they have to
/// refresh the key first.
pub fn agreed(others: &[Record]) -> Option<Record> {
    let mut ballots = others.iter().map(Record::accepted_ballot);
    let first = ballots.next().unwrap_or(Ballot::ZERO);
    let agree = ballots.all(|ballot| ballot == first);
    agree.then(|| highest(others))
}

/// What to take over of a key that was refreshed before the other replicas sent these records: the
/// highest state, and the highest promise.
pub fn highest(others: &[Record]) -> Record {
    let promised = others.iter().map(|record| record.promised).max();
    let highest = others.iter().max_by_key(|record| record.accepted_ballot());
    Record {
        promised: promised.unwrap_or_default(),
        accepted: highest.and_then(|record| record.accepted.clone()),
    }
}

/// How the own record changes when this one is taken over. Each of the two ballots only rises. A state
/// is taken over *below the own promise too*, unlike one that is to be accepted: it is chosen.
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
    fn a_key_of_which_one_of_them_lacks_the_state_is_refreshed_first() {
        for other in [record(9, Some(4)), record(9, None), Record::default()] {
            let others = [record(3, Some(3)), other.clone(), record(3, Some(3))];
            assert_eq!(agreed(&others), None, "{other:?}");
        }
    }

    #[test]
    fn what_was_refreshed_may_have_been_followed_by_more() {
        let others = [record(8, Some(6)), record(7, Some(7))];
        assert_eq!(highest(&others), record(8, Some(7)));
    }
}
