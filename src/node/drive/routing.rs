//! Carries out what the origin wants: forwards requests, and answers clients.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::bounded;

use crate::bytes::{Bytes, Key, LARGE};
use crate::error::Failure;
use crate::lock;
use crate::node::{Ended, Node, ReplyTo, SEQUENCE_BLOCK};
use crate::protocol::origin::{self, Action, Effect};
use crate::protocol::ring::NodeId;
use crate::protocol::{Operation, Outcome, Why};
use crate::transport;
use crate::transport::link::Answer;
use crate::transport::{Reply, Request};

/// How long a origin waits before it tries all replicas once more, in milliseconds.
const NEXT_PASS: std::ops::Range<u64> = 10..30;

impl Node {
    /// Starts a client's request for one key; `ended` runs exactly once, on any thread. A large value
    /// waits here for its turn, for half of the time that a request may take.
    pub fn submit(self: &Arc<Node>, key: Key, action: Action, mut ended: Ended) {
        let came = self.began.elapsed();
        let bytes = match &action {
            Action::Change(change) => change.value().map_or(0, Bytes::len),
            Action::Get => 0,
        };
        if bytes > LARGE {
            let Some(admitted) = self
                .admission
                .admit(bytes, self.config.request_deadline() / 2)
            else {
                let text = "too many large values are written at once; try again later";
                return ended(Err(Failure::Busy(text.to_owned())));
            };
            ended = Box::new(move |result| {
                drop(admitted);
                ended(result);
            });
        }
        let suspects = self.suspects();
        let mut effects = Vec::new();
        let mut origin = lock(&self.origin);
        origin.submit(ended, key, action, came, &suspects, &mut effects);
        let running_out = origin.sequences_left() < SEQUENCE_BLOCK / 2;
        drop(origin);
        if running_out && !self.reserving.swap(true, Ordering::Relaxed) {
            let node = self.clone();
            self.reserve_sequences(0, move || node.reserving.store(false, Ordering::Relaxed));
        }
        transport::batch(|| self.route(effects));
    }

    /// Requests of this node's clients that are under way.
    pub fn in_flight(&self) -> usize {
        lock(&self.origin).in_flight()
    }

    /// The nodes that are silent just now.
    pub fn suspects(&self) -> Vec<NodeId> {
        self.links
            .values()
            .filter(|link| link.suspect())
            .map(|link| link.peer())
            .collect()
    }

    /// Gives this node's writes their first numbers, all above `used`, once that is durable.
    pub(in crate::node) fn number_writes(self: &Arc<Node>, used: u64) {
        let (reserved, done) = bounded(1);
        let tell = move || {
            let _ = reserved.send(());
        };
        self.reserve_sequences(used, tell);
        // The commit thread ends the process if it cannot.
        let _ = done.recv();
        self.reserving.store(false, Ordering::Relaxed);
    }

    fn reserve_sequences(self: &Arc<Node>, used: u64, then: impl FnOnce() + Send + 'static) {
        let upto = self.store.sequences().max(used) + SEQUENCE_BLOCK;
        let node = self.clone();
        let reserved = move || {
            lock(&node.origin).reserved(used, upto);
            then();
        };
        self.store.reserve(upto, Box::new(reserved));
    }

    pub(in crate::node) fn expire_requests(self: &Arc<Node>) {
        let mut effects = Vec::new();
        lock(&self.origin).expire(self.began.elapsed(), &self.suspects(), &mut effects);
        self.route(effects);
    }

    fn route(self: &Arc<Node>, effects: Vec<Effect<Ended>>) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Forward {
                    to,
                    ticket,
                    key,
                    operation,
                } => {
                    if to != self.id {
                        self.forward(to, ticket, key, operation);
                    } else if let Some(outcome) = self.turn_away(&key, &operation) {
                        // With the write that ends so the next one of its key begins, which may end
                        // just so: one after the other, and not one within the other.
                        let (answer, mut more) = (origin::Answer::Outcome(outcome), Vec::new());
                        lock(&self.origin).answer(ticket, to, answer, &self.suspects(), &mut more);
                        effects.extend(more);
                    } else {
                        self.coordinate(ReplyTo::Origin(ticket), key, operation, None);
                    }
                }
                Effect::Answer { handle, result } => handle(result),
                Effect::WakeLater { request } => {
                    let delay = Duration::from_millis(fastrand::u64(NEXT_PASS));
                    let node = self.clone();
                    self.later(delay, move || {
                        let mut effects = Vec::new();
                        lock(&node.origin).wake(request, &node.suspects(), &mut effects);
                        node.route(effects);
                    });
                }
            }
        }
    }

    fn forward(
        self: &Arc<Node>,
        to: NodeId,
        ticket: origin::Ticket,
        key: Key,
        operation: Operation,
    ) {
        let node = self.clone();
        let seen = match operation {
            Operation::Get => self.seen(&key),
            Operation::Write { .. } | Operation::Refresh => None,
        };
        let request = Request::Coordinate {
            key,
            operation,
            seen,
        };
        self.links[&to].ask(request, move |answer| {
            let answer = match answer {
                Answer::Reply(Reply::Outcome(outcome)) => origin::Answer::Outcome(outcome),
                Answer::Reply(Reply::Abstain) => {
                    origin::Answer::Outcome(Outcome::not_done(Why::Recovering))
                }
                Answer::Reply(_) | Answer::Silent => origin::Answer::Silent,
                Answer::Unreached => origin::Answer::Unreached,
            };
            node.answered(ticket, to, answer);
        });
    }

    pub(super) fn answered(
        self: &Arc<Node>,
        ticket: origin::Ticket,
        from: NodeId,
        answer: origin::Answer,
    ) {
        let mut effects = Vec::new();
        lock(&self.origin).answer(ticket, from, answer, &self.suspects(), &mut effects);
        self.route(effects);
    }
}
