//! How the chain of a range changes: a replica looks around, proposes an epoch, and begins it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::epoch::{Adopted, Epoch};
use super::member::{Member, Part};
use super::requests::is_fenced;
use super::waits::Waits;
use super::{Answer, Cause, Context, Effect, Question, Replica, Status};
use crate::bytes::Key;
use crate::protocol::ring::NodeId;
use crate::protocol::{Accepted, Ballot};
use crate::testing::rules::{self, Rule};

/// How many keys are renewed at a time. Nobody else can use the chains of this node meanwhile.
const RENEWED_AT_A_TIME: usize = 500;

/// An epoch that this replica has proposed.
pub(super) struct Proposal {
    pub(super) began: Duration,
    /// Members that have not adopted it, or do not hold everything.
    awaited: BTreeSet<NodeId>,
    /// Whether a member holds what it has copied from one other replica.
    copied: bool,
    /// For each key of which not all members hold the same state, the highest that was seen. Nothing is taken before
    /// all have been compared: a state must not spread at its old ballot.
    differing: BTreeMap<Key, Option<Accepted>>,
    /// How many of these keys have been renewed.
    moved: usize,
}

impl<H> Member<H> {
    /// Proposes an epoch with this replica and all that answered, but for who made the last one fail.
    pub(super) fn propose(
        &mut self,
        answers: &BTreeMap<NodeId, Status>,
        context: &mut Context<'_, H>,
    ) {
        let failed = self.look.failed.take();
        let is_there = |replica: &NodeId| {
            *replica == self.node || answers.contains_key(replica) && Some(*replica) != failed
        };
        let members = self.replicas.iter().copied().filter(is_there);
        let members = Vec::from_iter(members);
        let least = if rules::holds(Rule::TwoCopies) {
            self.quorums.write
        } else {
            1
        };
        if members.len() < least {
            if self.serves() {
                // It is missed, and reaches nobody. If it went on, the others would wait for it.
                self.stop(context);
            }
            return;
        }
        let adopted = Adopted {
            epoch: self.next_epoch(answers),
            members,
            ..Adopted::default()
        };
        self.adopt(adopted, context);
        self.proposal = Some(Proposal {
            began: context.now,
            awaited: self.other_members().into_iter().collect(),
            copied: self.adopted.copied,
            differing: BTreeMap::new(),
            moved: 0,
        });
        let written = context.replica.written();
        for member in self.other_members() {
            let question = Question::Adopt(self.adopted.clone());
            self.ask(member, question, written, Waits::Adopted, context);
        }
        if self.other_members().is_empty() || !rules::holds(Rule::AdoptedByAll) {
            self.collect(context);
        }
    }

    /// An epoch of this node, above all that it heard of.
    fn next_epoch(&self, answers: &BTreeMap<NodeId, Status>) -> Epoch {
        let heard = answers.values().map(|status| status.adopted.epoch.round);
        let own = self.adopted.epoch.round.max(self.adopted.floor);
        let highest = heard.max().unwrap_or(0).max(own);
        let named = rules::holds(Rule::EpochsNamed);
        Epoch {
            round: highest + 1,
            node: if named { self.node } else { NodeId(0) },
        }
    }

    pub(super) fn asked_to_adopt(
        &mut self,
        handle: H,
        from: NodeId,
        adopted: Adopted,
        context: &mut Context<'_, H>,
    ) {
        if self.aside {
            // It would not be durable in time.
            return context.tell(handle, Answer::Refused, 0);
        }
        if !self.may_adopt(&adopted, from) {
            return context.tell(handle, Answer::Refused, 0);
        }
        if adopted.epoch > self.adopted.epoch {
            self.adopt(adopted, context);
        } else if !self.takes_part(adopted.epoch) {
            return context.tell(handle, Answer::Refused, 0);
        }
        if !rules::holds(Rule::AdoptedByAll) {
            self.begin(context);
        }
        let copied = self.adopted.copied;
        context.tell(
            handle,
            Answer::Adopted { copied },
            context.replica.written(),
        );
    }

    /// Whether an epoch is one that the rules allow this member to propose. A node would remember any other for good.
    fn may_adopt(&self, adopted: &Adopted, proposer: NodeId) -> bool {
        let in_order = self.replicas.iter().filter(|it| adopted.has(**it));
        let are_members = in_order.eq(&adopted.members);
        let both = adopted.has(self.node) && adopted.has(proposer);
        are_members && both && adopted.epoch.is_credible()
    }

    pub(super) fn heard_adopted(
        &mut self,
        from: NodeId,
        answer: Option<Answer>,
        context: &mut Context<'_, H>,
    ) {
        let Some(proposal) = &mut self.proposal else {
            return; // An answer of a proposal that was lost.
        };
        let Some(Answer::Adopted { copied }) = answer else {
            return self.lose(context);
        };
        proposal.copied |= copied;
        proposal.awaited.remove(&from);
        if proposal.awaited.is_empty() {
            // Nothing is chosen below this epoch any more.
            self.collect(context);
        }
    }

    /// Takes over whatever any member holds that is higher.
    fn collect(&mut self, context: &mut Context<'_, H>) {
        if !rules::holds(Rule::StatesCollected) || self.other_members().is_empty() {
            return self.begun(context);
        }
        // A copied state may be that of one other member alone, though both hold it at the same ballot now. A replica
        // outside may hold a higher one that is older.
        let copied = self.proposal.as_ref().is_some_and(|it| it.copied);
        let copied = copied && self.adopted.members.len() < self.replicas.len();
        context.effects.push(Effect::Collect {
            range: self.range,
            epoch: self.adopted.epoch,
            from: self.other_members(),
            every_key: copied && rules::holds(Rule::CopiedStatesRenewed),
        });
    }

    /// Another member holds this of a key, and this replica holds something else: takes the higher of the two.
    ///
    /// That may be below the fence of dropped tombstones, since no older message of the range is taken any more.
    /// It may be a tombstone that was dropped here, since that says nothing of what the third replica holds.
    pub(super) fn move_in(
        &mut self,
        epoch: Epoch,
        key: &Key,
        theirs: Option<&Accepted>,
        replica: &mut dyn Replica,
    ) -> bool {
        if !self.takes_part(epoch) || self.part != Part::Adopted {
            return false;
        }
        let (record, _) = replica.record(key);
        let may_take = |theirs: &&Accepted| {
            !is_fenced(&record, theirs) || rules::holds(Rule::GivenBelowTheFence)
        };
        let theirs = theirs.filter(may_take);
        if let Some(proposal) = &mut self.proposal {
            let own = record.accepted.clone();
            let highest = proposal.differing.entry(key.clone()).or_insert(own);
            let ballot = highest.as_ref().map_or(Ballot::ZERO, |it| it.ballot);
            if let Some(theirs) = theirs.filter(|theirs| theirs.ballot > ballot) {
                *highest = Some(theirs.clone());
            }
        } else if let Some(theirs) = theirs.filter(|it| it.ballot > record.accepted_ballot()) {
            replica.take(key, theirs);
        }
        true
    }

    /// The proposer renews each state that not all members held: it gets a ballot of this epoch. Returns whether
    /// none is left. It renews only some at a time.
    ///
    /// Otherwise the state would be served at its old ballot. A replica outside of this epoch may hold a state at
    /// a higher one, which it has taken from a head meanwhile, and which nobody was told of. The next epoch with
    /// that replica would prefer it, and lose what was acknowledged in this one.
    pub(super) fn renew(&mut self, epoch: Epoch, replica: &mut dyn Replica) -> bool {
        if !self.takes_part(epoch) || self.part != Part::Adopted {
            return true;
        }
        let Some(proposal) = &mut self.proposal else {
            return true;
        };
        for _ in 0..RENEWED_AT_A_TIME {
            let Some((key, highest)) = proposal.differing.pop_first() else {
                return true;
            };
            proposal.moved += 1;
            let Some(mut renewed) = highest else { continue };
            if rules::holds(Rule::MovedStatesRenewed) {
                renewed.ballot = epoch.ballot(0);
            }
            if renewed.ballot > replica.record(&key).0.accepted_ballot() {
                replica.take(&key, &renewed);
            }
        }
        false
    }

    /// All that the other members hold is here and renewed, or all that the proposer holds is here; or not all of
    /// it could be had.
    pub(super) fn collected(&mut self, epoch: Epoch, whole: bool, context: &mut Context<'_, H>) {
        if !self.takes_part(epoch) || self.part != Part::Adopted {
            return;
        }
        if self.proposal.is_none() {
            let answer = if whole { Answer::Done } else { Answer::Refused };
            let written = context.replica.written();
            for handle in std::mem::take(&mut self.gives) {
                context.tell(handle, answer.clone(), written);
            }
            return;
        }
        if !whole {
            return self.lose(context);
        }
        let proposal = self.proposal.as_ref();
        let is_renewed = proposal.is_some_and(|proposal| proposal.differing.is_empty());
        assert!(is_renewed, "no state is given at its old ballot");
        if !rules::holds(Rule::HeldByAll) {
            return self.begun(context);
        }
        let (others, written) = (self.other_members(), context.replica.written());
        if let Some(proposal) = &mut self.proposal {
            proposal.awaited = others.iter().copied().collect();
        }
        for member in others {
            self.ask(
                member,
                Question::Give(epoch),
                written,
                Waits::Given,
                context,
            );
        }
    }

    /// The proposer holds all that any member held: takes that from it. A comparison that began earlier would
    /// prove nothing.
    pub(super) fn asked_to_take(&mut self, handle: H, from: NodeId, context: &mut Context<'_, H>) {
        if self.serves() {
            return context.tell(handle, Answer::Done, context.replica.written());
        }
        if self.proposal.is_some() || !self.adopted.has(from) {
            return context.tell(handle, Answer::Refused, 0); // Nobody gives to a proposer.
        }
        let is_first = self.gives.is_empty();
        self.gives.push(handle);
        if is_first {
            context.effects.push(Effect::Collect {
                range: self.range,
                epoch: self.adopted.epoch,
                from: vec![from],
                every_key: false,
            });
        }
    }

    pub(super) fn heard_given(
        &mut self,
        from: NodeId,
        asked: Duration,
        answer: Option<Answer>,
        context: &mut Context<'_, H>,
    ) {
        let Some(proposal) = &mut self.proposal else {
            return;
        };
        let waited = context.now >= asked + self.times.time_out;
        match answer {
            Some(Answer::Done) => {
                proposal.awaited.remove(&from);
                if proposal.awaited.is_empty() {
                    self.begun(context);
                }
            }
            // It is there, and has much to take.
            None if waited && !context.suspects.contains(&from) => {
                // Perhaps it was not even asked, since the own disk has taken so long.
                let question = Question::Give(self.adopted.epoch);
                let written = context.replica.written();
                self.ask(from, question, written, Waits::Given, context);
            }
            _ => {
                self.look.failed = Some(from);
                self.lose(context);
            }
        }
    }

    /// All members hold all: the epoch begins.
    fn begun(&mut self, context: &mut Context<'_, H>) {
        let proposal = self.proposal.take().expect("only a proposer begins");
        let mut without = self.replicas.clone();
        without.retain(|replica| !self.adopted.has(*replica));
        let cause = Cause {
            adopted: self.adopted.clone(),
            without,
            keys: proposal.moved,
            took: context.now.saturating_sub(proposal.began),
        };
        let range = self.range;
        context.effects.push(Effect::Began { range, cause });
        // They hear of it before they hear of what has waited here.
        for member in self.other_members() {
            let question = Question::Begin(self.adopted.epoch);
            self.ask(member, question, 0, Waits::Begun, context);
        }
        self.begin(context);
    }

    /// Gives up a proposal, and never begins that epoch afterwards.
    pub(super) fn lose(&mut self, context: &mut Context<'_, H>) {
        self.drop_proposal();
        self.part = Part::None;
        self.back_off(context);
    }

    /// Forgets what it has proposed, and the questions about it: their answers must not count for the next proposal.
    pub(super) fn drop_proposal(&mut self) {
        self.proposal = None;
        let concerns = |waits: &Waits<H>| matches!(waits, Waits::Adopted | Waits::Given);
        self.asked.retain(|_, asked| !concerns(&asked.waits));
    }

    /// Waits for a moment by chance, longer the later this replica is in the list.
    pub(super) fn back_off(&mut self, context: &mut Context<'_, H>) {
        let place = self.replicas.iter().position(|it| *it == self.node);
        let place = place.unwrap_or_default() as u32;
        let time_out = self.times.time_out;
        let moment = context.moment(2 * time_out);
        self.look.not_before = context.now + time_out + place * time_out / 2 + moment;
    }
}
