//! How the chain of a range changes: a replica looks around, proposes an epoch, and begins it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::epoch::{Adopted, Epoch};
use super::member::{Member, Part, Waits, is_fenced};
use super::{Answer, Context, Effect, Question, Replica, Status};
use crate::bytes::Key;
use crate::protocol::ring::NodeId;
use crate::protocol::{Accepted, Ballot};
use crate::testing::rules::{self, Rule};

/// How often a replica looks whether its chain is still the present one.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a replica that was left out waits before it returns.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The same, if it was left out again and again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A return that lasted less than this doubles the next pause.
const SHORT_RETURN: Duration = Duration::from_secs(10);

/// Why a replica has proposed an epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cause {
    pub adopted: Adopted,
    /// Who is left out.
    pub without: Vec<NodeId>,
    /// On how many keys the members differed.
    pub keys: usize,
    pub took: Duration,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |nodes: &[NodeId]| {
            let names: Vec<_> = nodes.iter().map(NodeId::to_string).collect();
            names.join(" -> ")
        };
        write!(
            f,
            "epoch {} of {} begins, proposed by this node ",
            self.adopted.epoch,
            names(&self.adopted.members)
        )?;
        match &self.without[..] {
            [] => write!(f, "since all are there")?,
            without => {
                let without: Vec<_> = without.iter().map(NodeId::to_string).collect();
                write!(f, "without {}", without.join(", "))?;
            }
        }
        let (keys, millis) = (self.keys, self.took.as_millis());
        write!(f, ": moved {keys} keys in {millis} ms")
    }
}

/// A replica's look at the others.
#[derive(Default)]
pub(super) struct Look {
    /// Those whose answers are waited for.
    awaited: BTreeSet<NodeId>,
    answers: BTreeMap<NodeId, Status>,
    /// When the next one is due, if nothing is wrong.
    due: Duration,
    /// No look and no proposal before this.
    not_before: Duration,
}

/// An epoch that this replica has proposed.
pub(super) struct Proposal {
    began: Duration,
    /// Members that have not adopted it, or do not hold everything.
    awaited: BTreeSet<NodeId>,
    /// Whether a member holds what it has copied from one other replica.
    copied: bool,
    /// For each key of which not all members hold the same state, the highest that was seen. Nothing is taken before
    /// all have been compared: a state must not spread at its old ballot.
    differing: BTreeMap<Key, Option<Accepted>>,
}

/// The way back of a replica that was left out.
#[derive(Default)]
pub(super) struct Return {
    /// Whether it holds all that a serving member held a moment ago.
    caught_up: bool,
    catching_up: bool,
    /// When it may return.
    at: Option<Duration>,
    pause: Duration,
    /// When it returned last.
    last: Option<Duration>,
}

impl Return {
    /// An epoch with this replica has begun.
    pub(super) fn begun(&mut self) {
        self.caught_up = false;
        self.at = None;
    }

    /// When this replica may return, now that it finds itself left out.
    fn moment(&mut self, now: Duration) -> Duration {
        let is_short = |last: Duration| now < last + SHORT_RETURN;
        *self.at.get_or_insert_with(|| {
            self.pause = if self.last.is_some_and(is_short) {
                (2 * self.pause).clamp(FIRST_PAUSE, LONGEST_PAUSE)
            } else {
                FIRST_PAUSE
            };
            now + self.pause
        })
    }
}

impl<H> Member<H> {
    /// Looks after the chain.
    pub(super) fn tick(&mut self, context: &mut Context<'_, H>) {
        self.give_up_overdue(context);
        let is_busy =
            !self.look.awaited.is_empty() || self.ret.catching_up || self.proposal.is_some();
        let is_due = !self.serves() || self.broken || context.now >= self.look.due;
        if !is_busy && is_due && context.now >= self.look.not_before {
            self.look_around(context);
        }
    }

    /// A peer is heard again, and may have news.
    pub(super) fn look_soon(&mut self) {
        self.look.due = Duration::ZERO;
    }

    /// Asks all others what they serve. Suspects are asked, too, and not waited for.
    fn look_around(&mut self, context: &mut Context<'_, H>) {
        let others: Vec<NodeId> = self.others().collect();
        let mut awaited: BTreeSet<NodeId> = others.iter().copied().collect();
        awaited.retain(|other| !context.suspects.contains(other));
        if awaited.is_empty() {
            awaited.extend(&others);
        }
        self.look.awaited = awaited;
        self.look.answers.clear();
        self.look.due = context.now + LOOK_AGAIN;
        self.look.not_before = context.now + context.moment(self.times.time_out);
        for other in others {
            self.ask(other, Question::Status, 0, Waits::Status, context);
        }
    }

    pub(super) fn heard_status(
        &mut self,
        from: NodeId,
        answer: Option<Answer>,
        context: &mut Context<'_, H>,
    ) {
        if self.look.awaited.is_empty() {
            return; // This look has ended.
        }
        self.look.awaited.remove(&from);
        if let Some(Answer::Status(status)) = answer {
            self.look.answers.insert(from, status);
        }
        if self.look.awaited.is_empty() && self.proposal.is_none() {
            let answers = std::mem::take(&mut self.look.answers);
            self.judge(&answers, context);
        }
    }

    /// Decides what the others' answers mean: nothing, an epoch to be proposed, or a state to be caught up with.
    fn judge(&mut self, answers: &BTreeMap<NodeId, Status>, context: &mut Context<'_, H>) {
        if !self.serves() && answers.values().any(|status| status.at_work) {
            return;
        }
        let is_past = |(from, status): (&NodeId, &Status)| {
            let concerns = status.serves || self.adopted.has(*from);
            status.adopted.epoch > self.adopted.epoch && concerns
        };
        if self.serves() && answers.iter().any(is_past) {
            self.stop(context);
        }
        if self.serves() && !self.broken {
            return;
        }
        let all_there = answers.len() + 1 == self.replicas.len();
        // A chain that is older than what this replica has adopted is served by somebody who does not know better.
        let is_newer = |status: &Status| {
            status.adopted.epoch > self.adopted.epoch || !rules::holds(Rule::PulledFromNewer)
        };
        let without_this = |status: &Status| status.serves && !status.adopted.has(self.node);
        let serving = answers
            .iter()
            .find(|(_, status)| without_this(status) && is_newer(status));
        if let Some((&from, _)) = serving {
            if !self.may_return(from, all_there, context) {
                return;
            }
        } else if self.broken && self.is_whole(answers) {
            // A message was lost, and no more.
            self.broken = false;
            return self.drive_again(context);
        }
        self.propose(answers, context);
    }

    /// Whether all members answer and serve this very epoch.
    fn is_whole(&self, answers: &BTreeMap<NodeId, Status>) -> bool {
        let serves = |member: &NodeId| {
            let status = answers.get(member);
            let same =
                |status: &Status| status.serves && status.adopted.epoch == self.adopted.epoch;
            status.is_some_and(same)
        };
        self.other_members().iter().all(serves)
    }

    /// Whether this replica, which is left out, may propose its return: all replicas are there, it has caught up,
    /// and it has waited. Otherwise it goes on catching up.
    fn may_return(&mut self, from: NodeId, all_there: bool, context: &mut Context<'_, H>) -> bool {
        let moment = self.ret.moment(context.now);
        // What it has adopted may still begin: that is no time to take anything over.
        if self.is_out() && !self.ret.caught_up {
            self.ret.catching_up = true;
            context.effects.push(Effect::CatchUp {
                range: self.range,
                since: self.adopted.epoch,
                from,
            });
            return false;
        }
        if context.now < moment {
            // It catches up once more right before it returns.
            self.ret.caught_up = false;
            self.look.not_before = moment;
            return false;
        }
        all_there
    }

    /// A comparison with a serving member has ended. It is whole if that one answered to its end.
    pub(super) fn caught_up(&mut self, whole: bool, now: Duration) {
        self.ret.catching_up = false;
        self.ret.caught_up = whole;
        self.look.not_before = now + self.times.time_out;
    }

    /// Whether it serves nothing, and has adopted nothing that may still begin.
    fn is_out(&self) -> bool {
        let stopped = self.part == Part::Adopted && !rules::holds(Rule::StoppedForGood);
        self.part == Part::None || stopped
    }

    /// Pulls a state. Members pull from nobody: a state that comes by another way than by writes and the
    /// beginning of an epoch may be one that the head does not know.
    pub(super) fn pull_in(
        &mut self,
        since: Epoch,
        key: &Key,
        accepted: &Accepted,
        replica: &mut dyn Replica,
    ) -> bool {
        let allowed = self.is_out() && self.adopted.epoch == since;
        if !allowed && rules::holds(Rule::MembersPullNothing) {
            return false;
        }
        let (record, _) = replica.record(key);
        if !is_fenced(&record, accepted) && accepted.ballot > record.accepted_ballot() {
            replica.take(key, accepted);
        }
        true
    }

    /// Proposes an epoch with this replica and all that answered.
    fn propose(&mut self, answers: &BTreeMap<NodeId, Status>, context: &mut Context<'_, H>) {
        let is_there = |replica: &NodeId| *replica == self.node || answers.contains_key(replica);
        let members = self.replicas.iter().copied().filter(is_there);
        let members = Vec::from_iter(members);
        let least = if rules::holds(Rule::TwoCopies) {
            self.quorums.write
        } else {
            1
        };
        if members.len() < least {
            return;
        }
        let heard = answers.values().map(|status| status.adopted.epoch.round);
        let own = self.adopted.epoch.round.max(self.adopted.floor);
        let highest = heard.max().unwrap_or(0).max(own);
        let named = rules::holds(Rule::EpochsNamed);
        let epoch = Epoch {
            round: highest + 1,
            node: if named { self.node } else { NodeId(0) },
        };
        if members.len() == self.replicas.len() {
            self.ret.last = Some(context.now);
        }
        let adopted = Adopted {
            epoch,
            members,
            ..Adopted::default()
        };
        self.adopt(adopted, context);
        self.proposal = Some(Proposal {
            began: context.now,
            awaited: self.other_members().into_iter().collect(),
            copied: self.adopted.copied,
            differing: BTreeMap::new(),
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

    pub(super) fn asked_to_adopt(
        &mut self,
        handle: H,
        adopted: Adopted,
        context: &mut Context<'_, H>,
    ) {
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
        // A copied state may be that of one other member alone, though both hold it at the same ballot now.
        let copied = self.proposal.as_ref().is_some_and(|it| it.copied);
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

    /// The proposer renews each state that not all members held: it gets a ballot of this epoch.
    ///
    /// Otherwise the state would be served at its old ballot. A replica outside of this epoch may hold a state at
    /// a higher one, which it has taken from a head meanwhile, and which nobody was told of. The next epoch with
    /// that replica would prefer it, and lose what was acknowledged in this one.
    fn renew(&self, replica: &mut dyn Replica) {
        let ballot = self.adopted.epoch.ballot(0);
        let differing = self
            .proposal
            .iter()
            .flat_map(|proposal| &proposal.differing);
        for (key, highest) in differing {
            let Some(highest) = highest else { continue };
            let mut renewed = highest.clone();
            if rules::holds(Rule::MovedStatesRenewed) {
                renewed.ballot = ballot;
            }
            if renewed.ballot > replica.record(key).0.accepted_ballot() {
                replica.take(key, &renewed);
            }
        }
    }

    /// All that the other members hold, or the proposer, is here; or not all of it could be had.
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
        self.renew(context.replica);
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
                let question = Question::Give(self.adopted.epoch);
                self.ask(from, question, 0, Waits::Given, context);
            }
            _ => self.lose(context),
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
            keys: proposal.differing.len(),
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
    fn lose(&mut self, context: &mut Context<'_, H>) {
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
