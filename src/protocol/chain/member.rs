//! One replica's part in the chain of one range.

use std::collections::BTreeMap;
use std::time::Duration;

use super::change::Proposal;
use super::epoch::{Adopted, Epoch};
use super::look::{Look, Return};
use super::reads::Read;
use super::waits::{Asked, Waits};
use super::{Answer, Context, Question, Replica, Status, Times};
use crate::bytes::Key;
use crate::protocol::ring::NodeId;
use crate::protocol::{Operation, Quorums};
use crate::testing::rules::{self, Rule};

/// A client's request at the member whose part it is.
#[derive(Debug)]
pub struct Request<H> {
    pub handle: H,
    pub key: Key,
    pub operation: Operation,
    pub ends: Duration,
    /// Whether a state has absorbed it. Then it may take effect, whatever becomes of this chain.
    pub absorbed: bool,
    /// Whether another member has passed it on. It is not passed on again.
    pub passed_on: bool,
}

/// How far this replica is with the epoch that it has adopted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// It takes no part: it has started since it adopted the epoch, or has stopped serving it.
    None,
    /// It has adopted the epoch, which has not begun.
    Adopted,
    /// It serves.
    Serves,
}

/// One replica's part in the chain of one range.
pub struct Member<H> {
    pub(super) node: NodeId,
    pub(super) range: usize,
    /// The preference list.
    pub(super) replicas: Vec<NodeId>,
    pub(super) quorums: Quorums,
    pub(super) times: Times,
    pub(super) adopted: Adopted,
    pub(super) part: Part,
    /// How many writes it has given ballots of this epoch, as the head.
    pub(super) steps: u64,
    /// Somebody whom a request needs is silent.
    pub(super) broken: bool,
    /// Requests to be driven again once it serves.
    pub(super) waiting: Vec<Request<H>>,
    pub(super) reads: Vec<Read<H>>,
    /// Whether the tail waits for a confirmation.
    pub(super) confirming: bool,
    pub(super) asked: BTreeMap<u64, Asked<H>>,
    pub(super) last_number: u64,
    pub(super) look: Look,
    pub(super) proposal: Option<Proposal>,
    pub(super) ret: Return,
    /// Whom to answer once this replica holds all that the proposer holds.
    pub(super) gives: Vec<H>,
    /// The member before has passed states on, and the one behind is silent. They are refused once this replica
    /// stops: earlier, the member before would propose a chain with the silent one again.
    pub(super) stalled: Vec<H>,
    /// The disk of this node hangs.
    pub(super) aside: bool,
}

impl<H> Member<H> {
    pub(super) fn new(
        node: NodeId,
        range: usize,
        replicas: Vec<NodeId>,
        quorums: Quorums,
        times: Times,
    ) -> Member<H> {
        Member {
            node,
            range,
            replicas,
            quorums,
            times,
            adopted: Adopted::default(),
            part: Part::None,
            steps: 0,
            broken: false,
            waiting: Vec::new(),
            reads: Vec::new(),
            confirming: false,
            asked: BTreeMap::new(),
            last_number: 0,
            look: Look::default(),
            proposal: None,
            ret: Return::default(),
            gives: Vec::new(),
            stalled: Vec::new(),
            aside: false,
        }
    }

    /// Goes on from what the disk says. It serves nothing: a process serves only epochs that it has adopted
    /// itself, since nobody remembers which steps were used before.
    pub(super) fn start(&mut self, replica: &dyn Replica) {
        self.adopted = replica.adopted(self.range);
        if !rules::holds(Rule::StepsNotReused) && self.adopted.has(self.node) {
            self.part = Part::Serves;
        }
    }

    pub(super) fn serves(&self) -> bool {
        self.part == Part::Serves
    }

    /// Whether it has adopted this epoch in this life, and has not stopped it.
    pub(super) fn takes_part(&self, epoch: Epoch) -> bool {
        self.adopted.epoch == epoch && self.part != Part::None
    }

    pub(super) fn status(&self) -> Status {
        Status {
            adopted: self.adopted.clone(),
            serves: self.serves(),
            at_work: self.proposal.is_some(),
        }
    }

    /// How much it has to do.
    pub(super) fn load(&self) -> usize {
        self.waiting.len() + self.reads.len() + self.asked.len() + self.stalled.len()
    }

    /// The other replicas of the range.
    pub(super) fn others(&self) -> impl Iterator<Item = NodeId> {
        let others = self.replicas.iter().copied();
        others.filter(|replica| *replica != self.node)
    }

    /// The other members of the epoch.
    pub(super) fn other_members(&self) -> Vec<NodeId> {
        let others = self.adopted.members.iter().copied();
        others.filter(|member| *member != self.node).collect()
    }

    /// Another replica asks.
    pub(super) fn asked(
        &mut self,
        handle: H,
        from: NodeId,
        question: Question,
        context: &mut Context<'_, H>,
    ) {
        let epoch = match question {
            Question::Status if self.aside => return context.tell(handle, Answer::Refused, 0),
            Question::Status => return context.tell(handle, Answer::Status(self.status()), 0),
            Question::Missed => {
                self.trouble_with_silence();
                return context.tell(handle, Answer::Done, 0);
            }
            Question::Adopt(adopted) => {
                return self.asked_to_adopt(handle, from, adopted, context);
            }
            Question::Pass { epoch, .. } => epoch,
            Question::Confirm(epoch) | Question::Give(epoch) | Question::Begin(epoch) => epoch,
        };
        let passes = matches!(question, Question::Pass { .. });
        let checked = !passes || rules::holds(Rule::EpochChecked);
        if checked && !self.takes_part(epoch) {
            return context.tell(handle, Answer::Refused, 0);
        }
        if let Question::Give(_) = question {
            return self.asked_to_take(handle, from, context);
        }
        if self.part == Part::Adopted {
            if checked && !self.speaks_of_beginning(from, &question) {
                return context.tell(handle, Answer::Refused, 0);
            }
            self.begin(context);
        }
        match question {
            Question::Pass { key, accepted, .. } => self.passed(handle, key, accepted, context),
            _ => context.tell(handle, Answer::Done, 0),
        }
    }

    /// Whether this question says that the epoch has begun: it comes from a member that asks so only while it
    /// serves.
    fn speaks_of_beginning(&self, from: NodeId, question: &Question) -> bool {
        match question {
            Question::Pass { .. } => self.adopted.after(from) == Some(self.node),
            Question::Confirm(_) => self.adopted.tail() == Some(from),
            Question::Begin(_) => self.adopted.has(from),
            _ => false,
        }
    }

    /// A member does not do what the chain needs. If it refuses, this replica stops: that one takes no part any more.
    pub(super) fn trouble(&mut self, refused: bool, context: &mut Context<'_, H>) {
        if refused {
            self.stop(context);
        } else {
            self.trouble_with_silence();
        }
    }

    /// Somebody is silent whom a request needs: if this replica serves, it looks around.
    pub(super) fn trouble_with_silence(&mut self) {
        self.broken |= self.serves();
    }

    /// Stops serving, for good: whoever serves an epoch again may do so with what other epochs have left.
    pub(super) fn stop(&mut self, context: &mut Context<'_, H>) {
        self.part = if rules::holds(Rule::StoppedForGood) || self.part == Part::None {
            Part::None
        } else {
            Part::Adopted
        };
        (self.broken, self.confirming) = (false, false);
        let of_chain = |asked: &Asked<H>| {
            matches!(
                asked.waits,
                Waits::Passed { .. }
                    | Waits::Relayed(_)
                    | Waits::PassedOn { .. }
                    | Waits::Confirmed { .. }
            )
        };
        let all = std::mem::take(&mut self.asked).into_iter();
        let (ended, others): (Vec<_>, Vec<_>) = all.partition(|(_, asked)| of_chain(asked));
        self.asked = others.into_iter().collect();
        for (_, asked) in ended {
            self.undo(asked.waits, context);
        }
        let gives = std::mem::take(&mut self.gives);
        for handle in gives.into_iter().chain(self.stalled.drain(..)) {
            context.tell(handle, Answer::Refused, 0);
        }
        let reads = std::mem::take(&mut self.reads);
        self.waiting
            .extend(reads.into_iter().map(|read| read.request));
    }

    /// Serves the epoch that it has adopted from now on.
    pub(super) fn begin(&mut self, context: &mut Context<'_, H>) {
        self.part = Part::Serves;
        self.broken = false;
        self.proposal = None;
        self.look.failed = None;
        // What an epoch has begun with, all its members hold.
        self.adopted.copied = false;
        for handle in std::mem::take(&mut self.gives) {
            context.tell(handle, Answer::Done, context.replica.written());
        }
        self.drive_again(context);
    }

    /// Carries out what had to wait.
    pub(super) fn drive_again(&mut self, context: &mut Context<'_, H>) {
        for request in std::mem::take(&mut self.waiting) {
            self.request(request, None, context);
        }
    }

    /// Adopts an epoch, and takes part in no other from now on.
    pub(super) fn adopt(&mut self, adopted: Adopted, context: &mut Context<'_, H>) {
        assert!(
            adopted.epoch > self.adopted.epoch,
            "invariant 1: an adopted epoch never decreases"
        );
        self.stop(context);
        self.adopted = Adopted {
            floor: self.adopted.floor,
            copied: self.adopted.copied,
            ..adopted
        };
        self.part = Part::Adopted;
        self.steps = 0;
        self.drop_proposal();
        self.look.end();
        self.ret.end();
        context.replica.adopt(self.range, &self.adopted);
        self.back_off(context);
    }
}
