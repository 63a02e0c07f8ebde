//! The coordinator: drives the requests of its keys through the votes of their replicas.
//!
//! It asks all replicas of a key, itself included, and keeps at most one proposal per key in
//! flight; reads run beside it. Nothing here waits: events come in, effects go out, and whoever
//! brought the event carries them out. So work that needs other nodes never holds a thread that
//! other nodes need.

mod memory;
mod reads;
mod writes;

use std::collections::{HashMap, VecDeque};
use std::iter::repeat_n;
use std::sync::Arc;

use memory::Memory;

use crate::bytes::Key;
use crate::protocol::quorum::proposer::Proposer;
use crate::protocol::quorum::reader::Reader;
use crate::protocol::ring::{NodeId, Position, Ring};
use crate::protocol::version::Dot;
use crate::protocol::{
    Accepted, Ballot, Operation, Outcome, Quorums, Seen, VoteReply, VoteRequest, Why,
};
use crate::testing::rules::{self, Rule};

/// Names one question to the replicas: a reply counts only for the question it answers.
///
/// Tickets start anew with the process, so a connection must not outlive it: no reply to a
/// question of the process before may come in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    pub request: u64,
    question: u32,
}

/// What is to be done outside.
#[derive(Debug)]
pub enum Effect<H> {
    /// Ask replicas, one of which may be this node, and bring back the vote or the silence of each.
    Ask {
        to: Vec<NodeId>,
        ticket: Ticket,
        key: Key,
        /// What other nodes are asked; for this node's own replica see [`VoteRequest::of_own_replica`].
        request: VoteRequest,
    },
    /// Send a chosen state to a replica that lags; its answer is not needed.
    Repair {
        to: NodeId,
        key: Key,
        accepted: Accepted,
    },
    /// The request has ended.
    Answer { handle: H, outcome: Outcome },
    /// Call [`Coordinator::wake`] after a jittered moment that grows with the attempt.
    WakeLater { request: u64, attempt: u32 },
}

/// All requests that this node coordinates. `H` is the caller's note of whom to answer.
pub struct Coordinator<H> {
    node: NodeId,
    ring: Arc<Ring>,
    quorums: Quorums,
    capacity: usize,
    requests: HashMap<u64, Request<H>>,
    last_request: u64,
    /// Per key that has a proposal in flight, the requests that wait for its end to propose.
    proposing: HashMap<Key, VecDeque<u64>>,
    memory: Memory,
    /// The highest promise that any replica has refused anything for: proposals start above it.
    /// A key that is new here may be fenced off elsewhere, with many others.
    refused: Ballot,
}

struct Request<H> {
    key: Key,
    range: usize,
    /// Taken when the request is answered.
    handle: Option<H>,
    /// Of other reads of the key that need a full round, too, and came before this one had begun:
    /// what it gets chosen is as fresh as theirs would be.
    sharing: Vec<H>,
    /// A ballot that the proposal must be above to have a chance: the own replica's promise when a
    /// write came, or the last ballot of the proposal before it. A read has none at first.
    promised: Ballot,
    question: u32,
    attempt: u32,
    task: Task,
}

enum Task {
    Read(Reader),
    Queued(Operation),
    Propose(Proposer),
}

impl<H> Request<H> {
    /// Whom to answer, once.
    fn take_handles(&mut self) -> impl Iterator<Item = H> {
        let own = self.handle.take();
        own.into_iter().chain(std::mem::take(&mut self.sharing))
    }
}

impl Task {
    /// Whether a full round of a read waits for its turn.
    fn waits_to_refresh(&self) -> bool {
        matches!(self, Task::Queued(Operation::Refresh))
    }

    /// The dot of a write that waits for its turn.
    fn queued_dot(&self) -> Option<Dot> {
        match self {
            Task::Queued(Operation::Write { dot, .. }) => Some(*dot),
            _ => None,
        }
    }
}

impl<H> Coordinator<H> {
    /// A coordinator with room for `capacity` requests at a time.
    pub fn new(node: NodeId, ring: Arc<Ring>, quorums: Quorums, capacity: usize) -> Self {
        Coordinator {
            node,
            ring,
            quorums,
            capacity,
            requests: HashMap::new(),
            last_request: 0,
            proposing: HashMap::new(),
            memory: Memory::default(),
            refused: Ballot::ZERO,
        }
    }

    /// A new request; `promised` is what this node's own replica has promised for the key
    /// ([`Ballot::ZERO`] for a read, which seldom proposes), and `seen` what a replica that sends a
    /// read has seen itself since the client asked for it: its vote, told before it is asked.
    pub fn request(
        &mut self,
        handle: H,
        key: Key,
        operation: Operation,
        promised: Ballot,
        seen: Option<(NodeId, Seen)>,
        effects: &mut Vec<Effect<H>>,
    ) {
        let range = self.ring.range_at(Position::of(key.as_slice()));
        let refusal = if !self.ring.replicas_of_range(range).contains(&self.node) {
            Some(Why::NotReplica)
        } else if self.requests.len() >= self.capacity {
            Some(Why::Overloaded)
        } else {
            None
        };
        if let Some(why) = refusal {
            let outcome = Outcome::not_done(why);
            return effects.push(Effect::Answer { handle, outcome });
        }
        self.last_request += 1;
        let id = self.last_request;
        let (task, proposes) = match operation {
            Operation::Get => (Task::Read(Reader::start(self.quorums)), false),
            Operation::Write { dot, change } => {
                (Task::Queued(Operation::Write { dot, change }), true)
            }
            Operation::Refresh => (Task::Queued(Operation::Refresh), true),
        };
        let handle = Some(handle);
        let request = Request {
            key,
            range,
            handle,
            sharing: Vec::new(),
            promised,
            question: 0,
            attempt: 0,
            task,
        };
        self.requests.insert(id, request);
        if proposes {
            self.queue(id, effects);
        } else {
            self.start_read(id, seen, effects);
        }
    }

    /// A replica's answer to a question, or its silence.
    pub fn reply(
        &mut self,
        ticket: Ticket,
        from: NodeId,
        reply: Option<VoteReply>,
        effects: &mut Vec<Effect<H>>,
    ) {
        if let Some(VoteReply::Rejected(promised)) = &reply {
            self.refused = self.refused.max(*promised);
        }
        let Some(request) = self.requests.get_mut(&ticket.request) else {
            return;
        };
        if request.question != ticket.question && rules::holds(Rule::RepliesMatched) {
            return;
        }
        match &mut request.task {
            Task::Read(reader) => {
                let step = reader.reply(from, reply);
                self.read_step(ticket.request, step, effects);
            }
            Task::Propose(proposer) => {
                let step = proposer.reply(from, reply);
                self.proposal_step(ticket.request, step, effects);
            }
            Task::Queued(_) => {}
        }
    }

    /// The moment of an [`Effect::WakeLater`] has passed.
    pub fn wake(&mut self, id: u64, effects: &mut Vec<Effect<H>>) {
        if let Some(Request {
            task: Task::Propose(proposer),
            ..
        }) = self.requests.get_mut(&id)
        {
            let step = proposer.retry();
            self.proposal_step(id, step, effects);
        }
    }

    /// Ends every request undecided. Votes that were counted so far may be void: a replica has
    /// lost its memory.
    pub fn abandon(&mut self, effects: &mut Vec<Effect<H>>) {
        self.memory = Memory::default();
        self.proposing.clear();
        let mut requests: Vec<_> = self.requests.drain().collect();
        // In a fixed order: a simulation must replay.
        requests.sort_unstable_by_key(|(id, _)| *id);
        for (_, mut request) in requests {
            let accept_sent = match &request.task {
                Task::Propose(proposer) => proposer.accept_sent(),
                Task::Read(_) | Task::Queued(_) => false,
            };
            let why = Why::StartedOver;
            let answer = |handle| Effect::Answer {
                handle,
                outcome: Outcome::Failed { accept_sent, why },
            };
            effects.extend(request.take_handles().map(answer));
        }
    }

    fn answer(&mut self, id: u64, outcome: Outcome, effects: &mut Vec<Effect<H>>) {
        if let Some(request) = self.requests.get_mut(&id) {
            // The last one gets the outcome itself, the others a copy.
            let outcomes = repeat_n(outcome, 1 + request.sharing.len());
            let answers = request.take_handles().zip(outcomes);
            effects.extend(answers.map(|(handle, outcome)| Effect::Answer { handle, outcome }));
        }
    }

    /// Asks these replicas, or all of the key, one more question; not the one that `voted` already,
    /// since it sent its vote along with the request.
    fn ask(
        &mut self,
        id: u64,
        replicas: Option<&[NodeId]>,
        voted: Option<NodeId>,
        question: VoteRequest,
        effects: &mut Vec<Effect<H>>,
    ) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        request.question += 1;
        let ticket = Ticket {
            request: id,
            question: request.question,
        };
        let mut replicas = replicas.unwrap_or_else(|| self.ring.replicas_of_range(request.range));
        if !rules::holds(Rule::EveryReplicaAsked) {
            replicas = &replicas[..replicas.len().min(self.quorums.write)];
        }
        let asked = replicas.iter().filter(|&&replica| Some(replica) != voted);
        effects.push(Effect::Ask {
            to: asked.copied().collect(),
            ticket,
            key: request.key.clone(),
            request: question,
        });
    }
}
