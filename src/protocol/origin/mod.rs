//! The origin's part: sends a client's request to the key's coordinator, and to the next replicas of
//! the key while no coordinator decides.
//!
//! A dot names a write. It is minted here once, and every attempt carries it, so that the write is
//! applied at most once however many coordinators see it. This is sound only if an origin never uses a
//! number twice (`sequences.rs`). So that a later attempt still learns the answer of an earlier one, an
//! origin has at most one write of a key in flight (`write_queues.rs`).

mod attempt;
mod failure;
mod request;
mod sequences;
mod slow;
mod write_queues;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use request::ClientRequest;
use sequences::Sequences;
use slow::SlowCoordinators;
use write_queues::WriteQueues;

use crate::bytes::Key;
use crate::error::Failure;
use crate::protocol::ring::{NodeId, Position, Ring};
use crate::protocol::{Change, Operation, Outcome, Strategy};

/// A request waits for one coordinator for the deadline divided by this. The next one has what is left.
const PATIENCE: u32 = 2;

/// What a coordinator made of one attempt. The shell reports it with [`Origin::answer`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The coordinator sent this.
    Outcome(Outcome),
    /// The coordinator was sent the request and answered nothing in time. It may yet carry it out.
    Silent,
    /// The coordinator could not be sent the request.
    Unreached,
}

impl Answer {
    /// Whether it settles the request itself, and not only the attempt.
    fn decides(&self) -> bool {
        matches!(
            self,
            Answer::Outcome(Outcome::Found { .. } | Outcome::Missing | Outcome::Decided(_))
        )
    }
}

/// Names one attempt of a request, so that a late answer is not taken for that of a later attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    pub request: u64,
    attempt: u32,
}

/// What the origin wants the shell to do.
#[derive(Debug)]
pub enum Effect<H> {
    /// Send the operation to a coordinator, which may be this node, and bring back its answer.
    Forward {
        to: NodeId,
        ticket: Ticket,
        key: Key,
        operation: Operation,
    },
    /// Answer the client: its request has ended.
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
    strategy: Strategy,
    /// How long a request may take in all.
    deadline: Duration,
    /// Ordered by age. A simulation replays only if loops over it have a fixed order.
    requests: BTreeMap<u64, ClientRequest<H>>,
    last_request: u64,
    queues: WriteQueues,
    slow: SlowCoordinators,
    sequences: Sequences,
    /// The time of the last [`Origin::submit`] or [`Origin::expire`], on the caller's clock.
    now: Duration,
}

impl<H> Origin<H> {
    /// An origin whose requests end after `deadline`, and whose writes are numbered from
    /// `first_sequence` on.
    pub fn new(
        node: NodeId,
        ring: Arc<Ring>,
        strategy: Strategy,
        deadline: Duration,
        first_sequence: u64,
    ) -> Self {
        Origin {
            node,
            ring,
            strategy,
            deadline,
            requests: BTreeMap::new(),
            last_request: 0,
            queues: WriteQueues::default(),
            slow: SlowCoordinators::new(deadline),
            sequences: Sequences::new(node, first_sequence),
            now: Duration::ZERO,
        }
    }

    /// How many requests are under way.
    pub fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// How many sequence numbers are left before more must be reserved.
    pub fn sequences_left(&self) -> u64 {
        self.sequences.left()
    }

    /// Allows the numbers above `used` and up to `upto`: they are reserved for this node on disk.
    pub fn reserved(&mut self, used: u64, upto: u64) {
        self.sequences.reserved(used, upto);
    }

    /// A client's request: a write if it has a `change`, else a read. `now` is the time since any
    /// fixed moment, for deadlines alone.
    pub fn submit(
        &mut self,
        handle: H,
        key: Key,
        change: Option<Change>,
        now: Duration,
        suspects: &[NodeId],
        effects: &mut Vec<Effect<H>>,
    ) {
        // It may have come a while ago, and waited for its turn. Its coordinator has not waited so long.
        self.now = self.now.max(now);
        self.last_request += 1;
        let id = self.last_request;
        let range = self.ring.range_at(Position::of_key(&key));
        let starts = change.is_none() || self.queues.enter(key.clone(), id);
        let ends = now + self.deadline;
        let request = ClientRequest::new(handle, key, range, change, ends);
        self.requests.insert(id, request);
        if starts {
            effects.push(self.attempt(id, suspects));
        }
    }

    /// A coordinator's answer to an attempt, or its silence.
    pub fn answer(
        &mut self,
        ticket: Ticket,
        from: NodeId,
        answer: Answer,
        suspects: &[NodeId],
        effects: &mut Vec<Effect<H>>,
    ) {
        if answer.decides() {
            self.slow.remove(from);
        }
        let Some(request) = self.requests.get_mut(&ticket.request) else {
            return; // The request has ended meanwhile.
        };
        let current = request.attempt == ticket.attempt && request.waits_for.is_some();
        let late = request.passed_over == Some(ticket.attempt) && answer.decides();
        if !current && !late {
            return; // A later attempt has taken the place of this one.
        }
        match request.take(from, answer) {
            Some(result) => self.end(ticket.request, result, suspects, effects),
            None => effects.push(self.attempt(ticket.request, suspects)),
        }
    }

    /// The moment of an [`Effect::WakeLater`] has passed. If the request has not ended meanwhile, all
    /// replicas are tried once more.
    pub fn wake(&mut self, id: u64, suspects: &[NodeId], effects: &mut Vec<Effect<H>>) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.tried.clear();
            effects.push(self.attempt(id, suspects));
        }
    }

    /// Ends every request whose deadline has passed, and sends each that has waited for one coordinator
    /// for long to the next replica.
    pub fn expire(&mut self, now: Duration, suspects: &[NodeId], effects: &mut Vec<Effect<H>>) {
        self.now = now;
        // The newest first: the end of a write starts the next one of its key. If that one has expired
        // too, it must have ended by then, or it would be sent to a coordinator.
        let expired = self.requests_where(|request| request.ends <= now);
        for id in expired.into_iter().rev() {
            let failure = self.failure(&self.requests[&id]);
            self.end(id, Err(failure), suspects, effects);
        }
        let patience = self.deadline / PATIENCE;
        for id in self.requests_where(|request| request.has_waited(patience, now)) {
            self.pass_over(id, suspects, effects);
        }
    }

    fn requests_where(&self, holds: impl Fn(&ClientRequest<H>) -> bool) -> Vec<u64> {
        let requests = self.requests.iter();
        let those = requests.filter(|(_, request)| holds(request));
        those.map(|(&id, _)| id).collect()
    }

    fn end(
        &mut self,
        id: u64,
        result: Result<Outcome, Failure>,
        suspects: &[NodeId],
        effects: &mut Vec<Effect<H>>,
    ) {
        let request = self.requests.remove(&id).expect("a request ends once");
        let handle = request.handle;
        effects.push(Effect::Answer { handle, result });
        if request.change.is_some()
            && let Some(next) = self.queues.leave(&request.key, id)
        {
            effects.push(self.attempt(next, suspects));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::version::Dot;
    use crate::protocol::{Verdict, Why};

    const NO_ONE: &[NodeId] = &[];

    fn origin() -> Origin<&'static str> {
        let ring = Arc::new(Ring::new([5554, 5556, 5558, 5560, 5562].map(NodeId), 3));
        let mut origin = Origin::new(
            NodeId(5554),
            ring,
            Strategy::Quorum,
            Duration::from_secs(2),
            1,
        );
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

    fn reply(
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
        let second = reply(&mut origin, &first[0], Answer::Silent);
        assert_eq!(forwarded(&second), (5556, dot));
        assert!(
            reply(&mut origin, &first[0], applied()).is_empty(),
            "a late answer is dropped"
        );
        let end = reply(&mut origin, &second[0], applied());
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

    /// What the origin does when so many milliseconds have passed.
    fn after(origin: &mut Origin<&'static str>, millis: u64) -> Vec<Effect<&'static str>> {
        let mut effects = Vec::new();
        origin.expire(Duration::from_millis(millis), NO_ONE, &mut effects);
        effects
    }

    #[test]
    fn a_coordinator_that_lets_a_request_wait_is_passed_over_by_it_and_skipped_by_later_ones() {
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
        let end = reply(&mut origin, &first[0], applied());
        assert!(matches!(
            end[..],
            [Effect::Answer {
                handle: "x",
                result: Ok(_)
            }]
        ));
        assert!(
            reply(&mut origin, &second[0], applied()).is_empty(),
            "answered once"
        );
        assert_eq!(forwarded(&read(&mut origin, 1002)).0, 5562);
    }

    #[test]
    fn a_coordinator_that_was_passed_over_and_did_nothing_is_tried_again_by_one_request() {
        let mut origin = origin();
        let first = submit(&mut origin, "x", put("1"));
        let second = after(&mut origin, 1000);
        let nothing = Answer::Outcome(Outcome::not_done(Why::Contended));
        assert!(reply(&mut origin, &first[0], nothing).is_empty());
        assert!(!reply(&mut origin, &second[0], applied()).is_empty());
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
            effects = reply(&mut origin, &effects[0], failed);
        }
        assert_eq!(code_at_the_deadline(&mut origin), "UNKNOWN");
    }

    #[test]
    fn a_request_that_waited_before_it_was_submitted_gives_its_coordinator_as_much_time_as_any_other()
     {
        let mut origin = origin();
        let (second, mut effects) = (Duration::from_secs(1), Vec::new());
        origin.expire(second, NO_ONE, &mut effects);
        let came = second / 10;
        origin.submit("x", "foo".into(), put("1"), came, NO_ONE, &mut effects);
        assert_eq!(forwarded(&effects).0, 5562);
        effects.clear();
        origin.expire(came + second, NO_ONE, &mut effects);
        assert!(effects.is_empty(), "{effects:?}");
        origin.expire(came + 2 * second, NO_ONE, &mut effects);
        assert!(matches!(effects[0], Effect::Answer { .. }), "{effects:?}");
    }

    #[test]
    fn one_write_of_a_key_is_in_flight_at_a_time_and_dots_grow() {
        let mut origin = origin();
        let first = submit(&mut origin, "x", put("1"));
        assert!(submit(&mut origin, "y", put("2")).is_empty());
        let end = reply(&mut origin, &first[0], applied());
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
                effects = reply(&mut origin, &effects[0], answer);
            }
            assert!(matches!(effects[..], [Effect::WakeLater { .. }]));
            assert_eq!(code_at_the_deadline(&mut origin), expected);
        }
    }

    #[test]
    fn a_write_for_which_there_is_no_capacity_is_busy_unless_it_may_have_been_done() {
        let full = Answer::Outcome(Outcome::not_done(Why::Full(NodeId(3))));
        let mut origin = origin();
        let sent = submit(&mut origin, "x", put("1"));
        let ended = reply(&mut origin, &sent[0], full.clone());
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
        let again = reply(&mut origin, &sent[0], Answer::Silent);
        reply(&mut origin, &again[0], full);
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
    fn of_two_writes_of_a_key_that_expire_at_once_the_one_that_waited_is_sent_to_nobody() {
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
        let mut origin = Origin::new(NodeId(1), ring, Strategy::Quorum, Duration::from_secs(2), 7);
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
        let end = reply(&mut origin, &effects[0], applied());
        assert_eq!(forwarded(&end[1..]).1.map(|dot| dot.sequence), Some(21));
    }
}
