//! A cluster whose every message is delivered by a script, and told in one line.
//!
//! Each node has the product's own origin and coordinator, and one record, of the key `x`. There is no
//! time and no chance in it: a script says what is held up, what is lost, and who takes whom for silent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use simple_dynamo::protocol::origin::{self, Answer, Origin};
use simple_dynamo::protocol::quorum::coordinator::{self, Coordinator};
use simple_dynamo::protocol::ring::{NodeId, Ring};
use simple_dynamo::protocol::{
    Accepted, Ballot, Change, Fence, Operation, Outcome, Quorums, Record, Seen, State, VoteReply,
    VoteRequest,
};
use simple_dynamo::server::text;

use crate::told;

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

/// Whom a coordinator answers: the try of an origin.
type ReplyTo = (NodeId, origin::Ticket);

struct Node {
    origin: Origin<&'static str>,
    coordinator: Coordinator<ReplyTo>,
    record: Record,
    suspects: Vec<NodeId>,
}

#[derive(Clone)]
enum Body {
    Coordinate(origin::Ticket, Operation, Option<Seen>),
    Outcome(origin::Ticket, Outcome),
    Ask(coordinator::Ticket, VoteRequest),
    Vote(coordinator::Ticket, VoteReply),
    Repair(Accepted),
}

#[derive(Clone)]
struct Message {
    from: NodeId,
    to: NodeId,
    body: Body,
    held_up: bool,
}

impl Message {
    fn text(&self) -> String {
        let body = match &self.body {
            Body::Coordinate(_, operation, seen) => told::coordinate(operation, seen.as_ref()),
            Body::Outcome(_, outcome) => told::outcome(outcome),
            Body::Ask(_, request) => told::request(request),
            Body::Vote(_, reply) => told::vote(reply),
            Body::Repair(accepted) => format!("repair {}", told::accepted(accepted)),
        };
        format!("{} -> {}: {body}", self.from, self.to)
    }
}

/// Something that a node waits for an answer to.
#[derive(Clone, PartialEq)]
enum Question {
    Coordinate(origin::Ticket),
    Vote(coordinator::Ticket),
}

/// A coordinator's request that tries again once nothing else happens.
struct Wake {
    node: NodeId,
    request: u64,
}

pub struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    under_way: VecDeque<Message>,
    held_up: BTreeSet<(NodeId, NodeId)>,
    /// Who waits for whose answer, and to what.
    outstanding: Vec<(NodeId, NodeId, Question)>,
    wakes: VecDeque<Wake>,
    lines: Vec<String>,
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
            let mut origin = Origin::new(id, ring.clone(), DEADLINE, 2);
            origin.reserved(1, 100);
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

    /// What happened, a line each.
    pub fn end(self) -> Vec<String> {
        self.lines
    }

    /// A sentence of the script.
    pub fn say(&mut self, text: &str) {
        self.lines.extend([String::new(), format!("# {text}")]);
    }

    /// What each replica stores.
    pub fn stores(&mut self) {
        let stored = [A, B, C].map(|id| {
            let accepted = self.nodes[&id].record.accepted.as_ref();
            format!("{id} {}", told::stored(accepted))
        });
        self.lines.push(format!("stored: {}", stored.join(", ")));
    }

    /// A client's request at a node: a write if it has a change.
    pub fn submit(&mut self, client: &'static str, at: NodeId, change: Option<Change>) {
        self.tell(client, at, &told::line(change.as_ref()));
        self.origin(at, |origin, suspects, effects| {
            let (key, now) = ("x".into(), Duration::ZERO);
            origin.submit(client, key, change, now, suspects, effects);
        });
    }

    /// The same, until nothing more happens.
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

    /// Delivers messages up to the first that starts like this, which stays under way.
    pub fn deliver_until(&mut self, start: &str) {
        let start = told::in_numbers(start);
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

    /// Delivers messages up to one that is to stay; whether there was one.
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

    /// What is under way between two nodes is lost.
    pub fn lose(&mut self, from: NodeId, to: NodeId) {
        let is_lost = |it: &Message| (it.from, it.to) == (from, to);
        let lost = self.under_way.iter().filter(|it| is_lost(it));
        self.lines
            .extend(lost.map(|it| format!("{}   (lost)", it.text())));
        self.under_way.retain(|it| !is_lost(it));
    }

    /// What is under way between two nodes, or comes to be, arrives only after [`Cluster::release`].
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

    /// Nothing comes from a node or to it, from now on.
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

    /// These nodes have waited for another one for as long as they do.
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

    fn tell(&mut self, from: impl Display, to: impl Display, what: &str) {
        self.lines.push(format!("{from} -> {to}: {what}"));
    }

    fn is_held_up(&self, message: &Message) -> bool {
        self.held_up.contains(&(message.from, message.to))
    }

    fn send(&mut self, from: NodeId, to: NodeId, body: Body) {
        let held_up = self.held_up.contains(&(from, to));
        let message = Message {
            from,
            to,
            body,
            held_up,
        };
        if held_up {
            self.lines.push(format!("{}   (held up)", message.text()));
        }
        self.under_way.push_back(message);
    }

    fn arrive(&mut self, message: Message) {
        let Message { from, to, body, .. } = message;
        let record = &mut self.nodes.get_mut(&to).expect("a node").record;
        match body {
            Body::Coordinate(ticket, operation, seen) => {
                let promised = match operation {
                    Operation::Get => Ballot::ZERO,
                    Operation::Write { .. } | Operation::Refresh => record.promised,
                };
                let agrees = |seen: &Seen| seen.ballot == record.accepted_ballot();
                let seen = seen.filter(agrees).map(|seen| (from, seen));
                self.coordinator(to, |it, effects| {
                    let reply_to = (from, ticket);
                    it.request(reply_to, "x".into(), operation, promised, seen, effects);
                });
            }
            Body::Outcome(ticket, outcome) => {
                self.answered(to, from, ticket, Answer::Outcome(outcome));
            }
            Body::Ask(ticket, request) => {
                let (update, reply) = record.vote(&request, &Fence::default());
                update.into_iter().for_each(|update| record.apply(update));
                self.send(to, from, Body::Vote(ticket, reply));
            }
            Body::Vote(ticket, reply) => self.voted(to, from, ticket, Some(reply)),
            Body::Repair(accepted) => {
                let request = VoteRequest::Accept(accepted);
                let (update, _) = record.vote(&request, &Fence::default());
                update.into_iter().for_each(|update| record.apply(update));
            }
        }
    }

    /// An origin has been answered, or takes its coordinator for silent.
    fn answered(&mut self, at: NodeId, from: NodeId, ticket: origin::Ticket, answer: Answer) {
        let ended = (at, from, Question::Coordinate(ticket));
        self.outstanding.retain(|waiting| *waiting != ended);
        self.origin(at, |it, suspects, effects| {
            it.answer(ticket, from, answer, suspects, effects);
        });
    }

    /// A coordinator has a replica's vote, or takes it for silent.
    fn voted(
        &mut self,
        at: NodeId,
        from: NodeId,
        ticket: coordinator::Ticket,
        reply: Option<VoteReply>,
    ) {
        let ended = (at, from, Question::Vote(ticket));
        self.outstanding.retain(|waiting| *waiting != ended);
        self.coordinator(at, |it, effects| it.reply(ticket, from, reply, effects));
    }

    fn origin(
        &mut self,
        at: NodeId,
        step: impl FnOnce(&mut Origin<&'static str>, &[NodeId], &mut Vec<origin::Effect<&'static str>>),
    ) {
        let mut effects = Vec::new();
        let node = self.nodes.get_mut(&at).expect("a node");
        step(&mut node.origin, &node.suspects, &mut effects);
        for effect in effects {
            match effect {
                origin::Effect::Forward {
                    to,
                    ticket,
                    operation,
                    ..
                } => {
                    self.outstanding
                        .push((at, to, Question::Coordinate(ticket)));
                    // A replica sends its own vote along with a read that it forwards.
                    let votes = operation == Operation::Get && at != to && [B, C].contains(&at);
                    let seen = votes.then(|| self.nodes[&at].record.seen(false));
                    self.send(at, to, Body::Coordinate(ticket, operation, seen));
                }
                origin::Effect::Answer { handle, result } => {
                    self.tell(at, handle, text::outcome(&result).trim_end());
                }
                origin::Effect::WakeLater { .. } => panic!("no script tries all replicas in vain"),
            }
        }
    }

    fn coordinator(
        &mut self,
        at: NodeId,
        step: impl FnOnce(&mut Coordinator<ReplyTo>, &mut Vec<coordinator::Effect<ReplyTo>>),
    ) {
        let mut effects = Vec::new();
        let node = self.nodes.get_mut(&at).expect("a node");
        step(&mut node.coordinator, &mut effects);
        for effect in effects {
            match effect {
                coordinator::Effect::Ask {
                    to,
                    ticket,
                    request,
                    ..
                } => self.ask(at, &to, ticket, &request),
                coordinator::Effect::Repair { to, accepted, .. } => {
                    self.send(at, to, Body::Repair(accepted));
                }
                coordinator::Effect::Answer { handle, outcome } => {
                    let (origin, ticket) = handle;
                    self.send(at, origin, Body::Outcome(ticket, outcome));
                }
                coordinator::Effect::WakeLater { request, .. } => {
                    self.wakes.push_back(Wake { node: at, request });
                }
            }
        }
    }

    /// Asks replicas. A suspect is told what it would have to take, and not waited for.
    fn ask(&mut self, at: NodeId, to: &[NodeId], ticket: coordinator::Ticket, ask: &VoteRequest) {
        for &replica in to {
            let suspect = self.nodes[&at].suspects.contains(&replica);
            let request = if replica == at {
                ask.of_own_replica()
            } else {
                ask.clone()
            };
            if !suspect || matches!(request, VoteRequest::Accept(_)) {
                self.send(at, replica, Body::Ask(ticket, request));
            }
            if suspect {
                self.voted(at, replica, ticket, None);
            } else {
                self.outstanding.push((at, replica, Question::Vote(ticket)));
            }
        }
    }
}
