//! The messages between nodes: lines of JSON.
//!
//! A node asks on the connections that it opened. After the [handshake](super::handshake) it sends
//! [`Ask`]s, and the peer answers each with a [`Tell`] of the same id, in any order. Ids grow by one with
//! each question of a link. A question with id 0 wants no answer.

use std::cell::RefCell;
use std::io::{self, Read};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bytes::{Bytes, Key};
use crate::protocol::chain::epoch::Epoch;
use crate::protocol::group::{GroupName, Message};
use crate::protocol::{Accepted, Ballot, Operation, Outcome, Seen, VoteReply, VoteRequest, chain};
use crate::storage::{ClusterId, LogPosition, Page, Scan, Standing, Start, StorageId, Within};
use crate::transport::{Lines, Outgoing};

/// The longest line, in bytes. A page of 1 MiB and one more record with the largest key and value take
/// about 4 MiB.
pub const MAX_LINE: usize = 5 << 20;
/// The most bytes that wait for a peer on one connection. Further messages are dropped.
pub const QUEUE_LIMIT: usize = 64 << 20;
/// The buffer that each thread keeps for outgoing messages, in bytes.
const KEPT_BUFFER: usize = 64 << 10;

/// A question, as it is sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ask {
    pub id: u64,
    pub ask: Request,
}

/// An answer, as it is sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tell {
    /// The id of the question.
    pub id: u64,
    pub tell: Reply,
}

/// A question of one node to another.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// From a coordinator, and from anti-entropy, to a replica: vote on a key. Answered by
    /// [`Reply::Vote`] once the vote is durable.
    Vote { key: Key, vote: VoteRequest },
    /// From the node that a client asked, to a coordinator of the key: carry this operation out.
    /// Answered by [`Reply::Outcome`].
    Coordinate {
        key: Key,
        operation: Operation,
        /// With a read from a replica of the key, what that replica has accepted: the coordinator
        /// need not ask it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seen: Option<Seen>,
        /// From a member of a chain that passes the request on, the epoch that it serves.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vouched: Option<Epoch>,
    },
    /// From one replica of a range to another: about the chain of the range. Answered by [`Reply::Chain`] once
    /// what it reveals is durable.
    Chain {
        range: usize,
        question: chain::Question,
    },
    /// From a replica that compares a range for its chain: the records of these keys. Answered by
    /// [`Reply::Page`] once the page is durable: with the first of them at least, and with as many as a page has.
    States {
        range: usize,
        keys: Vec<Key>,
        within: Within,
    },
    /// From anti-entropy, or a chain, to another replica of the range: which buckets differ? Answered by
    /// [`Reply::Digests`].
    Digests {
        range: usize,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        within: Option<Within>,
    },
    /// From anti-entropy, a listing of all pairs or a node that copies what it lost, to a replica: a page
    /// of records. Answered by [`Reply::Page`] once the page is durable.
    Scan(Scan),
    /// From a node that wants to drop tombstones, to each other replica of their keys: do you hold them,
    /// or are you past them? Answered by [`Reply::Held`].
    Tombstones {
        tombstones: Vec<(Key, Accepted)>,
        /// In a chain, the epoch of all replicas that the sender serves.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        epoch: Option<Epoch>,
    },
    /// From the same node to the same replicas once all of them hold the tombstones or are past them:
    /// drop them. Not answered.
    Drop(Vec<(Key, Ballot)>),
    /// From a node to all others, when it starts and whenever a link is connected: this is my process and
    /// my storage, so notice if I have lost votes. Answered by [`Reply::Known`].
    Join(Join),
    /// From a node to all others whenever it changes: I hold as much data as I may, or no longer do. Not
    /// answered.
    Full(bool),
    /// From the node that appended messages to a group, to all others: tell your members. Not answered, and
    /// it may be lost.
    Said {
        group: GroupName,
        messages: Vec<Arc<Message>>,
    },
    /// From a node that is asked who is in a group, to all others. Answered by [`Reply::Members`].
    Members(GroupName),
    /// From a link to a peer that has been silent or was asked nothing for a while: are you there?
    /// Answered by [`Reply::Pong`] at once, without the disk.
    Ping,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// From a replica to [`Request::Vote`]: its vote.
    Vote(VoteReply),
    /// From a coordinator to [`Request::Coordinate`]: how the operation ended.
    Outcome(Outcome),
    /// From a replica to [`Request::Chain`].
    Chain(chain::Answer),
    /// From a replica to [`Request::Digests`]: one digest for each bucket of the range.
    Digests(Vec<u64>),
    /// From a replica to [`Request::Scan`]: the page.
    Page(Page),
    /// From a replica to [`Request::Tombstones`]: for each, whether it is held or past.
    Held(Vec<bool>),
    /// From any node to [`Request::Members`]: the nicks of its members.
    Members(Vec<String>),
    /// From any node to [`Request::Join`]: what it knows of the sender.
    Known(Known),
    /// From any node to [`Request::Ping`]: how far its log is durable. If its folder is later replaced by
    /// an older copy, the position gives that away.
    Pong(LogPosition),
    /// From a node that does not answer a question, so that the sender need not wait: its storage is
    /// in doubt, its disk does not keep up, it is no replica of the key or range, or too much waits for
    /// the sender already.
    Abstain,
}

/// What a process says of itself in [`Request::Join`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Join {
    pub storage: StorageId,
    pub start: Start,
    /// Whether the node votes with this storage, or makes sure first that it may.
    pub votes: bool,
    /// If its folder is whole, the point from which it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Resumed>,
}

/// The point from which a process goes on with a data folder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resumed {
    /// The process that used the folder before.
    pub start: Start,
    /// How far its log was written.
    pub position: LogPosition,
}

/// What a node knows of a peer that sent [`Request::Join`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Known {
    /// Whether the process may be the peer that it claims to be.
    pub recognition: Recognition,
    /// The storage id under which the peer voted until now, if it is known.
    pub storage: Option<StorageId>,
    /// The number of the peer's last start that is known, or 0.
    pub start_number: u64,
    /// The highest sequence number of the peer's writes that was seen.
    pub highest_number: u64,
    /// The id of the answering node's cluster, if the nodes have agreed on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<ClusterId>,
    /// Whether the answering node's own folder holds all its votes.
    pub standing: Standing,
}

/// Whether a process may be the peer that it claims to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recognition {
    Accepted,
    /// It may not: a later start of that peer is known, or another one with the same number.
    Outdated,
    /// It may not: another process of that peer answers at this moment.
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

    /// The length of the value in it, in bytes.
    pub fn value_size(&self) -> usize {
        let value = match self {
            Request::Vote {
                vote: VoteRequest::Accept(accepted),
                ..
            } => accepted.state.value.as_ref(),
            Request::Coordinate {
                operation: Operation::Write { change, .. },
                ..
            } => change.value(),
            Request::Chain {
                question: chain::Question::Pass { accepted, .. },
                ..
            } => accepted.state.value.as_ref(),
            _ => None,
        };
        value.map_or(0, Bytes::len)
    }
}

/// The next message among the received lines, if a whole one is there.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if the line is too long, or, with this `complaint`, if it is not such a
/// message.
pub fn next<T: DeserializeOwned, R: Read>(
    lines: &mut Lines<R>,
    complaint: &str,
) -> io::Result<Option<T>> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let line = lines.next_line();
    let line = line.map_err(|_| invalid("an endless line".to_owned()))?;
    let message = line.map(serde_json::from_slice).transpose();
    message.map_err(|error| invalid(format!("{complaint}: {error}")))
}

/// A message as a line.
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
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Sends a message. Returns false if the connection is closed or too much waits already.
pub fn send<T: Serialize>(connection: &Arc<Outgoing>, message: &T) -> bool {
    BUFFER.with_borrow_mut(|line| {
        write_line(message, line);
        let sent = connection.send(line);
        line.clear();
        line.shrink_to(KEPT_BUFFER);
        sent
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::{MAX_KEY, MAX_VALUE};
    use crate::config::MOST_NODES;
    use crate::protocol::ring::{NodeId, Ring};
    use crate::protocol::version::Dot;
    use crate::protocol::{Change, State, Update};
    use crate::storage::records::Records;
    use crate::transport::handshake::Welcome;

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
        let key: Key = "k".into();
        let vote = VoteRequest::Accept(accepted);
        let change = Change::CompareAndSet {
            expected: None,
            value: "v".into(),
        };
        let dot = Dot {
            origin: node,
            sequence: 8,
        };
        let coordinate = |operation, seen| Request::Coordinate {
            key: "k".into(),
            operation,
            seen,
            vouched: None,
        };
        let seen = Seen {
            ballot: Ballot::first(3, node),
            state: None,
        };
        let tombstone = Accepted {
            ballot: Ballot::first(3, node),
            state: State::default().into(),
        };
        let asks = [
            (
                Request::Vote {
                    key: key.clone(),
                    vote,
                },
                "{\"vote\":{\"key\":\"k\",\"vote\":{\"accept\":{\"ballot\":[1,5554,2],\
                 \"state\":{\"value\":\"v\",\"clock\":[[5554,7]],\
                 \"last\":{\"origin\":5554,\"sequence\":7}}}}}}",
            ),
            (
                coordinate(Operation::Write { dot, change }, None),
                "{\"coordinate\":{\"key\":\"k\",\"operation\":{\"write\":{\"dot\":\
                 {\"origin\":5554,\"sequence\":8},\"change\":{\"compare_and_set\":\
                 {\"expected\":null,\"value\":\"v\"}}}}}}",
            ),
            (
                coordinate(Operation::Get, Some(seen)),
                "{\"coordinate\":{\"key\":\"k\",\"operation\":\"get\",\
                 \"seen\":{\"ballot\":[3,5554,0]}}}",
            ),
            (
                Request::Tombstones {
                    tombstones: vec![(key.clone(), tombstone)],
                    epoch: None,
                },
                "{\"tombstones\":{\"tombstones\":[[\"k\",{\"ballot\":[3,5554,0],\
                 \"state\":{\"clock\":[]}}]]}}",
            ),
            (
                Request::Drop(vec![(key, Ballot::first(3, node))]),
                "{\"drop\":[[\"k\",[3,5554,0]]]}",
            ),
            (Request::Ping, "\"ping\""),
            (Request::Full(true), "{\"full\":true}"),
        ];
        for (ask, expected) in asks {
            let expected = format!("{{\"id\":3,\"ask\":{expected}}}\n");
            assert_eq!(text(&Ask { id: 3, ask }), expected);
        }
        let tells = [
            (Reply::Vote(VoteReply::Taken), "{\"vote\":\"taken\"}"),
            (Reply::Held(vec![true]), "{\"held\":[true]}"),
        ];
        for (tell, expected) in tells {
            let expected = format!("{{\"id\":5,\"tell\":{expected}}}\n");
            assert_eq!(text(&Tell { id: 5, tell }), expected);
        }
        let refused = Welcome::Refused("no".into());
        assert_eq!(text(&refused), "{\"refused\":\"no\"}\n");
    }

    #[test]
    fn the_largest_page_fits_into_a_line() {
        let ring = Arc::new(Ring::new([1, 2, 3].map(NodeId), 3));
        let clock: Vec<_> = (0..MOST_NODES as u32)
            .map(|id| format!("{}:{}", u32::MAX - id, u64::MAX))
            .collect();
        // Its JSON is as long as that of a value can be.
        let state = |value: usize| State {
            value: Some("\u{1}\"\"\"\"".repeat(value / 5).into()),
            clock: clock.join(",").parse().unwrap(),
            ..State::default()
        };
        let ballot = Ballot::first(u64::MAX, NodeId(u32::MAX));
        let mut longest = 0;
        // Pages that are nearly full get the largest possible record on top.
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
                    within: None,
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
