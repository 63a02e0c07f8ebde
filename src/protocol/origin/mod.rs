//! The origin's part: sends a client's request to the key's coordinator, and to its successor
//! when the coordinator is silent.
//!
//! A write is named by a dot, minted here once. Every retry carries the same dot, so that it is
//! applied at most once however many coordinators see it. For that test to be sound this node has
//! at most one write of a key in flight, and numbers its writes upwards for ever: the numbers are
//! reserved durably, in blocks, before they are used.

mod failure;
mod slow;
mod turns;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use failure::Trouble;
use slow::Slow;
use turns::Turns;

use crate::bytes::Key;
use crate::error::Failure;
use crate::protocol::ring::{NodeId, Position, Ring};
use crate::protocol::version::Dot;
use crate::protocol::{Change, Operation, Outcome, Why};

/// A coordinator that has not answered after this part of the deadline is passed over: what is left of
/// it must do for the next one.
const PASSED_OVER_AFTER: u32 = 2;
/// After so many deadlines one request tries it again at first choice.
const TRIED_AGAIN_AFTER: u32 = 5;

/// What came back from a coordinator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Outcome(Outcome),
    /// Nothing in time: whatever it was sent may yet be done.
    Silent,
    /// It was sent nothing.
    Unreached,
}

impl Answer {
    /// Whether it tells what became of the request, and not only of the try.
    fn decides(&self) -> bool {
        matches!(
            self,
            Answer::Outcome(Outcome::Found { .. } | Outcome::Missing | Outcome::Decided(_))
        )
    }
}

/// Names one try of a request: a late answer to an earlier try is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    pub request: u64,
    attempt: u32,
}

/// What is to be done outside.
#[derive(Debug)]
pub enum Effect<H> {
    /// Hand the operation to a coordinator, which may be this node, and bring its answer back.
    Forward {
        to: NodeId,
        ticket: Ticket,
        key: Key,
        operation: Operation,
    },
    /// The request has ended.
    Answer {
        handle: H,
        result: Result<Outcome, Failure>,
    },
    /// Call [`Origin::wake`] after a jittered moment.
    WakeLater { request: u64 },
}

/// All requests of the clients of this node. `H` is the caller's note of whom to answer.
pub struct Origin<H> {
    node: NodeId,
    ring: Arc<Ring>,
    /// How long a request may take in all.
    deadline: Duration,
    requests: HashMap<u64, Request<H>>,
    last_request: u64,
    turns: Turns,
    slow: Slow,
    /// The time at which it was told the time last.
    now: Duration,
    last_sequence: u64,
    reserved: u64,
}

struct Request<H> {
    key: Key,
    range: usize,
    /// What a write changes; none for a read.
    change: Option<Change>,
    handle: H,
    dot: Option<Dot>,
    ends: Duration,
    attempt: u32,
    /// Who was tried in this pass over the preference list.
    tried: Vec<NodeId>,
    /// Whether a try is under way, and may have sent an accept.
    outstanding: bool,
    /// When that began.
    tried_at: Duration,
    /// The try whose coordinator was passed over last: what it decides counts all the same.
    passed_over: Option<u32>,
    /// Whether any earlier try may have sent an accept.
    doubtful: bool,
    /// What became of the last tries, for people: one entry per node.
    story: Vec<(NodeId, Trouble)>,
}

impl<H> Request<H> {
    /// Notes how the last try at a replica ended.
    fn tell_story(&mut self, replica: NodeId, trouble: Trouble) {
        self.story.retain(|(node, _)| *node != replica);
        self.story.push((replica, trouble));
    }
}

impl<H> Origin<H> {
    /// A router whose writes are numbered from `first_sequence` on.
    pub fn new(node: NodeId, ring: Arc<Ring>, deadline: Duration, first_sequence: u64) -> Self {
        Origin {
            node,
            ring,
            deadline,
            requests: HashMap::new(),
            last_request: 0,
            turns: Turns::default(),
            slow: Slow::default(),
            now: Duration::ZERO,
            last_sequence: first_sequence - 1,
            reserved: first_sequence - 1,
        }
    }

    /// How many requests are under way.
    pub fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// How many sequence numbers are left before more must be reserved.
    pub fn sequences_left(&self) -> u64 {
        self.reserved - self.last_sequence
    }

    /// All numbers above `used` and up to `upto` are this node's, durably.
    pub fn reserved(&mut self, used: u64, upto: u64) {
        self.reserved = self.reserved.max(upto);
        self.last_sequence = self.last_sequence.max(used);
    }

    /// A client's request: a write if it has a `change`, else a read. `now` is the time since any fixed moment, for deadlines alone.
    pub fn submit(
        &mut self,
        handle: H,
        key: Key,
        change: Option<Change>,
        now: Duration,
        suspects: &[NodeId],
        effects: &mut Vec<Effect<H>>,
    ) {
        self.now = now;
        self.last_request += 1;
        let id = self.last_request;
        let writes = change.is_some();
        let request = Request {
            range: self.ring.range_at(Position::of(key.as_slice())),
            key: key.clone(),
            change,
            handle,
            dot: None,
            ends: now + self.deadline,
            attempt: 0,
            tried: Vec::new(),
            outstanding: false,
            tried_at: now,
            passed_over: None,
            doubtful: false,
            story: Vec::new(),
        };
        self.requests.insert(id, request);
        if !writes || self.turns.enter(key, id) {
            self.start(id, suspects, effects);
        }
    }

    /// A coordinator's answer to a try, or its silence.
    pub fn answer(
        &mut self,
        ticket: Ticket,
        from: NodeId,
        answer: Answer,
        suspects: &[NodeId],
        effects: &mut Vec<Effect<H>>,
    ) {
        if answer.decides() {
            self.slow.answered(from);
        }
        let Some(request) = self.requests.get_mut(&ticket.request) else {
            return;
        };
        let late = request.passed_over == Some(ticket.attempt) && answer.decides();
        let current = request.attempt == ticket.attempt && request.outstanding;
        if !late && !current {
            return;
        }
        request.outstanding = false;
        let trouble = match answer {
            Answer::Outcome(Outcome::Failed {
                why: why @ (Why::Congested | Why::Full(_)),
                accept_sent: false,
            }) if !request.doubtful => {
                // To try on would add to the load, and make no room.
                let failure = Failure::Busy(failure::no_room(from, why));
                return self.end(ticket.request, Err(failure), suspects, effects);
            }
            Answer::Outcome(Outcome::Failed { accept_sent, why }) => {
                request.doubtful |= accept_sent;
                Trouble::Failed(why)
            }
            // This origin makes no later write of the key while this one is under way. But a
            // tombstone may have absorbed an earlier try, and be dropped since.
            Answer::Outcome(Outcome::Superseded) => {
                request.doubtful = true;
                Trouble::Superseded
            }
            Answer::Outcome(outcome) => {
                return self.end(ticket.request, Ok(outcome), suspects, effects);
            }
            Answer::Silent => {
                request.doubtful = true;
                Trouble::Silent
            }
            Answer::Unreached => Trouble::Unreached,
        };
        request.tell_story(from, trouble);
        self.try_next(ticket.request, suspects, effects);
    }

    /// The moment of an [`Effect::WakeLater`] has passed: another pass over the replicas.
    pub fn wake(&mut self, id: u64, suspects: &[NodeId], effects: &mut Vec<Effect<H>>) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.tried.clear();
            self.start(id, suspects, effects);
        }
    }

    /// Ends every request whose deadline has passed, and has the next replica try those that have
    /// waited for one coordinator for long.
    pub fn expire(&mut self, now: Duration, suspects: &[NodeId], effects: &mut Vec<Effect<H>>) {
        self.now = now;
        let over = |request: &Request<H>| request.ends <= now;
        let mut ids: Vec<u64> = self
            .requests
            .iter()
            .filter(|(_, request)| over(request))
            .map(|(&id, _)| id)
            .collect();
        // The newest first: the end of a write starts the next one of its key, which must not be
        // sent to anybody if it is over, too.
        ids.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
        for id in ids {
            let failure = self.failure(&self.requests[&id]);
            self.end(id, Err(failure), suspects, effects);
        }
        self.pass_over(suspects, effects);
    }

    /// Passes over the coordinators that let requests wait. Such a one is there, and may yet decide.
    fn pass_over(&mut self, suspects: &[NodeId], effects: &mut Vec<Effect<H>>) {
        let patience = self.deadline / PASSED_OVER_AFTER;
        let waits =
            |request: &Request<H>| request.outstanding && self.now >= request.tried_at + patience;
        let requests = self.requests.iter();
        let mut ids: Vec<u64> = requests
            .filter(|(_, request)| waits(request))
            .map(|(&id, _)| id)
            .collect();
        // In a fixed order: a simulation must replay.
        ids.sort_unstable();
        for id in ids {
            let Some(request) = self.requests.get_mut(&id) else {
                continue;
            };
            let Some(&coordinator) = request.tried.last() else {
                continue;
            };
            request.outstanding = false;
            request.doubtful = true;
            request.passed_over = Some(request.attempt);
            request.tell_story(coordinator, Trouble::Slow);
            let until = self.now + TRIED_AGAIN_AFTER * self.deadline;
            self.slow.passed_over(coordinator, until);
            self.try_next(id, suspects, effects);
        }
    }

    /// A pass over the replicas. A write is numbered first, as soon as there are numbers.
    fn start(&mut self, id: u64, suspects: &[NodeId], effects: &mut Vec<Effect<H>>) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        if request.change.is_some() && request.dot.is_none() {
            if self.last_sequence == self.reserved {
                return effects.push(Effect::WakeLater { request: id });
            }
            self.last_sequence += 1;
            request.dot = Some(Dot {
                origin: self.node,
                sequence: self.last_sequence,
            });
        }
        self.try_next(id, suspects, effects);
    }

    /// Tries the next replica of the preference list: those that answer first, suspects and slow ones
    /// last.
    fn try_next(&mut self, id: u64, suspects: &[NodeId], effects: &mut Vec<Effect<H>>) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let replicas = self.ring.replicas_of_range(request.range);
        let untried = || replicas.iter().filter(|node| !request.tried.contains(node));
        let pause = TRIED_AGAIN_AFTER * self.deadline;
        let next = untried()
            .find(|node| {
                !suspects.contains(node) && !self.slow.passes_over(**node, self.now, pause)
            })
            .or_else(|| untried().next());
        let Some(&to) = next else {
            return effects.push(Effect::WakeLater { request: id });
        };
        request.attempt += 1;
        request.tried.push(to);
        request.outstanding = true;
        request.tried_at = self.now;
        let operation = match (&request.change, request.dot) {
            (Some(change), Some(dot)) => Operation::Write {
                dot,
                change: change.clone(),
            },
            _ => Operation::Get,
        };
        let ticket = Ticket {
            request: id,
            attempt: request.attempt,
        };
        effects.push(Effect::Forward {
            to,
            ticket,
            key: request.key.clone(),
            operation,
        });
    }

    fn end(
        &mut self,
        id: u64,
        result: Result<Outcome, Failure>,
        suspects: &[NodeId],
        effects: &mut Vec<Effect<H>>,
    ) {
        let Some(request) = self.requests.remove(&id) else {
            return;
        };
        effects.push(Effect::Answer {
            handle: request.handle,
            result,
        });
        if request.change.is_none() {
            return;
        }
        if let Some(next) = self.turns.leave(&request.key, id) {
            self.start(next, suspects, effects);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Verdict, Why};

    const NO_ONE: &[NodeId] = &[];

    fn origin() -> Origin<&'static str> {
        let ring = Arc::new(Ring::new([5554, 5556, 5558, 5560, 5562].map(NodeId), 3));
        let mut origin = Origin::new(NodeId(5554), ring, Duration::from_secs(2), 1);
        origin.reserved(0, 100);
        origin
    }

    fn put(value: &str) -> Option<Change> {
        Some(Change::Put(value.into()))
    }

    fn submit(
        origin: &mut Origin<&'static str>,
        handle: &'static str,
        change: Option<Change>,
    ) -> Vec<Effect<&'static str>> {
        let mut effects = Vec::new();
        origin.submit(
            handle,
            "foo".into(),
            change,
            Duration::ZERO,
            NO_ONE,
            &mut effects,
        );
        effects
    }

    fn tell(
        origin: &mut Origin<&'static str>,
        to: &Effect<&'static str>,
        answer: Answer,
    ) -> Vec<Effect<&'static str>> {
        let Effect::Forward { to, ticket, .. } = to else {
            panic!("not forwarded: {to:?}")
        };
        let mut effects = Vec::new();
        origin.answer(*ticket, *to, answer, NO_ONE, &mut effects);
        effects
    }

    fn forwarded(effects: &[Effect<&'static str>]) -> (u32, Option<Dot>) {
        match effects {
            [
                Effect::Forward {
                    to,
                    operation: Operation::Write { dot, .. },
                    ..
                },
            ] => (to.0, Some(*dot)),
            [Effect::Forward { to, .. }] => (to.0, None),
            other => panic!("not forwarded: {other:?}"),
        }
    }

    fn code_at_the_deadline(origin: &mut Origin<&'static str>) -> &'static str {
        let mut effects = Vec::new();
        origin.expire(Duration::from_secs(2), NO_ONE, &mut effects);
        match effects.pop() {
            Some(Effect::Answer {
                result: Err(failure),
                ..
            }) if effects.is_empty() => failure.code(),
            other => panic!("{other:?}"),
        }
    }

    fn applied() -> Answer {
        Answer::Outcome(Outcome::Decided(Verdict::Applied(None)))
    }

    #[test]
    fn the_coordinator_serves_and_its_successor_takes_over_with_the_same_dot() {
        let mut origin = origin();
        let first = submit(&mut origin, "x", put("1"));
        let dot = Some(Dot {
            origin: NodeId(5554),
            sequence: 1,
        });
        assert_eq!(forwarded(&first), (5562, dot));
        let second = tell(&mut origin, &first[0], Answer::Silent);
        assert_eq!(forwarded(&second), (5556, dot));
        assert!(
            tell(&mut origin, &first[0], applied()).is_empty(),
            "a late answer is dropped"
        );
        let end = tell(&mut origin, &second[0], applied());
        assert!(matches!(
            end[..],
            [Effect::Answer {
                handle: "x",
                result: Ok(_)
            }]
        ));
    }

    #[test]
    fn a_suspect_is_skipped_at_first_choice_and_tried_when_no_one_else_is_left() {
        let mut origin = origin();
        let suspects = [NodeId(5562), NodeId(5556), NodeId(5554)];
        let mut effects = Vec::new();
        origin.submit(
            "x",
            "foo".into(),
            None,
            Duration::ZERO,
            &suspects[..2],
            &mut effects,
        );
        assert_eq!(forwarded(&effects), (5554, None));
        effects.clear();
        origin.submit(
            "y",
            "foo".into(),
            None,
            Duration::ZERO,
            &suspects,
            &mut effects,
        );
        assert_eq!(forwarded(&effects), (5562, None));
    }

    /// What is done after so many milliseconds.
    fn after(origin: &mut Origin<&'static str>, millis: u64) -> Vec<Effect<&'static str>> {
        let mut effects = Vec::new();
        origin.expire(Duration::from_millis(millis), NO_ONE, &mut effects);
        effects
    }

    #[test]
    fn a_coordinator_that_lets_a_request_wait_is_passed_over_by_it_and_by_later_ones() {
        let mut origin = origin();
        let first = submit(&mut origin, "x", put("1"));
        assert!(after(&mut origin, 999).is_empty());
        let second = after(&mut origin, 1000);
        assert_eq!(forwarded(&second), (5556, forwarded(&first).1));
        let read = |origin: &mut Origin<_>, at: u64| {
            let mut effects = Vec::new();
            let (key, at) = ("foo".into(), Duration::from_millis(at));
            origin.submit("y", key, None, at, NO_ONE, &mut effects);
            effects
        };
        let third = read(&mut origin, 1001);
        assert_eq!(forwarded(&third).0, 5556);
        // It carries out the request that it let wait, and serves again.
        let end = tell(&mut origin, &first[0], applied());
        assert!(matches!(
            end[..],
            [Effect::Answer {
                handle: "x",
                result: Ok(_)
            }]
        ));
        assert!(
            tell(&mut origin, &second[0], applied()).is_empty(),
            "told once"
        );
        assert_eq!(forwarded(&read(&mut origin, 1002)).0, 5562);
    }

    #[test]
    fn a_coordinator_that_was_passed_over_and_did_nothing_is_tried_again_by_one_request() {
        let mut origin = origin();
        let first = submit(&mut origin, "x", put("1"));
        let second = after(&mut origin, 1000);
        let nothing = Answer::Outcome(Outcome::not_done(Why::Contended));
        assert!(tell(&mut origin, &first[0], nothing).is_empty());
        assert!(!tell(&mut origin, &second[0], applied()).is_empty());
        let choices = [1001, 10_999, 11_000, 11_001, 21_000].map(|at| {
            let mut effects = Vec::new();
            let at = Duration::from_millis(at);
            origin.submit("y", "foo".into(), None, at, NO_ONE, &mut effects);
            forwarded(&effects).0
        });
        assert_eq!(choices, [5556, 5556, 5562, 5556, 5562]);
    }

    #[test]
    fn a_write_whose_coordinator_was_passed_over_may_have_been_done() {
        let mut origin = origin();
        submit(&mut origin, "x", put("1"));
        let mut effects = after(&mut origin, 1000);
        for _ in 0..2 {
            let failed = Answer::Outcome(Outcome::not_done(Why::Contended));
            effects = tell(&mut origin, &effects[0], failed);
        }
        assert_eq!(code_at_the_deadline(&mut origin), "UNKNOWN");
    }

    #[test]
    fn one_write_of_a_key_is_in_flight_at_a_time_and_dots_grow() {
        let mut origin = origin();
        let first = submit(&mut origin, "x", put("1"));
        assert!(submit(&mut origin, "y", put("2")).is_empty());
        let end = tell(&mut origin, &first[0], applied());
        assert!(matches!(end[0], Effect::Answer { handle: "x", .. }));
        assert_eq!(forwarded(&end[1..]).1.map(|dot| dot.sequence), Some(2));
    }

    #[test]
    fn a_write_that_certainly_left_no_trace_is_unavailable_and_any_other_unknown() {
        let failed = |accept_sent| {
            Answer::Outcome(Outcome::Failed {
                accept_sent,
                why: Why::NoQuorum { needed: 2, got: 1 },
            })
        };
        let cases = [
            (
                vec![Answer::Unreached, failed(false), failed(false)],
                "UNAVAILABLE",
            ),
            (
                vec![Answer::Unreached, Answer::Silent, failed(false)],
                "UNKNOWN",
            ),
            (vec![failed(true), failed(false), failed(false)], "UNKNOWN"),
            (
                vec![
                    Answer::Outcome(Outcome::Superseded),
                    failed(false),
                    failed(false),
                ],
                "UNKNOWN",
            ),
        ];
        for (answers, expected) in cases {
            let mut origin = origin();
            let mut effects = submit(&mut origin, "x", put("1"));
            for answer in answers {
                effects = tell(&mut origin, &effects[0], answer);
            }
            assert!(matches!(effects[..], [Effect::WakeLater { .. }]));
            assert_eq!(code_at_the_deadline(&mut origin), expected);
        }
    }

    #[test]
    fn a_write_for_which_there_is_no_room_is_busy_unless_it_may_have_been_done() {
        let full = Answer::Outcome(Outcome::not_done(Why::Full(NodeId(3))));
        let mut origin = origin();
        let sent = submit(&mut origin, "x", put("1"));
        let ended = tell(&mut origin, &sent[0], full.clone());
        let [
            Effect::Answer {
                result: Err(failure),
                ..
            },
        ] = &ended[..]
        else {
            panic!("{ended:?}");
        };
        assert_eq!(failure.code(), "BUSY");
        assert!(failure.text().contains("node 3, "), "{failure}");
        let sent = submit(&mut origin, "x", put("2"));
        let again = tell(&mut origin, &sent[0], Answer::Silent);
        tell(&mut origin, &again[0], full);
        assert_eq!(code_at_the_deadline(&mut origin), "UNKNOWN");
    }

    #[test]
    fn a_write_whose_coordinator_never_answers_is_unknown_and_a_read_unavailable() {
        for (change, expected) in [(put("1"), "UNKNOWN"), (None, "UNAVAILABLE")] {
            let mut origin = origin();
            submit(&mut origin, "x", change);
            assert_eq!(code_at_the_deadline(&mut origin), expected);
        }
    }

    #[test]
    fn of_two_writes_of_a_key_that_are_over_at_once_the_one_that_waited_is_sent_to_nobody() {
        let mut origin = origin();
        submit(&mut origin, "sent", put("1"));
        submit(&mut origin, "waits", put("2"));
        let mut effects = Vec::new();
        origin.expire(Duration::from_secs(2), NO_ONE, &mut effects);
        let ended = effects.iter().map(|effect| match effect {
            Effect::Answer {
                handle,
                result: Err(failure),
            } => (*handle, failure.code()),
            other => panic!("{other:?}"),
        });
        assert_eq!(
            ended.collect::<Vec<_>>(),
            [("waits", "UNAVAILABLE"), ("sent", "UNKNOWN")]
        );
    }

    #[test]
    fn without_reserved_numbers_a_write_waits() {
        let ring = Arc::new(Ring::new([1, 2, 3].map(NodeId), 3));
        let mut origin = Origin::new(NodeId(1), ring, Duration::from_secs(2), 7);
        let waits = submit(&mut origin, "x", put("1"));
        let [Effect::WakeLater { request }] = waits[..] else {
            panic!("{waits:?}");
        };
        let mut effects = Vec::new();
        origin.reserved(0, 7);
        origin.wake(request, NO_ONE, &mut effects);
        assert_eq!(forwarded(&effects).1.map(|dot| dot.sequence), Some(7));
        origin.reserved(20, 30);
        let next = submit(&mut origin, "y", Some(Change::Delete));
        assert!(next.is_empty(), "one at a time");
        let end = tell(&mut origin, &effects[0], applied());
        assert_eq!(forwarded(&end[1..]).1.map(|dot| dot.sequence), Some(21));
    }
}
