//! Admission control for large values: an origin lets only so many bytes of them be written at a time.
//!
//! A large value takes each replica's threads, connections and disk for long, and what comes after
//! it waits. What is over the bound waits at its origin, first come, first served, before anything
//! is proposed.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::Node;
use super::drive::Ended;
use crate::bytes::{Bytes, LARGE, MAX_VALUE};
use crate::error::Failure;
use crate::protocol::Change;
use crate::{lock, wait_for};

/// How many bytes of large values are under way at a time: the largest one, and more would only wait
/// for each other.
pub const AT_A_TIME: usize = MAX_VALUE;

/// Large values of so many bytes together are under way at a time.
pub struct Admission {
    state: Mutex<State>,
    left: Condvar,
}

struct State {
    /// How many bytes more may be under way.
    free: usize,
    waiting: VecDeque<u64>,
    last: u64,
}

/// A large value that is under way: until this is dropped.
pub struct Admitted {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Admission {
    /// Capacity for `limit` bytes, which no single value may exceed.
    pub fn new(limit: usize) -> Arc<Admission> {
        Arc::new(Admission {
            state: Mutex::new(State {
                free: limit,
                waiting: VecDeque::new(),
                last: 0,
            }),
            left: Condvar::new(),
        })
    }

    /// Waits for the turn of a value of so many bytes; none if that does not come within `patience`.
    pub fn admit(self: &Arc<Self>, bytes: usize, patience: Duration) -> Option<Admitted> {
        let bytes = bytes.min(AT_A_TIME);
        let until = Instant::now() + patience;
        let mut state = lock(&self.state);
        state.last += 1;
        let own = state.last;
        state.waiting.push_back(own);
        let mut left = patience;
        while !state.is_turn(own, bytes) && !left.is_zero() {
            state = wait_for(&self.left, state, left);
            left = until.saturating_duration_since(Instant::now());
        }
        let admitted = state.is_turn(own, bytes);
        if admitted {
            state.free -= bytes;
        }
        state.waiting.retain(|waiting| *waiting != own);
        drop(state);
        // The next may fit in beside it.
        self.left.notify_all();
        admitted.then(|| Admitted {
            admission: self.clone(),
            bytes,
        })
    }
}

impl Node {
    /// Lets a client's request wait for its turn if it has a large value. If that does not come within half
    /// of the time that a request may take, the request ends here, and none is returned.
    pub(super) fn admit(&self, change: Option<&Change>, ended: Ended) -> Option<Ended> {
        let bytes = change.and_then(Change::value).map_or(0, Bytes::len);
        if bytes <= LARGE {
            return Some(ended);
        }
        let patience = self.config.request_deadline() / 2;
        let Some(admitted) = self.admission.admit(bytes, patience) else {
            let text = format!(
                "clients of node {} write too many large values at once; nothing was changed: try again \
                 later",
                self.id
            );
            ended(Err(Failure::Busy(text)));
            return None;
        };
        Some(Box::new(move |result| {
            drop(admitted);
            ended(result);
        }))
    }
}

impl State {
    fn is_turn(&self, waiting: u64, bytes: usize) -> bool {
        self.waiting.front() == Some(&waiting) && self.free >= bytes
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        lock(&self.admission.state).free += self.bytes;
        self.admission.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    /// Waits until one waits.
    fn await_waiting(admission: &Admission) {
        while lock(&admission.state).waiting.is_empty() {
            thread::yield_now();
        }
    }

    #[test]
    fn what_fits_is_admitted_and_the_rest_as_others_leave() {
        let admission = Admission::new(10);
        let (six, four) = (admission.admit(6, LONG), admission.admit(4, LONG));
        assert!(six.is_some() && four.is_some());
        assert!(admission.admit(1, Duration::ZERO).is_none());
        thread::scope(|scope| {
            let next = scope.spawn(|| admission.admit(6, LONG));
            await_waiting(&admission);
            drop(four);
            await_waiting(&admission);
            drop(six);
            assert!(next.join().unwrap().is_some());
        });
        assert!(admission.admit(10, Duration::ZERO).is_some());
    }

    #[test]
    fn a_larger_value_is_not_overtaken_by_smaller_ones_but_keeps_none_out_once_it_gives_up() {
        let admission = Admission::new(10);
        let one = admission.admit(1, LONG);
        thread::scope(|scope| {
            let large = scope.spawn(|| admission.admit(10, LONG));
            await_waiting(&admission);
            assert!(admission.admit(1, Duration::ZERO).is_none());
            drop(one);
            assert!(large.join().unwrap().is_some());
        });
        let one = admission.admit(1, LONG);
        assert!(admission.admit(10, Duration::from_millis(20)).is_none());
        assert!(admission.admit(1, Duration::ZERO).is_some() && one.is_some());
    }
}
