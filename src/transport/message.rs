//! What nodes say to each other: lines of JSON.
//!
//! A connection belongs to the node that opened it. Its first line is a [`Hello`], answered by a
//! [`Welcome`]; then come [`Ask`]s in one direction and [`Tell`]s in the other, matched by their
//! ids and in any order. A question with id 0 wants no answer.

use std::cell::RefCell;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bytes::{Bytes, Key};
use crate::protocol::ring::NodeId;
use crate::protocol::{Accepted, Ballot, Operation, Outcome, Seen, VoteReply, VoteRequest};
use crate::storage::{ClusterId, Page, LogPosition, Scan, Standing, Start, StorageId};
use crate::transport::Outgoing;

/// Raised whenever nodes of two versions would misunderstand each other.
pub const PROTOCOL: u32 = 6;

/// What a process says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Introduction {
    pub start: Start,
    /// Of which cluster it is, if that is agreed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<ClusterId>,
}

/// The longest line, in bytes: a page of 1 MiB of records and one more, with the largest key and
/// value, which take some 3 MiB.
pub const MAX_LINE: usize = 5 << 20;
/// How many bytes of questions, and how many of replies, may wait for a peer that does not read
/// them.
pub const QUEUE_LIMIT: usize = 64 << 20;

/// How much of the buffer for outgoing messages each thread keeps, in bytes.
const KEPT_SCRATCH: usize = 64 << 10;

/// The first line of a connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: u32,
    /// The cluster's name and the fingerprint of its ids and quorums.
    pub cluster: String,
    pub from: NodeId,
    pub to: NodeId,
    pub introduction: Introduction,
}

/// The answer to a [`Hello`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Welcome {
    Welcome(Introduction),
    /// Why the connection is closed now.
    Refused(String),
    /// The same, where it is since a later process of the same node is known.
    Outdated(String),
}

impl Welcome {
    /// Why the connection is closed; empty for a welcome.
    pub fn text(&self) -> &str {
        match self {
            Welcome::Welcome(_) => "",
            Welcome::Refused(why) | Welcome::Outdated(why) => why,
        }
    }
}

/// A question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ask {
    pub id: u64,
    pub ask: Request,
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tell {
    pub id: u64,
    pub tell: Reply,
}

/// A question of one node to another, or what it tells it without a question ([`Ask`] with number 0).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// A coordinator asks a replica.
    Vote { key: Key, vote: VoteRequest },
    /// An origin asks a coordinator.
    Coordinate {
        key: Key,
        operation: Operation,
        /// For a read, what the origin has accepted itself, if it is a replica of the key: the
        /// answer to what the coordinator would ask it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seen: Option<Seen>,
    },
    /// Anti-entropy: the digests of a range's buckets.
    Digests { range: usize },
    /// Anti-entropy, and listing all pairs: the records of a range.
    Scan(Scan),
    /// Do you hold these very tombstones, or are you past them?
    Tombstones(Vec<(Key, Accepted)>),
    /// Every replica does: drop them.
    Drop(Vec<(Key, Ballot)>),
    /// A node says which of its processes this is, and under which storage id it votes, or wants to
    /// vote.
    Join {
        storage: StorageId,
        start: Start,
        votes: bool,
        /// Where it goes on, if its folder is whole.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resumed: Option<Resumed>,
    },
    /// A node says whether it holds as much data as it may.
    Full(bool),
    /// Are you there?
    Ping,
}

/// The answer to a [`Request`]; each variant belongs to that of the same name, if there is one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Vote(VoteReply),
    Outcome(Outcome),
    Digests(Vec<u64>),
    Page(Page),
    /// For each tombstone whether it is held, or past.
    Held(Vec<bool>),
    Known(Known),
    /// How far the answering node's log is durable.
    Pong(LogPosition),
    /// This node does not answer that: its storage is in doubt, its disk does not keep up, what is
    /// asked for is not held here, or the answer is too large for what waits already.
    Abstain,
}

/// Which process had a data folder last, and how far its log was written when it was opened again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resumed {
    pub start: Start,
    pub position: LogPosition,
}

/// What a node answers to a [`Request::Join`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Known {
    /// Whether the process that asks may be the node that it says it is.
    pub recognition: Recognition,
    /// Under which storage id the asking node was known, if at all.
    pub storage: Option<StorageId>,
    /// The number of its last start that is known, or 0.
    pub start_number: u64,
    /// The highest number of its writes that was seen.
    pub highest_number: u64,
    /// Of which cluster the answering node is, if that is agreed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<ClusterId>,
    /// Whether the answering node's own folder holds all its votes.
    pub standing: Standing,
}

/// What a node makes of a process that says which node it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recognition {
    Accepted,
    /// A later start of that node is known, or another one with the same number.
    Outdated,
    /// Another process of that node answers at this moment.
    Doubled,
}

impl Request {
    /// Asks a replica for the state that it has accepted for a key.
    pub fn read(key: &Key) -> Request {
        Request::Vote {
            key: key.clone(),
            vote: VoteRequest::Read { state: true },
        }
    }

    /// How long the value in it is, in bytes.
    pub fn size(&self) -> usize {
        let value = match self {
            Request::Vote {
                vote: VoteRequest::Accept(accepted),
                ..
            } => accepted.state.value.as_ref(),
            Request::Coordinate {
                operation: Operation::Write { change, .. },
                ..
            } => change.value(),
            _ => None,
        };
        value.map_or(0, Bytes::len)
    }

    /// Whether it has a state to take.
    pub fn is_accept(&self) -> bool {
        let Request::Vote { vote, .. } = self else {
            return false;
        };
        matches!(vote, VoteRequest::Accept(_))
    }
}

/// One message as a line.
pub fn line<T: Serialize>(message: &T) -> Vec<u8> {
    let mut line = Vec::new();
    write_line(message, &mut line);
    line
}

fn write_line<T: Serialize>(message: &T, line: &mut Vec<u8>) {
    serde_json::to_writer(&mut *line, message).expect("keys are text, and a vector takes all");
    line.push(b'\n');
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Sends one message; false if the connection is closed or too much waits already.
pub fn send<T: Serialize>(connection: &Arc<Outgoing>, message: &T) -> bool {
    SCRATCH.with_borrow_mut(|line| {
        write_line(message, line);
        let sent = connection.send(line);
        line.clear();
        line.shrink_to(KEPT_SCRATCH);
        sent
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::{MAX_KEY, MAX_VALUE};
    use crate::config::MOST_NODES;
    use crate::protocol::ring::Ring;
    use crate::protocol::version::Dot;
    use crate::protocol::{Change, State, Update};
    use crate::storage::records::Records;

    fn text<T: Serialize>(message: &T) -> String {
        String::from_utf8(line(message)).unwrap()
    }

    #[test]
    fn messages_are_these_lines() {
        let node = NodeId(5554);
        let state = State {
            value: Some("v".into()),
            clock: "5554:7".parse().unwrap(),
            last: Some(Dot {
                origin: node,
                sequence: 7,
            }),
            ..State::default()
        };
        let accepted = Accepted {
            ballot: Ballot {
                round: 1,
                node,
                step: 2,
            },
            state: state.into(),
        };
        let vote = VoteRequest::Accept(accepted);
        assert_eq!(
            text(&Ask {
                id: 3,
                ask: Request::Vote {
                    key: "k".into(),
                    vote
                }
            }),
            "{\"id\":3,\"ask\":{\"vote\":{\"key\":\"k\",\"vote\":{\"accept\":{\"ballot\":[1,5554,2],\
             \"state\":{\"value\":\"v\",\"clock\":[[5554,7]],\
             \"last\":{\"origin\":5554,\"sequence\":7}}}}}}}\n"
        );
        assert_eq!(
            text(&Tell {
                id: 3,
                tell: Reply::Vote(VoteReply::Taken)
            }),
            "{\"id\":3,\"tell\":{\"vote\":\"taken\"}}\n"
        );
        let change = Change::CompareAndSet {
            expected: None,
            value: "v".into(),
        };
        let operation = Operation::Write {
            dot: Dot {
                origin: node,
                sequence: 8,
            },
            change,
        };
        assert_eq!(
            text(&Ask {
                id: 4,
                ask: Request::Coordinate {
                    key: "k".into(),
                    operation,
                    seen: None
                }
            }),
            "{\"id\":4,\"ask\":{\"coordinate\":{\"key\":\"k\",\"operation\":{\"write\":{\"dot\":\
             {\"origin\":5554,\"sequence\":8},\"change\":{\"compare_and_set\":\
             {\"expected\":null,\"value\":\"v\"}}}}}}}\n"
        );
        let seen = Seen {
            ballot: Ballot::first(3, node),
            state: None,
        };
        assert_eq!(
            text(&Ask {
                id: 4,
                ask: Request::Coordinate {
                    key: "k".into(),
                    operation: Operation::Get,
                    seen: Some(seen)
                }
            }),
            "{\"id\":4,\"ask\":{\"coordinate\":{\"key\":\"k\",\"operation\":\"get\",\
             \"seen\":{\"ballot\":[3,5554,0]}}}}\n"
        );
        let tombstone = Accepted {
            ballot: Ballot::first(3, node),
            state: State::default().into(),
        };
        assert_eq!(
            text(&Ask {
                id: 5,
                ask: Request::Tombstones(vec![("k".into(), tombstone)])
            }),
            "{\"id\":5,\"ask\":{\"tombstones\":[[\"k\",{\"ballot\":[3,5554,0],\"state\":{\"clock\":[]}}]]}}\n"
        );
        assert_eq!(
            text(&Tell {
                id: 5,
                tell: Reply::Held(vec![true])
            }),
            "{\"id\":5,\"tell\":{\"held\":[true]}}\n"
        );
        assert_eq!(
            text(&Ask {
                id: 0,
                ask: Request::Drop(vec![("k".into(), Ballot::first(3, node))])
            }),
            "{\"id\":0,\"ask\":{\"drop\":[[\"k\",[3,5554,0]]]}}\n"
        );
        assert_eq!(
            text(&Ask {
                id: 0,
                ask: Request::Ping
            }),
            "{\"id\":0,\"ask\":\"ping\"}\n"
        );
        assert_eq!(
            text(&Ask {
                id: 0,
                ask: Request::Full(true)
            }),
            "{\"id\":0,\"ask\":{\"full\":true}}\n"
        );
        assert_eq!(
            text(&Welcome::Refused("no".into())),
            "{\"refused\":\"no\"}\n"
        );
    }

    #[test]
    fn the_largest_page_fits_into_a_line() {
        let ring = Arc::new(Ring::new([1, 2, 3].map(NodeId), 3));
        let clock: Vec<_> = (0..MOST_NODES as u32)
            .map(|id| format!("{}:{}", u32::MAX - id, u64::MAX))
            .collect();
        // As long in JSON as can be.
        let state = |value: usize| State {
            value: Some("\u{1}\"\"\"\"".repeat(value / 5).into()),
            clock: clock.join(",").parse().unwrap(),
            ..State::default()
        };
        let ballot = Ballot::first(u64::MAX, NodeId(u32::MAX));
        let mut longest = 0;
        // Pages that are all but full, and then the largest record of all.
        for (small, count) in [(0, 1000), (2_600, 1000), (MAX_VALUE / 2, 10)] {
            let mut records = Records::new(ring.clone());
            let mut put = |key: String, value: usize| {
                let state = Arc::new(state(value));
                records.apply(&key.into(), Update::Accept(Accepted { ballot, state }), 1);
            };
            for number in 0..count {
                let filled = |with: &str| format!("{number:08}{}", with.repeat(MAX_KEY - 8));
                put(filled("\u{1}"), small);
                if number % 37 == 0 {
                    put(filled("\u{2}"), MAX_VALUE);
                }
            }
            for range in 0..3 {
                let mut scan = Scan {
                    range,
                    buckets: None,
                    after: None,
                    states: true,
                };
                loop {
                    let (page, _) = records.scan(&scan);
                    scan.after = page.next.clone();
                    let tell = Reply::Page(page);
                    longest = longest.max(line(&Tell { id: u64::MAX, tell }).len());
                    if scan.after.is_none() {
                        break;
                    }
                }
            }
        }
        assert!(longest > MAX_LINE / 2 && longest < MAX_LINE, "{longest}");
    }

    #[test]
    fn the_largest_record_fits_into_a_line() {
        let state = State {
            value: Some("\u{1}\"\"\"\"".repeat(MAX_VALUE / 5).into()),
            ..State::default()
        };
        let accepted = Accepted {
            ballot: Ballot::ZERO,
            state: state.into(),
        };
        let key = [0x01; MAX_KEY][..].into();
        let vote = VoteRequest::Accept(accepted);
        let line = line(&Ask {
            id: u64::MAX,
            ask: Request::Vote { key, vote },
        });
        assert!(line.len() < MAX_LINE, "{}", line.len());
    }
}
