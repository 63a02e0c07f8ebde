//! The shell around the rules: it carries messages, and carries out what origins and coordinators ask for.

use simple_dynamo::protocol::origin::{self, Answer, Origin};
use simple_dynamo::protocol::quorum::coordinator::{self, Coordinator};
use simple_dynamo::protocol::ring::NodeId;
use simple_dynamo::protocol::{
    Accepted, Ballot, Fence, Operation, Outcome, Seen, VoteReply, VoteRequest,
};
use simple_dynamo::server::text;

use crate::cluster::{B, C, Cluster, ReplyTo, Wake};
use crate::wording;

pub enum Body {
    Coordinate(origin::Ticket, Operation, Option<Seen>),
    Outcome(origin::Ticket, Outcome),
    Ask(coordinator::Ticket, VoteRequest),
    Vote(coordinator::Ticket, VoteReply),
    Repair(Accepted),
}

/// What one node says to another.
pub struct Message {
    pub from: NodeId,
    pub to: NodeId,
    pub body: Body,
    pub held_up: bool,
}

impl Message {
    /// The line of the trace that stands for this message.
    pub fn text(&self) -> String {
        let body = match &self.body {
            Body::Coordinate(_, operation, seen) => wording::coordinate(operation, seen.as_ref()),
            Body::Outcome(_, outcome) => wording::outcome(outcome),
            Body::Ask(_, request) => wording::request(request),
            Body::Vote(_, reply) => wording::vote(reply),
            Body::Repair(accepted) => format!("repair {}", wording::accepted(accepted)),
        };
        format!("{} -> {}: {body}", self.from, self.to)
    }
}

/// A question that a node waits for an answer to.
#[derive(Clone, PartialEq)]
pub enum Question {
    Coordinate(origin::Ticket),
    Vote(coordinator::Ticket),
}

impl Cluster {
    pub fn send(&mut self, from: NodeId, to: NodeId, body: Body) {
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

    pub fn arrive(&mut self, message: Message) {
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

    /// An origin has its answer, or takes its coordinator for silent.
    pub fn answered(&mut self, at: NodeId, from: NodeId, ticket: origin::Ticket, answer: Answer) {
        let ended = (at, from, Question::Coordinate(ticket));
        self.outstanding.retain(|waiting| *waiting != ended);
        self.origin(at, |it, suspects, effects| {
            it.answer(ticket, from, answer, suspects, effects);
        });
    }

    /// A coordinator has a replica's vote, or takes it for silent.
    pub fn voted(
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

    pub fn origin(
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
                    self.write_line(at, handle, text::outcome(&result).trim_end());
                }
                origin::Effect::WakeLater { .. } => panic!("no script tries all replicas in vain"),
            }
        }
    }

    pub fn coordinator(
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

    /// Asks replicas. A suspect is sent what it would have to accept, and the coordinator does not wait for
    /// its answer.
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
