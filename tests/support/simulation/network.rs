//! Messages between nodes, and what befalls them.

use std::collections::HashSet;

use fastrand::Rng;
use simple_dynamo::bytes::Key;
use simple_dynamo::protocol::chain::{self, epoch::Epoch};
use simple_dynamo::protocol::origin;
use simple_dynamo::protocol::quorum::coordinator;
use simple_dynamo::protocol::ring::NodeId;
use simple_dynamo::protocol::version::Dot;
use simple_dynamo::protocol::{Accepted, Ballot, Operation, Outcome, Seen, VoteReply, VoteRequest};
use simple_dynamo::storage::Page;

use super::plan::{Fault, MILLISECOND, Micros, Plan, pick, share};

/// One message.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub from: usize,
    pub to: usize,
    /// A reply comes over the connection of its question, and so reaches only the life of the node that
    /// asked, and not its next life. `None` for a question, which any life answers.
    pub to_life: Option<u32>,
    pub body: Body,
}

#[derive(Clone, Debug)]
pub enum Body {
    Ask {
        ask: u64,
        life: u32,
        /// The replica that is asked.
        voter: NodeId,
        ticket: coordinator::Ticket,
        key: Key,
        request: VoteRequest,
    },
    Vote {
        ask: u64,
        voter: NodeId,
        ticket: coordinator::Ticket,
        key: Key,
        request: VoteRequest,
        reply: VoteReply,
    },
    Repair {
        key: Key,
        accepted: Accepted,
    },
    /// Asks whether the receiver holds this tombstone, or a later state.
    Tombstone {
        ask: u64,
        life: u32,
        key: Key,
        tombstone: Accepted,
        /// The epoch of a chain that the asker serves.
        epoch: Option<Epoch>,
    },
    Held {
        ask: u64,
        held: bool,
    },
    Drop {
        key: Key,
        ballot: Ballot,
    },
    Forward {
        ask: u64,
        life: u32,
        ticket: origin::Ticket,
        key: Key,
        operation: Operation,
        seen: Option<Seen>,
    },
    /// The sender has another folder.
    Join {
        folder: u64,
    },
    Known {
        folder: u64,
        number: u64,
    },
    Scan {
        life: u32,
        range: usize,
        /// Whether keys of the range were refreshed for the sender, so that it scans the range again.
        again: bool,
    },
    Page {
        range: usize,
        again: bool,
        page: Page,
    },
    /// Asks the receiver to get this key's state chosen again.
    Refresh {
        key: Key,
    },
    Refreshed {
        key: Key,
    },
    Answer {
        ask: u64,
        ticket: origin::Ticket,
        outcome: Outcome,
        /// The key and the dot of the request, for the invariants of a chain.
        about: Option<(Key, Option<Dot>)>,
    },
    /// From one member of a chain to another.
    Question {
        ask: u64,
        life: u32,
        ticket: chain::Ticket,
        range: usize,
        question: chain::Question,
    },
    Told {
        ask: u64,
        ticket: chain::Ticket,
        answer: chain::Answer,
    },
    PassOn {
        ask: u64,
        life: u32,
        ticket: chain::Ticket,
        key: Key,
        operation: Operation,
        epoch: Epoch,
    },
    Outcome {
        ask: u64,
        ticket: chain::Ticket,
        key: Key,
        dot: Option<Dot>,
        outcome: Outcome,
    },
    /// Asks for all records of a range: to begin this epoch, or to catch up.
    Range {
        ask: u64,
        life: u32,
        range: usize,
        epoch: Option<Epoch>,
        slow: bool,
    },
    RangePage {
        ask: u64,
        page: Option<Page>,
    },
    Ping,
    Pong,
}

/// The links between the nodes.
pub struct Network {
    cuts: HashSet<(usize, usize)>,
    /// Whether the faults are over: no message is lost, doubled or late any more.
    pub calm: bool,
    forwards_twice: bool,
}

/// What befell one message, and when its copies arrive.
pub struct Passage {
    pub delays: Vec<Micros>,
    pub faults: Vec<Fault>,
}

impl Network {
    pub fn new(forwards_twice: bool) -> Network {
        Network {
            cuts: HashSet::new(),
            calm: false,
            forwards_twice,
        }
    }

    pub fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    pub fn heal(&mut self, from: usize, to: usize) {
        self.cuts.remove(&(from, to));
    }

    pub fn heal_all(&mut self) {
        self.cuts.clear();
        self.calm = true;
    }

    /// Decides by chance what befalls a message. Within one node nothing is lost. Between two nodes messages
    /// may arrive in any order.
    pub fn pass(&self, envelope: &Envelope, plan: &Plan, rng: &mut Rng) -> Passage {
        let mut passage = Passage {
            delays: Vec::new(),
            faults: Vec::new(),
        };
        if envelope.from == envelope.to {
            // Threads may overtake each other, too.
            passage.delays.push(rng.u64(..30));
            return passage;
        }
        if self.cuts.contains(&(envelope.from, envelope.to)) {
            return passage;
        }
        let mut befalls = |fault, probability| {
            let befallen = !self.calm && plan.has(fault) && share(rng, probability);
            passage.faults.extend(befallen.then_some(fault));
            befallen
        };
        if befalls(Fault::Loss, plan.loss) {
            return passage;
        }
        let late = befalls(Fault::Late, plan.late);
        // Within a connection nothing comes twice. After a reset a node asks again only where the answer to
        // one copy holds for all of them. A coordinator's answer does not: "nothing was done" holds for one
        // copy alone.
        let is_request = matches!(envelope.body, Body::Forward { .. } | Body::PassOn { .. });
        let repeatable = self.forwards_twice || !is_request;
        let twice = repeatable && befalls(Fault::Duplicate, plan.duplicate);
        for copy in 0..=u8::from(twice) {
            // The copy of a message may be as late as any other.
            let longest = if late || (copy == 1 && rng.bool()) {
                *pick(rng, &[150, 600, 3_000]) * MILLISECOND
            } else if self.calm {
                5 * MILLISECOND
            } else {
                plan.delay
            };
            passage.delays.push(rng.u64(50..=longest));
        }
        passage
    }
}
