//! What comes with each event of a chain, and what the chain wants done.

use std::time::Duration;

#[cfg(doc)]
use super::Chain;
use super::epoch::Epoch;
use super::{Answer, Cause, LogPlace, Question, Replica};
use crate::bytes::Key;
use crate::protocol::ring::NodeId;
use crate::protocol::{Operation, Outcome};

/// Names one question, so that an answer counts only for the question it answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    pub range: usize,
    pub(super) number: u64,
}

/// What a chain wants the shell to do.
#[derive(Debug)]
pub enum Effect<H> {
    /// Ask another replica of the range, once the log is durable up to `after`, and bring back its answer or
    /// its silence.
    Ask {
        to: NodeId,
        ticket: Ticket,
        question: Question,
        after: LogPlace,
    },
    /// Pass a request on to the member whose part it is, and bring back the outcome. The sender says that it
    /// serves this epoch.
    PassOn {
        to: NodeId,
        ticket: Ticket,
        key: Key,
        operation: Operation,
        epoch: Epoch,
    },
    /// Answer a question of another replica, once the log is durable up to `after`.
    Tell {
        handle: H,
        answer: Answer,
        after: LogPlace,
    },
    /// Answer the origin, once the log is durable up to `after`: its request has ended.
    Answer {
        handle: H,
        outcome: Outcome,
        after: LogPlace,
    },
    /// Compare the range with these members, begin that now, and [`Chain::move_in`] what they hold of each key on
    /// which they differ from this replica, or of every key. Then [`Chain::renew`] all of it, and call
    /// [`Chain::collected`].
    Collect {
        range: usize,
        epoch: Epoch,
        from: Vec<NodeId>,
        every_key: bool,
    },
    /// Compare the range with this replica, which serves it, and [`Chain::pull_in`] what it holds that is
    /// higher. Then call [`Chain::caught_up`].
    CatchUp {
        range: usize,
        /// What this replica has adopted now.
        since: Epoch,
        from: NodeId,
    },
    /// An epoch that this node proposed has begun.
    Began { range: usize, cause: Cause },
    /// This node's disk hangs, so that it serves no chain, or goes on.
    Disk { hangs: bool },
}

/// What comes with each event: the disk, the time since any fixed moment, chance, who is silent, and where the
/// effects go.
pub struct Context<'a, H> {
    pub replica: &'a mut dyn Replica,
    pub now: Duration,
    pub chance: u64,
    pub suspects: &'a [NodeId],
    pub effects: &'a mut Vec<Effect<H>>,
}

impl<H> Context<'_, H> {
    pub(super) fn tell(&mut self, handle: H, answer: Answer, after: LogPlace) {
        self.effects.push(Effect::Tell {
            handle,
            answer,
            after,
        });
    }

    pub(super) fn answer(&mut self, handle: H, outcome: Outcome, after: LogPlace) {
        self.effects.push(Effect::Answer {
            handle,
            outcome,
            after,
        });
    }

    /// A moment by chance, below `most`.
    pub(super) fn moment(&self, most: Duration) -> Duration {
        most.mul_f64((self.chance % 1024) as f64 / 1024.0)
    }
}
