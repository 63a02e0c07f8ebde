//! The coordinator: drives the requests of its keys through the votes of their replicas.
//!
//! It asks all replicas of a key, itself included, and keeps at most one proposal per key in flight;
//! reads run beside it. Nothing here waits: events come in, effects go out, and whoever brought the
//! event carries them out. So work that needs other nodes never holds a thread that other nodes need.

mod memory;
mod reads;
mod writes;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::iter::repeat_n;
use std::sync::Arc;

use memory::Memory;

use crate::bytes::Key;
use crate::protocol::quorum::proposer::Proposer;
use crate::protocol::quorum::reader::Reader;
use crate::protocol::ring::{NodeId, Position, Ring};
use crate::protocol::{
    Accepted, Ballot, Operation, Outcome, Quorums, Seen, VoteReply, VoteRequest, Why,
};
use crate::testing::rules::{self, Rule};

/// Names one question to the replicas: a reply counts only for the question it answers.
///
/// Tickets start anew with the process, so a connection must not outlive it: no reply to a question of
/// the process before may come in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    pub request: u64,
    question: u32,
}

/// What the coordinator wants the shell to do.
#[derive(Debug)]
pub enum Effect<H> {
    /// Ask replicas, one of which may be this node, and bring back the vote or the silence of each.
    Ask {
        to: Vec<NodeId>,
        ticket: Ticket,
        key: Key,
        /// The question to other nodes. For the own replica see [`VoteRequest::of_own_replica`].
        request: VoteRequest,
    },
    /// Send a chosen state to a replica that lags. Its answer is not needed.
    Repair {
        to: NodeId,
        key: Key,
        accepted: Accepted,
    },
    /// Answer the origin: its request has ended.
    Answer { handle: H, outcome: Outcome },
    /// Call [`Coordinator::wake`] after a jittered moment that grows with the attempt.
    WakeLater { request: u64, attempt: u32 },
}

/// All requests that this node coordinates. `H` is the caller's note of whom to answer.
pub struct Coordinator<H> {
    node: NodeId,
    ring: Arc<Ring>,
    quorums: Quorums,
    /// How many requests it takes at a time.
    capacity: usize,
    /// Ordered by age. A simulation replays only if loops over it have a fixed order.
    requests: BTreeMap<u64, Request<H>>,
    last_request: u64,
    /// Per key that has a proposal in flight, the requests that wait for its end to propose.
    proposing: HashMap<Key, VecDeque<u64>>,
    memory: Memory,
    /// The highest promise in any rejection. Proposals for all keys start above it, since a replica
    /// rejects low ballots for every key that it holds no record of: see
    /// [`Fence`](crate::protocol::Fence).
    rejected: Ballot,
}

struct Request<H> {
    key: Key,
    /// The range of the ring that the key falls into. It has the same replicas as the key.
    range: usize,
    /// Whom to answer; nobody once that is done. A full round also answers the reads that wanted one
    /// before it began, since what it gets chosen is as fresh as their own rounds would be.
    handles: Vec<H>,
    /// A ballot that a proposal must be above to have a chance: what the own replica had promised when
    /// the request came, or the last ballot of the proposal before it.
    promised: Ballot,
    /// Counts the questions.
    question: u32,
    /// Counts the proposals that were outrun.
    attempt: u32,
    task: Task,
}

enum Task {
    /// A read asks the replicas.
    Read(Reader),
    /// A write or a full round waits for the end of the proposal in flight.
    Queued(Operation),
    /// The proposal in flight.
    Propose(Proposer),
}

impl<H> Request<H> {
    fn proposer(&mut self) -> &mut Proposer {
        match &mut self.task {
            Task::Propose(proposer) => proposer,
            Task::Read(_) | Task::Queued(_) => unreachable!("only a proposal steps so"),
        }
    }

    fn queued(&self) -> &Operation {
        match &self.task {
            Task::Queued(operation) => operation,
            Task::Read(_) | Task::Propose(_) => unreachable!("only what is queued has its turn"),
        }
    }

    fn reader(&mut self) -> &mut Reader {
        match &mut self.task {
            Task::Read(reader) => reader,
            Task::Queued(_) | Task::Propose(_) => unreachable!("only a read steps so"),
        }
    }

    /// Answers everybody who has not been answered.
    fn answer(&mut self, outcome: Outcome, effects: &mut Vec<Effect<H>>) {
        let outcomes = repeat_n(outcome, self.handles.len());
        let answers = self.handles.drain(..).zip(outcomes);
        effects.extend(answers.map(|(handle, outcome)| Effect::Answer { handle, outcome }));
    }
}

impl<H> Coordinator<H> {
    /// A coordinator that takes up to `capacity` requests at a time.
    pub fn new(node: NodeId, ring: Arc<Ring>, quorums: Quorums, capacity: usize) -> Self {
        Coordinator {
            node,
            ring,
            quorums,
            capacity,
            requests: BTreeMap::new(),
            last_request: 0,
            proposing: HashMap::new(),
            memory: Memory::default(),
            rejected: Ballot::ZERO,
        }
    }

    /// A new request. `promised` is what this node's own replica has promised for the key;
    /// [`Ballot::ZERO`] will do for a read, which seldom proposes. `seen` is the vote that a replica
    /// sent along with a read: what it had accepted when it forwarded the read.
    pub fn request(
        &mut self,
        handle: H,
        key: Key,
        operation: Operation,
        promised: Ballot,
        seen: Option<(NodeId, Seen)>,
        effects: &mut Vec<Effect<H>>,
    ) {
        let range = self.ring.range_at(Position::of_key(&key));
        let is_replica = self.ring.replicas_of_range(range).contains(&self.node);
        if !is_replica || self.requests.len() >= self.capacity {
            let why = if is_replica {
                Why::Overloaded
            } else {
                Why::NotReplica
            };
            let outcome = Outcome::not_done(why);
            return effects.push(Effect::Answer { handle, outcome });
        }
        let (reads, task) = match operation {
            Operation::Get => (true, Task::Read(Reader::start(self.quorums))),
            Operation::Write { .. } | Operation::Refresh => (false, Task::Queued(operation)),
        };
        let request = Request {
            key,
            range,
            handles: vec![handle],
            promised,
            question: 0,
            attempt: 0,
            task,
        };
        self.last_request += 1;
        let id = self.last_request;
        self.requests.insert(id, request);
        if reads {
            self.start_read(id, seen, effects);
        } else {
            self.queue(id, effects);
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
            self.rejected = self.rejected.max(*promised);
        }
        let id = ticket.request;
        let Some(request) = self.requests.get_mut(&id) else {
            return; // The request has ended: enough others have answered, or it was abandoned.
        };
        let late = request.question != ticket.question && rules::holds(Rule::RepliesMatched);
        if late {
            return;
        }
        match &mut request.task {
            Task::Read(reader) => {
                let step = reader.reply(from, reply);
                self.read_step(id, step, effects);
            }
            Task::Propose(proposer) => {
                let step = proposer.reply(from, reply);
                self.proposal_step(id, step, effects);
            }
            // It answers the last question of the read that now waits for a full round.
            Task::Queued(_) => {}
        }
    }

    /// The moment of an [`Effect::WakeLater`] has passed. The proposal starts again, unless it was
    /// abandoned meanwhile.
    pub fn wake(&mut self, id: u64, effects: &mut Vec<Effect<H>>) {
        if let Some(request) = self.requests.get_mut(&id) {
            let step = request.proposer().retry();
            self.proposal_step(id, step, effects);
        }
    }

    /// Ends every request undecided: a replica has lost its votes, so those that were counted so far
    /// may be void.
    pub fn abandon(&mut self, effects: &mut Vec<Effect<H>>) {
        self.memory = Memory::default();
        self.proposing.clear();
        for (_, mut request) in std::mem::take(&mut self.requests) {
            let accept_sent = match &request.task {
                Task::Propose(proposer) => proposer.accept_sent(),
                Task::Read(_) | Task::Queued(_) => false,
            };
            let why = Why::StartedOver;
            request.answer(Outcome::Failed { accept_sent, why }, effects);
        }
    }

    /// The request of this id, which has not ended.
    fn request_mut(&mut self, id: u64) -> &mut Request<H> {
        self.requests.get_mut(&id).expect("it has not ended")
    }

    /// Answers a request and forgets it.
    fn end(&mut self, id: u64, outcome: Outcome, effects: &mut Vec<Effect<H>>) -> Request<H> {
        let mut request = self.requests.remove(&id).expect("a request ends once");
        request.answer(outcome, effects);
        request
    }

    /// The replicas of a request's key.
    fn replicas(&self, id: u64) -> Vec<NodeId> {
        let range = self.requests[&id].range;
        let mut replicas = self.ring.replicas_of_range(range).to_vec();
        if !rules::holds(Rule::EveryReplicaAsked) {
            replicas.truncate(self.quorums.write);
        }
        replicas
    }

    /// Asks replicas the request's next question. Replies to the one before do not count any more.
    fn ask(
        &mut self,
        id: u64,
        to: Vec<NodeId>,
        question: VoteRequest,
        effects: &mut Vec<Effect<H>>,
    ) {
        let request = self.request_mut(id);
        request.question += 1;
        effects.push(Effect::Ask {
            to,
            ticket: Ticket {
                request: id,
                question: request.question,
            },
            key: request.key.clone(),
            request: question,
        });
    }
}
