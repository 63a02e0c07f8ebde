//! Counts the replies to one question that all replicas of a key were asked.

use super::Quorums;
use crate::protocol::ring::NodeId;

/// The replies to one question so far.
#[derive(Debug)]
pub struct Tally {
    replicas: usize,
    /// The replicas that have answered, or were given up.
    heard: Vec<NodeId>,
    /// How many granted what was asked.
    pub granted: usize,
    /// How many refused, since they have promised a higher ballot.
    pub rejected: usize,
}

/// How a question stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Count {
    /// As many as needed have granted it.
    Enough,
    /// The replicas that are still to be heard can make up the number.
    Open,
    /// They cannot, and some replica has promised a higher ballot: another proposer was faster.
    Outrun,
    /// They cannot, since too many replicas are silent.
    NoQuorum { needed: usize, got: usize },
}

impl Tally {
    /// A question that no replica has answered yet.
    pub fn new(quorums: Quorums) -> Tally {
        Tally {
            replicas: quorums.replicas,
            heard: Vec::with_capacity(quorums.replicas),
            granted: 0,
            rejected: 0,
        }
    }

    /// Notes that a replica has answered or was given up. Returns `false` if it had already: then its
    /// second answer must not be counted.
    pub fn hear(&mut self, from: NodeId) -> bool {
        let first = !self.heard.contains(&from);
        if first {
            self.heard.push(from);
        }
        first
    }

    /// How the question stands if `needed` replicas have to grant it.
    pub fn count(&self, needed: usize) -> Count {
        let got = self.granted;
        let outstanding = self.replicas - self.heard.len();
        if got >= needed {
            Count::Enough
        } else if got + outstanding >= needed {
            Count::Open
        } else if self.rejected > 0 {
            Count::Outrun
        } else {
            Count::NoQuorum { needed, got }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_open_while_the_replicas_to_be_heard_can_make_up_the_number() {
        let no_quorum = |got| Count::NoQuorum { needed: 2, got };
        for (heard, granted, rejected, expected) in [
            (0, 0, 0, Count::Open),
            (1, 0, 1, Count::Open),
            (2, 1, 1, Count::Open),
            (2, 2, 0, Count::Enough),
            (3, 2, 1, Count::Enough),
            (2, 0, 1, Count::Outrun),
            (2, 0, 0, no_quorum(0)),
            (3, 1, 0, no_quorum(1)),
        ] {
            let tally = Tally {
                replicas: 3,
                heard: (0..heard).map(NodeId).collect(),
                granted,
                rejected,
            };
            assert_eq!(tally.count(2), expected, "{tally:?}");
        }
    }

    #[test]
    fn a_replica_is_heard_once() {
        let mut tally = Tally::new(Quorums {
            replicas: 3,
            read: 2,
            write: 2,
        });
        assert!(tally.hear(NodeId(1)));
        assert!(!tally.hear(NodeId(1)));
    }
}
