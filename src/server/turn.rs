//! The order of a connection's replies: one request is under way at a time.

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

    /// It was the last: none is to begin after it.
    pub fn give_up(&self) {
        lock(&self.state).last = true;
        self.give();
    }

    /// Waits until none is under way; false if that was the last.
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
