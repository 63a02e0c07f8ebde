//! Messages between nodes, and what befalls them.

use std::collections::HashSet;

use fastrand::Rng;
use simple_dynamo::bytes::Key;
use simple_dynamo::protocol::origin;
use simple_dynamo::protocol::quorum::coordinator;
use simple_dynamo::protocol::ring::NodeId;
use simple_dynamo::protocol::{Accepted, Ballot, Operation, Outcome, Seen, VoteReply, VoteRequest};
use simple_dynamo::storage::Page;

use super::plan::{Fault, MILLISECOND, Micros, Plan, pick, share};

/// One message.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub from: usize,
    pub to: usize,
    /// A reply comes over the connection that the question went over, and so only to the node
    /// that asked: not to its next life. A question is answered by whoever lives.
    pub to_life: Option<u32>,
    pub body: Body,
}

#[derive(Clone, Debug)]
pub enum Body {
    Ask {
        ask: u64,
        life: u32,
        /// Who is asked.
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
    /// Do you hold this tombstone, or are you past it?
    Tombstone {
        ask: u64,
        life: u32,
        key: Key,
        tombstone: Accepted,
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
    /// This node has another folder.
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
        /// Whether keys of it have been chosen anew for it.
        again: bool,
    },
    Page {
        range: usize,
        again: bool,
        page: Page,
    },
    /// Choose this key's state anew.
    Refresh {
        key: Key,
    },
    Restored {
        key: Key,
    },
    Answer {
        ask: u64,
        ticket: origin::Ticket,
        outcome: Outcome,
    },
}

/// The links between the nodes.
pub struct Network {
    cuts: HashSet<(usize, usize)>,
    /// No message is lost, doubled or late any more.
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

    /// Within one node nothing is lost. Between two the order is up to chance.
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
        // Within a connection nothing comes twice; and what a reset leaves in doubt is asked again
        // only where the answer to one copy holds for all of them. That of a coordinator does not:
        // "nothing was done" speaks for one copy alone.
        let repeatable = self.forwards_twice || !matches!(envelope.body, Body::Forward { .. });
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
