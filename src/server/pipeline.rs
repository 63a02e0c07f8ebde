//! The requests of one connection that are under way at the same time, and the order of their replies.
//!
//! The session's thread begins requests, and whichever thread ends one answers it. A reply leaves
//! once all earlier ones have left; until then it waits here, held in the clients' budget. A
//! request for a key waits for an earlier one for the same key, so it sees what that one did.

use std::collections::VecDeque;
use std::sync::Arc;

use super::text;
use crate::bytes::Key;
use crate::sync::{Condvar, Mutex};
use crate::transport::{Budget, Outgoing, Share};
use crate::{lock, wait};

/// Requests of one connection whose replies have not left.
pub const MOST: usize = 64;
/// The bytes that such requests may take together, replies that wait for earlier ones included. One
/// request alone may take more.
pub const MOST_HELD: usize = 4 << 20;
/// The length that is expected of a connection's first reply, in bytes: what a long value takes. So
/// a client that asks for many long values ahead is not given all of them at once.
pub const FIRST_REPLY: usize = 1 << 20;

/// The requests of one connection, oldest first.
pub struct Pipeline {
    replies: Arc<Outgoing>,
    state: Mutex<State>,
    woken: Condvar,
}

struct State {
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    first: u64,
    /// The part of the clients' budget that the slots take.
    share: Share,
    /// How many bytes the slots take.
    held: usize,
    /// How long the next reply is expected to be, in bytes: as long as the last one, or half of
    /// what was expected of that.
    expected: usize,
    /// What the session's thread waits for. Mostly the client sends its next request only after the
    /// reply, and nobody has to be woken.
    awaited: Option<Until>,
    /// Whether the session's thread waits for the client to send something.
    listening: bool,
    /// Whether no other request is to begin.
    last: bool,
}

enum Slot {
    UnderWay {
        key: Key,
        bytes: usize,
        beside: bool,
    },
    Answered(String),
}

/// What a request waits for before it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// The request with this number has been answered.
    Answered(u64),
    /// The replies of no more than so many requests have not left.
    Left(usize),
}

impl Until {
    /// All requests have been answered.
    pub const ALL: Until = Until::Left(0);
}

impl Pipeline {
    /// `replies` is the sending side of the client's connection.
    pub fn new(replies: Arc<Outgoing>, budget: &Arc<Budget>) -> Arc<Pipeline> {
        Arc::new(Pipeline {
            replies,
            state: Mutex::new(State {
                slots: VecDeque::new(),
                first: 0,
                share: Share::of(budget),
                held: 0,
                expected: FIRST_REPLY,
                awaited: None,
                listening: false,
                last: false,
            }),
            woken: Condvar::new(),
        })
    }

    /// Where replies go that are not those of a request here.
    pub fn replies(&self) -> &Arc<Outgoing> {
        &self.replies
    }

    /// Begins a request for a key, with a value of so many bytes. If it goes `beside` others of its kind, it
    /// does not wait for those about the same key. Returns the number to [answer](Pipeline::answer) it
    /// by.
    ///
    /// # Errors
    /// What to [wait](Pipeline::wait) for first.
    pub fn begin(&self, key: &Key, value: usize, beside: bool) -> Result<u64, Until> {
        let mut state = lock(&self.state);
        if state.last {
            return Err(Until::ALL);
        }
        let same = |slot: &Slot| match slot {
            Slot::UnderWay {
                key: other,
                beside: also,
                ..
            } => other == key && !(beside && *also),
            Slot::Answered(_) => false,
        };
        if let Some(place) = state.slots.iter().rposition(same) {
            return Err(Until::Answered(state.first + place as u64));
        }
        let count = state.slots.len();
        let mut bytes = key.len() + value;
        if count > 0 {
            bytes += state.expected;
            let held = state.held + bytes;
            if count >= MOST || held > MOST_HELD || !state.share.hold(held) {
                // Half of them: so the thread is woken once for several.
                return Err(Until::Left(count / 2));
            }
        }
        state.held += bytes;
        let key = key.clone();
        state.slots.push_back(Slot::UnderWay { key, bytes, beside });
        Ok(state.first + count as u64)
    }

    /// Ends the request with this number. Its reply leaves after all earlier ones.
    pub fn answer(&self, number: u64, reply: String) {
        let mut state = lock(&self.state);
        state.keep(number, reply);
        let mut queued = None;
        while let Some(Slot::Answered(_)) = state.slots.front() {
            let reply = state.take_first();
            queued = self.queue(&mut state, &reply).or(queued);
        }
        if state.awaited.is_some_and(|until| state.is_met(until)) {
            self.woken.notify_one();
        }
        let unheard = state.last && state.listening;
        drop(state);
        if let Some(queued) = queued {
            self.replies.flush(queued);
        }
        if unheard {
            self.replies.stop_receiving();
        }
    }

    /// Lets a reply leave; returns how many bytes are to be flushed.
    fn queue(&self, state: &mut State, reply: &str) -> Option<usize> {
        let queued = self.replies.append(reply.as_bytes());
        if queued.is_some() {
            return queued;
        }
        // More of the kind would cost as much, and be told the same.
        state.last = true;
        let busy = may_be_replaced(reply).then(no_room);
        let queued = busy.and_then(|busy| self.replies.append(busy.as_bytes()));
        if queued.is_none() {
            self.replies.close();
        }
        queued
    }

    /// Waits; false if no other request is to begin. Not within a [batch](crate::transport::batch), which
    /// may hold back what is waited for.
    pub fn wait(&self, until: Until) -> bool {
        let mut state = lock(&self.state);
        while !state.is_met(until) {
            state.awaited = Some(until);
            state = wait(&self.woken, state);
        }
        state.awaited = None;
        !state.last
    }

    /// Lets what is under way be the last that is done.
    pub fn end(&self) {
        let mut state = lock(&self.state);
        state.last = true;
        let listening = state.listening;
        drop(state);
        if listening {
            // Only where nothing comes: what comes later resets a connection that is shut down so.
            self.replies.stop_receiving();
        }
    }

    /// The session's thread is about to wait for the client; false if it need not, since no request
    /// is to begin any more.
    pub fn listen(&self) -> bool {
        let mut state = lock(&self.state);
        state.listening = !state.last;
        state.listening
    }

    /// The client has sent something, or has not for a while.
    pub fn heard(&self) {
        lock(&self.state).listening = false;
    }
}

impl State {
    /// Puts a reply where its request was.
    fn keep(&mut self, number: u64, reply: String) {
        let place = (number - self.first) as usize;
        self.expected = reply.len().max(self.expected / 2);
        let (length, replaceable) = (reply.len(), may_be_replaced(&reply));
        let slot = std::mem::replace(&mut self.slots[place], Slot::Answered(reply));
        let Slot::UnderWay { bytes, .. } = slot else {
            unreachable!("request {number} was answered before");
        };
        self.held = self.held - bytes + length;
        // The first leaves at once.
        let stays = place > 0;
        if stays && !self.share.hold(self.held) && replaceable {
            let busy = no_room();
            self.held = self.held - length + busy.len();
            self.slots[place] = Slot::Answered(busy);
            self.last = true;
        }
    }

    fn take_first(&mut self) -> String {
        let Some(Slot::Answered(reply)) = self.slots.pop_front() else {
            unreachable!("only what is answered leaves");
        };
        self.first += 1;
        self.held -= reply.len();
        // More than is held now may never have been: of a request alone.
        self.share.hold(self.held);
        reply
    }

    fn is_met(&self, until: Until) -> bool {
        match until {
            Until::Left(most) => self.slots.len() <= most,
            Until::Answered(number) => {
                let place = number.checked_sub(self.first);
                let slot = place.and_then(|place| self.slots.get(place as usize));
                !matches!(slot, Some(Slot::UnderWay { .. }))
            }
        }
    }
}

/// Whether `BUSY`, which says that nothing was done, may stand for a reply: only for that of a read, and what
/// else a read is answered is short.
fn may_be_replaced(reply: &str) -> bool {
    reply.starts_with("VALUE ")
}

fn no_room() -> String {
    text::failure(&text::busy("are sent long replies"))
}
