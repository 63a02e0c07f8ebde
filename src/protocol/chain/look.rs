//! A replica looks around: whether its chain is still the present one, and what to do if it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::epoch::Epoch;
use super::member::{Member, Part};
use super::requests::is_fenced;
use super::waits::Waits;
use super::{Answer, Context, Effect, Question, Replica, Status};
use crate::bytes::Key;
use crate::protocol::Accepted;
use crate::protocol::ring::NodeId;
use crate::testing::rules::{self, Rule};

/// If a question of a chain has no answer for so many read time-outs, the member looks around meanwhile: a peer
/// whose disk hangs is there, and will not answer it.
const LATE: u32 = 4;

/// How often a replica looks whether its chain is still the present one.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a replica that was left out waits before it returns.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The same, if it was left out again and again.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A return that lasted less than this doubles the next pause.
const SHORT_RETURN: Duration = Duration::from_secs(10);

/// A replica's look at the others.
#[derive(Default)]
pub(super) struct Look {
    /// Those whose answers are waited for.
    awaited: BTreeSet<NodeId>,
    answers: BTreeMap<NodeId, Status>,
    /// When the next one is due, if nothing is wrong.
    due: Duration,
    /// No look before this.
    pub(super) not_before: Duration,
    /// Who did not take what this replica gave in its last proposal. Perhaps that one does not reach this replica.
    pub(super) failed: Option<NodeId>,
}

impl Look {
    /// Answers that are on their way tell of what is over.
    pub(super) fn end(&mut self) {
        self.awaited.clear();
        self.answers.clear();
    }
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
    /// When it proposed its return last.
    last: Option<Duration>,
}

impl Return {
    /// This replica has adopted an epoch. If that does not begin, or if this replica is left out again, it waits
    /// before the next return.
    pub(super) fn end(&mut self) {
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
        self.aside = false;
        self.give_up_overdue(context);
        let late = LATE * self.times.time_out;
        let is_late = |since: Duration| context.now >= since + late;
        let waits = self.asked.values().any(|asked| is_late(asked.at));
        let proposal = self.proposal.as_ref();
        let proposes = proposal.is_some_and(|proposal| !is_late(proposal.began));
        let is_busy = !self.look.awaited.is_empty() || self.ret.catching_up || proposes;
        let is_due = !self.serves() || self.broken || waits || context.now >= self.look.due;
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
        match answer {
            Some(Answer::Status(status)) if status.adopted.epoch.is_credible() => {
                self.look.answers.insert(from, status);
            }
            // A member says that it cannot go on.
            Some(_) if self.adopted.has(from) => {
                self.trouble_with_silence();
                if self.proposal.is_some() {
                    self.lose(context);
                }
            }
            _ => {}
        }
        if self.look.awaited.is_empty() && self.proposal.is_none() {
            let answers = std::mem::take(&mut self.look.answers);
            self.judge(&answers, context);
        }
    }

    /// Decides what the others' answers mean: nothing, an epoch to be proposed, or a state to be caught up with.
    fn judge(&mut self, answers: &BTreeMap<NodeId, Status>, context: &mut Context<'_, H>) {
        let is_past = |(from, status): (&NodeId, &Status)| {
            let concerns = status.serves || self.adopted.has(*from);
            status.adopted.epoch > self.adopted.epoch && concerns
        };
        if self.serves() && answers.iter().any(is_past) {
            self.stop(context);
        }
        let at_work = answers.values().any(|status| status.at_work);
        if self.serves() && !self.broken || !self.serves() && at_work {
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
            for handle in std::mem::take(&mut self.stalled) {
                context.tell(handle, Answer::Refused, 0);
            }
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
        if all_there {
            self.ret.last = Some(context.now);
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
}
