//! A cluster in which a script delivers every message, and each message becomes one line of the trace.
//!
//! Each node has the product's own origin and coordinator, and one record, of the key `x`. Neither time nor
//! chance plays a part: the script says what is held up, what is lost, and who takes whom for silent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use simple_dynamo::protocol::origin::{self, Answer, Origin};
use simple_dynamo::protocol::quorum::coordinator::Coordinator;
use simple_dynamo::protocol::ring::{NodeId, Ring};
use simple_dynamo::protocol::{Accepted, Ballot, Change, Quorums, Record, State, Strategy};

use crate::shell::{Message, Question};
use crate::wording;

/// The replicas of `x` on the ring of the assignment, its coordinator first.
pub const A: NodeId = NodeId(5562);
pub const B: NodeId = NodeId(5556);
pub const C: NodeId = NodeId(5554);
/// The other two nodes.
pub const M: NodeId = NodeId(5558);
pub const N: NodeId = NodeId(5560);

const QUORUMS: Quorums = Quorums {
    replicas: 3,
    read: 2,
    write: 2,
};
const DEADLINE: Duration = Duration::from_secs(2);

/// Whom a coordinator answers: an origin, and which of its tries.
pub type ReplyTo = (NodeId, origin::Ticket);

pub struct Node {
    pub origin: Origin<&'static str>,
    pub coordinator: Coordinator<ReplyTo>,
    pub record: Record,
    pub suspects: Vec<NodeId>,
}

/// A coordinator's request that tries again once nothing else happens.
pub struct Wake {
    pub node: NodeId,
    pub request: u64,
}

pub struct Cluster {
    pub nodes: BTreeMap<NodeId, Node>,
    pub under_way: VecDeque<Message>,
    pub held_up: BTreeSet<(NodeId, NodeId)>,
    /// Who waits for whose answer, and to which question.
    pub outstanding: Vec<(NodeId, NodeId, Question)>,
    pub wakes: VecDeque<Wake>,
    pub lines: Vec<String>,
}

impl Cluster {
    /// All nodes have just started, so no coordinator remembers anything. The replicas hold this value
    /// of `x`, which came through C.
    pub fn holding(value: &str) -> Cluster {
        let ring = Arc::new(Ring::new([A, B, C, M, N], QUORUMS.replicas));
        assert_eq!(ring.preference_list(&"x".into()), [A, B, C]);
        let ballot = Ballot::first(1, A);
        let state = Arc::new(State {
            value: Some(value.into()),
            clock: format!("{C}:1").parse().expect("a version"),
            ..State::default()
        });
        let node = |id: NodeId| {
            let mut origin = Origin::new(id, ring.clone(), Strategy::Quorum, DEADLINE, 1);
            origin.reserved(0, 100);
            let accepted = [A, B, C].contains(&id).then(|| Accepted {
                ballot,
                state: state.clone(),
            });
            let node = Node {
                origin,
                coordinator: Coordinator::new(id, ring.clone(), QUORUMS, 9),
                record: Record {
                    promised: ballot,
                    accepted,
                },
                suspects: Vec::new(),
            };
            (id, node)
        };
        let mut cluster = Cluster {
            nodes: [A, B, C, M, N].map(node).into(),
            under_way: VecDeque::new(),
            held_up: BTreeSet::new(),
            outstanding: Vec::new(),
            wakes: VecDeque::new(),
            lines: Vec::new(),
        };
        cluster.stores();
        cluster
    }

    /// The lines of the trace.
    pub fn end(self) -> Vec<String> {
        self.lines
    }

    /// Adds a comment of the script to the trace.
    pub fn say(&mut self, text: &str) {
        self.lines.extend([String::new(), format!("# {text}")]);
    }

    /// Adds a line that says what each replica stores.
    pub fn stores(&mut self) {
        let stored = [A, B, C].map(|id| {
            let accepted = self.nodes[&id].record.accepted.as_ref();
            format!("{id} {}", wording::stored(accepted))
        });
        self.lines.push(format!("stored: {}", stored.join(", ")));
    }

    /// A client's request at a node: a write if it has a change.
    pub fn submit(&mut self, client: &'static str, at: NodeId, change: Option<Change>) {
        self.write_line(client, at, &wording::line(change.as_ref()));
        self.origin(at, |origin, suspects, effects| {
            let (key, now) = ("x".into(), Duration::ZERO);
            origin.submit(client, key, change, now, suspects, effects);
        });
    }

    /// Submits a client's request, and delivers messages until nothing more happens.
    pub fn request(&mut self, client: &'static str, at: NodeId, change: Option<Change>) {
        self.submit(client, at, change);
        self.settle();
    }

    /// Delivers messages until nothing more happens.
    pub fn settle(&mut self) {
        self.deliver_unless(|_| false);
        while let Some(Wake { node, request }) = self.wakes.pop_front() {
            self.lines
                .push(format!("{node} waits a moment, and tries again"));
            self.coordinator(node, |it, effects| it.wake(request, effects));
            self.deliver_unless(|_| false);
        }
    }

    /// Delivers messages up to the first whose line starts with `start`. That one stays under way.
    pub fn deliver_until(&mut self, start: &str) {
        let start = wording::in_numbers(start);
        let found = self.deliver_unless(|message| message.text().starts_with(&start));
        assert!(found, "there was no message {start}");
    }

    /// Delivers messages until a client has its reply.
    pub fn deliver_until_answered(&mut self, client: &str) {
        let answer = format!("-> {client}: ");
        let answered = |lines: &[String]| lines.iter().any(|line| line.contains(&answer));
        while !answered(&self.lines) {
            let next = self.under_way.iter().position(|it| !self.is_held_up(it));
            self.deliver_at(next.expect("a message that leads to a reply"));
        }
    }

    /// Delivers messages up to one that is to stay. Returns whether there was one.
    fn deliver_unless(&mut self, stays: impl Fn(&Message) -> bool) -> bool {
        while let Some(place) = self.under_way.iter().position(|it| !self.is_held_up(it)) {
            if stays(&self.under_way[place]) {
                return true;
            }
            self.deliver_at(place);
        }
        false
    }

    fn deliver_at(&mut self, place: usize) {
        let message = self.under_way.remove(place).expect("a message is there");
        let late = if message.held_up { "   (late)" } else { "" };
        self.lines.push(message.text() + late);
        self.arrive(message);
    }

    /// Loses the messages that are under way from one node to another.
    pub fn lose(&mut self, from: NodeId, to: NodeId) {
        let is_lost = |it: &Message| (it.from, it.to) == (from, to);
        let lost = self.under_way.iter().filter(|it| is_lost(it));
        self.lines
            .extend(lost.map(|it| format!("{}   (lost)", it.text())));
        self.under_way.retain(|it| !is_lost(it));
    }

    /// Holds up all present and later messages from one node to another until [`Cluster::release`].
    pub fn hold_up(&mut self, from: NodeId, to: NodeId) {
        if !self.held_up.insert((from, to)) {
            return;
        }
        for message in &mut self.under_way {
            if (message.from, message.to) == (from, to) {
                message.held_up = true;
                self.lines.push(format!("{}   (held up)", message.text()));
            }
        }
    }

    pub fn release(&mut self, from: NodeId, to: NodeId) {
        self.held_up.remove(&(from, to));
    }

    /// Holds up all messages from a node and to it until [`Cluster::resume`].
    pub fn pause(&mut self, node: NodeId) {
        for other in [A, B, C, M, N] {
            self.hold_up(node, other);
            self.hold_up(other, node);
        }
    }

    pub fn resume(&mut self, node: NodeId) {
        self.held_up
            .retain(|(from, to)| *from != node && *to != node);
        for other in self.nodes.values_mut() {
            other.suspects.retain(|suspect| *suspect != node);
        }
    }

    /// These nodes have waited for another one until their time-out: they suspect it.
    pub fn suspect(&mut self, who: &[NodeId], whom: NodeId) {
        for node in who {
            self.lines.push(format!("{node} suspects {whom}"));
            self.nodes
                .get_mut(node)
                .expect("a node")
                .suspects
                .push(whom);
            let waiting = self.outstanding.iter().cloned();
            let waiting = waiting.filter(|(by, of, _)| (*by, *of) == (*node, whom));
            for (_, _, question) in waiting.collect::<Vec<_>>() {
                match question {
                    Question::Coordinate(ticket) => {
                        self.answered(*node, whom, ticket, Answer::Silent);
                    }
                    Question::Vote(ticket) => self.voted(*node, whom, ticket, None),
                }
            }
        }
    }

    pub fn write_line(&mut self, from: impl Display, to: impl Display, what: &str) {
        self.lines.push(format!("{from} -> {to}: {what}"));
    }

    fn is_held_up(&self, message: &Message) -> bool {
        self.held_up.contains(&(message.from, message.to))
    }
}
