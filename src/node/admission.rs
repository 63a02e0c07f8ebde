//! Admission control for large values: an origin bounds how many bytes of them are written at a time.
//!
//! A large value occupies each replica's threads, connections and disk for long, and all other requests wait
//! behind it. So a value that exceeds the bound waits at its origin, before anything is proposed. The order
//! is first come, first served.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::Node;
use super::drive::OnResult;
use crate::bytes::{Bytes, LARGE, MAX_VALUE};
use crate::error::Failure;
use crate::lock;
use crate::protocol::Change;

/// How many bytes of large values are under way at a time. The largest value fits. With a higher bound, large
/// values would only wait for each other at the replicas.
pub const AT_A_TIME: usize = MAX_VALUE;

/// Bounds the bytes of large values that are under way together.
pub struct Admission {
    limit: usize,
    queue: Mutex<AdmissionQueue>,
    /// A value has left, or has given up.
    changed: Condvar,
}

struct AdmissionQueue {
    /// How many more bytes may be under way.
    free: usize,
    /// The numbers of the values that wait, in order.
    waiting: VecDeque<u64>,
    last: u64,
}

/// A large value is under way until this is dropped.
pub struct Admitted {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Admission {
    /// Admits `limit` bytes at a time. A larger value is admitted alone.
    pub fn new(limit: usize) -> Arc<Admission> {
        Arc::new(Admission {
            limit,
            queue: Mutex::new(AdmissionQueue {
                free: limit,
                waiting: VecDeque::new(),
                last: 0,
            }),
            changed: Condvar::new(),
        })
    }

    /// Waits for the turn of a value of so many bytes. Returns none if it does not come within `patience`.
    pub fn admit(self: &Arc<Self>, bytes: usize, patience: Duration) -> Option<Admitted> {
        let bytes = bytes.min(self.limit);
        let mut queue = lock(&self.queue);
        queue.last += 1;
        let own = queue.last;
        queue.waiting.push_back(own);
        let waits = |queue: &mut AdmissionQueue| !queue.is_turn(own, bytes);
        let waited = self.changed.wait_timeout_while(queue, patience, waits);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let admitted = queue.is_turn(own, bytes);
        if admitted {
            queue.free -= bytes;
        }
        queue.waiting.retain(|waiting| *waiting != own);
        drop(queue);
        // The next value may fit in beside this one.
        self.changed.notify_all();
        admitted.then(|| Admitted {
            admission: self.clone(),
            bytes,
        })
    }
}

impl Node {
    /// Lets a client's request with a large value wait for its turn. If the turn does not come within half of
    /// the request deadline, the request ends here, and none is returned.
    pub(super) fn admit(&self, change: Option<&Change>, on_result: OnResult) -> Option<OnResult> {
        let bytes = change.and_then(Change::value).map_or(0, Bytes::len);
        if bytes <= LARGE {
            return Some(on_result);
        }
        let patience = self.config.request_deadline() / 2;
        let Some(admitted) = self.admission.admit(bytes, patience) else {
            let text = format!(
                "clients of node {} write too many large values at once; nothing was changed: try again \
                 later",
                self.id
            );
            on_result(Err(Failure::Busy(text)));
            return None;
        };
        Some(Box::new(move |result| {
            drop(admitted);
            on_result(result);
        }))
    }
}

impl AdmissionQueue {
    fn is_turn(&self, waiting: u64, bytes: usize) -> bool {
        self.waiting.front() == Some(&waiting) && self.free >= bytes
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        lock(&self.admission.queue).free += self.bytes;
        self.admission.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    /// Waits until a value waits.
    fn await_waiting(admission: &Admission) {
        while lock(&admission.queue).waiting.is_empty() {
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
        // One that exceeds the limit takes all of it.
        assert!(admission.admit(11, Duration::ZERO).is_some());
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
