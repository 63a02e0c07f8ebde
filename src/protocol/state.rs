//! What a key holds, and how one request changes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bytes::Value;
use crate::protocol::group::{self, Page, Say};
use crate::protocol::ring::NodeId;
use crate::protocol::version::{Dot, VectorClock};
use crate::testing::rules::{self, Rule};

/// The most bytes that an [`Answer`] has.
pub const MAX_ANSWER: usize = 64;

/// What a change tells its client beside "applied" or "refused", in at most [`MAX_ANSWER`] bytes. It
/// cannot be computed again later, so the state keeps it for a retry.
pub type Answer = Arc<str>;

/// The content of a key: value or tombstone, with what it has absorbed.
///
/// - Along the chosen states of a key the clock only grows, strictly where the value changes, until a
///   tombstone is dropped. What is [decided](State::decided) never shrinks, not even then.
/// - No dot is both absorbed and refused.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// `None` is a tombstone, or a key that was never written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// The key's version.
    pub clock: VectorClock,
    /// The last write that was applied. Its retry can still be given its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Dot>,
    /// For each origin its last request, if that was decided "no". No part of the version.
    #[serde(default, skip_serializing_if = "VectorClock::is_empty")]
    pub refusals: VectorClock,
    /// For each origin the number and the answer of its last decided request, if that had an answer. No
    /// part of the version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<NodeId, (u64, Answer)>,
    /// For each origin, requests up to this number are refused, since a tombstone that was dropped
    /// may contain them. No part of the version.
    #[serde(
        default,
        skip_serializing_if = "VectorClock::is_empty",
        alias = "before"
    )]
    pub floor: VectorClock,
}

/// What a client asks of a key: `f` in the terms of CASPaxos.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Sets the value, whatever it is now.
    Put(Value),
    /// Removes the value. Refused if there is no such key.
    Delete,
    /// Sets the value. Refused unless the key has exactly the expected version; `None` expects no such key.
    CompareAndSet {
        expected: Option<VectorClock>,
        value: Value,
    },
    /// Appends messages to a group: see [`group`].
    Say(Arc<Say>),
    /// Stores a page of a group, unless it or a later one is there.
    PutPage(Arc<Page>),
    /// Empties a group.
    Trim,
    /// Empties a page of a group, unless one after this number has taken its place.
    TrimPage(u64),
    /// Adds to a number, and answers the sum. No value counts as 0, and what is no number is refused.
    /// Only tests have it: it is the smallest change with an answer.
    #[cfg(debug_assertions)]
    Add(i64),
}

/// What a change makes of a state.
struct Made {
    /// The new value, which may be none. `None` if the change is refused.
    value: Option<Option<Value>>,
    answer: Option<Answer>,
}

impl Change {
    /// The value that it writes, if any.
    pub fn value(&self) -> Option<&Value> {
        match self {
            Change::Put(value) | Change::CompareAndSet { value, .. } => Some(value),
            Change::Delete | Change::Say(_) | Change::PutPage(_) => None,
            Change::Trim | Change::TrimPage(_) => None,
            #[cfg(debug_assertions)]
            Change::Add(_) => None,
        }
    }

    fn make(&self, state: &State) -> Made {
        let with_answer =
            |(value, answer): (Option<Value>, String)| (value.map(Some), Some(answer.into()));
        let (value, answer) = match self {
            Change::Put(value) => (Some(Some(value.clone())), None),
            Change::Delete => (state.value.is_some().then_some(None), None),
            Change::CompareAndSet { expected, value } => {
                let met = *expected == state.version();
                (met.then(|| Some(value.clone())), None)
            }
            Change::Say(say) => with_answer(group::say(state.value.as_ref(), say)),
            Change::PutPage(page) => {
                let value = group::put_page(state.value.as_ref(), page);
                (value.map(Some), None)
            }
            Change::Trim => with_answer(group::trim(state.value.as_ref())),
            Change::TrimPage(page) => {
                let value = group::trim_page(state.value.as_ref(), *page);
                (value.map(Some), None)
            }
            #[cfg(debug_assertions)]
            Change::Add(more) => {
                let number = state
                    .value
                    .as_ref()
                    .map_or(Ok(0), |own| own.to_string().parse());
                let sum = number.map(|number: i64| number.wrapping_add(*more).to_string());
                let value = sum.as_ref().ok().map(|sum| Some(sum.as_str().into()));
                (value, Some(sum.unwrap_or("no number".to_owned()).into()))
            }
        };
        Made { value, answer }
    }
}

/// How the replicas decided a change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It was applied and made this version. `None` if an earlier attempt was applied and another
    /// write has followed: then the version is not known any more.
    Applied(Option<VectorClock>),
    /// The condition failed: the key has this version. `None` if there is no such key.
    Refused(Option<VectorClock>),
    /// The condition failed in an earlier attempt. It would be met now, so the version of now would
    /// not explain the refusal.
    RefusedBefore,
    /// It was applied or refused, and this is its answer, now or in an earlier attempt.
    Answered(Answer),
}

/// What a request makes of a state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Absorbed {
    /// The proposer proposes this state. Once it is chosen, the verdict is the answer.
    Into(State, Verdict),
    /// The request has ended already: its origin has made a later one, or it is at or below the
    /// [`State::floor`]. It may have been applied, so the answer must not be "not done".
    Superseded,
}

impl State {
    /// The version that a client sees; `None` where there is no such key.
    pub fn version(&self) -> Option<VectorClock> {
        self.value.as_ref().map(|_| self.clock.clone())
    }

    /// Per origin the number up to which its requests are decided: they are absorbed or refused, or can
    /// be neither any more.
    pub fn decided(&self) -> VectorClock {
        let mut decided = VectorClock::default();
        self.add_decided(&mut decided);
        decided
    }

    /// The entry of one origin in what is [decided](State::decided).
    pub fn decided_of(&self, origin: NodeId) -> u64 {
        let refused = self.refusals.get(origin).max(self.floor.get(origin));
        self.clock.get(origin).max(refused)
    }

    /// Merges what is [decided](State::decided) into a clock.
    pub fn add_decided(&self, clock: &mut VectorClock) {
        for decided in [&self.clock, &self.refusals, &self.floor] {
            clock.merge(decided);
        }
    }

    /// Absorbs one request. If an earlier attempt of it was absorbed or refused, the state stays as it
    /// is, and the verdict too.
    pub fn absorb(&self, dot: Dot, change: &Change) -> Absorbed {
        let earlier = self.look_up(dot, change);
        match earlier.filter(|_| rules::holds(Rule::DotLookup)) {
            Some(earlier) => earlier,
            None => self.decide(dot, change),
        }
    }

    /// How this very request was decided in an earlier attempt, or that it has ended undecided.
    fn look_up(&self, dot: Dot, change: &Change) -> Option<Absorbed> {
        let below_floor = self.floor.get(dot.origin) >= dot.sequence;
        if below_floor || self.decided_of(dot.origin) > dot.sequence {
            return Some(Absorbed::Superseded);
        }
        let absorbed = self.clock.get(dot.origin) == dot.sequence;
        let refused = self.refusals.get(dot.origin) == dot.sequence;
        if !absorbed && !refused {
            return None;
        }
        let kept = self.answers.get(&dot.origin);
        let verdict = if let Some((_, answer)) = kept.filter(|(own, _)| *own == dot.sequence) {
            Verdict::Answered(answer.clone())
        } else if absorbed {
            Verdict::Applied((self.last == Some(dot)).then(|| self.clock.clone()))
        } else if change.make(self).value.is_some() {
            Verdict::RefusedBefore
        } else {
            Verdict::Refused(self.version())
        };
        Some(Absorbed::Into(self.clone(), verdict))
    }

    /// Decides a request that was not decided before.
    fn decide(&self, dot: Dot, change: &Change) -> Absorbed {
        let mut next = self.clone();
        let Made { value, answer } = change.make(self);
        let verdict = if let Some(value) = value {
            next.value = value;
            next.last = Some(dot);
            next.clock.set(dot);
            next.refusals.remove(dot.origin);
            next.floor.remove(dot.origin);
            Verdict::Applied(Some(next.clock.clone()))
        } else {
            if rules::holds(Rule::RefusalsRecorded) {
                next.refusals.set(dot);
                next.floor.remove(dot.origin);
            }
            Verdict::Refused(self.version())
        };
        next.answers.remove(&dot.origin);
        let Some(answer) = answer else {
            return Absorbed::Into(next, verdict);
        };
        assert!(answer.len() <= MAX_ANSWER, "an answer is short: {answer}");
        if rules::holds(Rule::AnswersKept) {
            let kept = (dot.sequence, answer.clone());
            next.answers.insert(dot.origin, kept);
        }
        Absorbed::Into(next, Verdict::Answered(answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ring::NodeId;

    fn dot(origin: u32, sequence: u64) -> Dot {
        Dot {
            origin: NodeId(origin),
            sequence,
        }
    }

    fn clock(text: &str) -> VectorClock {
        text.parse().unwrap()
    }

    fn put(value: &str) -> Change {
        Change::Put(value.into())
    }

    fn after(state: &State, dot: Dot, change: &Change) -> (State, Verdict) {
        match state.absorb(dot, change) {
            Absorbed::Into(state, verdict) => (state, verdict),
            Absorbed::Superseded => panic!("superseded"),
        }
    }

    #[test]
    fn a_write_is_absorbed_once_and_its_retry_answered_the_same() {
        let (one, verdict) = after(&State::default(), dot(1, 5), &put("a"));
        assert_eq!(verdict, Verdict::Applied(Some(clock("1:5"))));
        assert_eq!(after(&one, dot(1, 5), &put("a")), (one.clone(), verdict));
    }

    #[test]
    fn the_retry_of_an_overwritten_write_changes_nothing_and_gets_no_version() {
        let (one, _) = after(&State::default(), dot(1, 5), &put("a"));
        let (two, _) = after(&one, dot(2, 1), &put("b"));
        assert_eq!(
            after(&two, dot(1, 5), &put("a")),
            (two.clone(), Verdict::Applied(None))
        );
    }

    #[test]
    fn a_request_that_its_origin_gave_up_is_dropped() {
        let (one, _) = after(&State::default(), dot(1, 5), &put("a"));
        assert_eq!(one.absorb(dot(1, 4), &put("b")), Absorbed::Superseded);
        let (refused, _) = after(&State::default(), dot(1, 7), &Change::Delete);
        assert_eq!(refused.absorb(dot(1, 6), &put("b")), Absorbed::Superseded);
    }

    #[test]
    fn a_refusal_stays_a_refusal_when_its_condition_is_met_later() {
        let expected = Some(clock("2:1"));
        let swap = Change::CompareAndSet {
            expected,
            value: "new".into(),
        };
        let (refused, verdict) = after(&State::default(), dot(1, 1), &swap);
        assert_eq!(verdict, Verdict::Refused(None));
        assert_eq!(refused.clock, VectorClock::default());
        let (met, _) = after(&refused, dot(2, 1), &put("x"));
        let (still, verdict) = after(&met, dot(1, 1), &swap);
        assert_eq!((still, verdict), (met, Verdict::RefusedBefore));
    }

    #[test]
    fn a_request_at_or_below_the_floor_is_superseded() {
        let new = State {
            floor: clock("1:5,2:8"),
            ..State::default()
        };
        assert_eq!(new.absorb(dot(1, 5), &put("a")), Absorbed::Superseded);
        assert_eq!(new.absorb(dot(2, 3), &Change::Delete), Absorbed::Superseded);
        let (one, verdict) = after(&new, dot(1, 6), &put("a"));
        assert_eq!(verdict, Verdict::Applied(Some(clock("1:6"))));
        assert_eq!(one.decided(), clock("1:6,2:8"));
        assert_eq!(one.floor, clock("2:8"));
        let (refused, _) = after(&new, dot(2, 9), &Change::Delete);
        assert_eq!(refused.decided(), clock("1:5,2:9"));
    }

    #[test]
    fn a_later_write_of_the_same_origin_clears_its_refusal() {
        let (refused, _) = after(&State::default(), dot(1, 1), &Change::Delete);
        let (next, _) = after(&refused, dot(1, 2), &put("x"));
        assert!(next.refusals.is_empty());
    }

    #[test]
    fn compare_and_set_and_delete_look_at_the_version() {
        let create = Change::CompareAndSet {
            expected: None,
            value: "a".into(),
        };
        let (one, verdict) = after(&State::default(), dot(1, 1), &create);
        assert_eq!(verdict, Verdict::Applied(Some(clock("1:1"))));
        let (same, verdict) = after(&one, dot(1, 2), &create);
        assert_eq!(verdict, Verdict::Refused(Some(clock("1:1"))));
        assert_eq!(same.value, one.value);
        let (gone, verdict) = after(&one, dot(2, 3), &Change::Delete);
        assert_eq!(verdict, Verdict::Applied(Some(clock("1:1,2:3"))));
        assert_eq!(gone.version(), None);
        assert_eq!(
            after(&gone, dot(1, 4), &Change::Delete).1,
            Verdict::Refused(None)
        );
        let (again, _) = after(&gone, dot(1, 4), &create);
        assert_eq!(again.version(), Some(clock("1:4,2:3")));
    }

    fn answered(answer: &str) -> Verdict {
        Verdict::Answered(answer.into())
    }

    #[test]
    fn a_retry_is_told_the_answer_of_its_first_attempt_whatever_others_have_done_since() {
        let (one, verdict) = after(&State::default(), dot(1, 5), &Change::Add(3));
        assert_eq!(verdict, answered("3"));
        let (two, verdict) = after(&one, dot(2, 1), &Change::Add(4));
        assert_eq!(verdict, answered("7"));
        let (gone, _) = after(&two, dot(3, 1), &Change::Delete);
        let retry = after(&gone, dot(1, 5), &Change::Add(3));
        assert_eq!(retry, (gone, answered("3")));
    }

    #[test]
    fn a_refusal_with_an_answer_is_told_the_same_even_when_it_would_be_met_now() {
        let (text, _) = after(&State::default(), dot(2, 1), &put("text"));
        let (refused, verdict) = after(&text, dot(1, 1), &Change::Add(1));
        assert_eq!(verdict, answered("no number"));
        assert_eq!(refused.version(), text.version());
        let (number, _) = after(&refused, dot(2, 2), &put("8"));
        let retry = after(&number, dot(1, 1), &Change::Add(1));
        assert_eq!(retry, (number, verdict));
    }

    #[test]
    fn the_next_decided_request_of_an_origin_replaces_its_answer() {
        let (one, _) = after(&State::default(), dot(1, 5), &Change::Add(3));
        let (two, _) = after(&one, dot(1, 6), &Change::Add(3));
        assert_eq!(two.answers, BTreeMap::from([(NodeId(1), (6, "6".into()))]));
        let (three, _) = after(&two, dot(1, 7), &put("x"));
        assert!(three.answers.is_empty());
        assert_eq!(
            three.absorb(dot(1, 6), &Change::Add(3)),
            Absorbed::Superseded
        );
    }

    #[test]
    fn answers_survive_json() {
        let (one, _) = after(&State::default(), dot(5554, 5), &Change::Add(3));
        let text = serde_json::to_string(&one).unwrap();
        assert!(text.contains(r#""answers":{"5554":[5,"3"]}"#), "{text}");
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), one);
    }
}
