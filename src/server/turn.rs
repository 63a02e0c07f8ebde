//! The order of a connection's replies: one request is under way at a time, and one is the last.

use std::sync::{Condvar, Mutex};

use crate::{lock, wait};

/// Whether a request of the connection is under way.
#[derive(Default)]
pub struct Turn {
    state: Mutex<TurnState>,
    given: Condvar,
}

#[derive(Default)]
struct TurnState {
    taken: bool,
    /// Whether the session's thread waits. Mostly the client sends its next request only after the
    /// reply, and nobody has to be woken.
    awaited: bool,
    /// Whether the session's thread waits for the client to send something.
    listening: bool,
    /// Whether none is to begin any more.
    last: bool,
}

impl Turn {
    /// A request begins.
    pub fn take(&self) {
        lock(&self.state).taken = true;
    }

    /// It has ended, and its reply is on its way.
    pub fn give(&self) {
        let mut state = lock(&self.state);
        state.taken = false;
        if state.awaited {
            self.given.notify_one();
        }
    }

    /// None is to begin any more. Returns whether the session's thread waits for the client to send
    /// something, and has to be woken.
    pub fn end(&self) -> bool {
        let mut state = lock(&self.state);
        state.last = true;
        state.listening
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

    /// Waits until none is under way; false if no other is to begin.
    pub fn wait(&self) -> bool {
        let mut state = lock(&self.state);
        state.awaited = true;
        while state.taken {
            state = wait(&self.given, state);
        }
        state.awaited = false;
        !state.last
    }
}
