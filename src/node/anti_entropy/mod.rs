//! Anti-entropy: compares whole ranges with other replicas and pulls what was missed.
//!
//! It runs after a restart, after a pause of this process, after its disk did not keep up, whenever
//! this node hears a peer again after a silence or a peer hears this node again, after a peer dropped
//! messages to this node, and slowly all the time. A restarted node votes at once, since its log
//! is whole; what it missed comes in the background. Until then it is *in doubt* about the ranges
//! concerned, and `GET @` waits. A peer that falls silent is no doubt, but a reason to compare with
//! the others, and so is a state that this node refused since it had promised a higher ballot.
//!
//! To end the doubt about a range it takes N - W other replicas: what was chosen without this node
//! was accepted by W of the N - 1 others, and so by at least one of any N - W of them.

mod compare;

pub use compare::run;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::register::Quorums;
use crate::ring::{NodeId, Ring};
use crate::{lock, wait_for};

/// Which ranges are to be compared with whom.
pub struct AntiEntropy {
    node: NodeId,
    /// How many other replicas a range must have been compared with to be up to date.
    enough: usize,
    work: Mutex<Work>,
    woken: Condvar,
}

struct Work {
    /// Comparisons to make, each once, in order.
    queue: VecDeque<Comparison>,
    /// Ranges that may lack writes, and with whom each was compared since the doubt came up.
    doubted: BTreeMap<usize, BTreeSet<NodeId>>,
    /// Replicas that did not finish the last comparison: the others come first, since one that
    /// answers is enough to end a doubt.
    unfinished: BTreeSet<NodeId>,
    /// Counts the doubts: a comparison that began before a doubt does not end it.
    doubts: u64,
    last_tick: Instant,
}

/// A range, and the replica to compare it with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Comparison {
    range: usize,
    with: NodeId,
}

impl AntiEntropy {
    /// All ranges of `node` are in doubt at first.
    pub fn new(node: NodeId, ring: &Ring, quorums: Quorums) -> AntiEntropy {
        let doubted = ring
            .ranges_of(node)
            .into_iter()
            .map(|range| (range, BTreeSet::new()))
            .collect();
        let queue = VecDeque::new();
        let work = Work {
            queue,
            doubted,
            unfinished: BTreeSet::new(),
            doubts: 0,
            last_tick: Instant::now(),
        };
        let enough = quorums.replicas - quorums.write;
        AntiEntropy {
            node,
            enough,
            work: Mutex::new(work),
            woken: Condvar::new(),
        }
    }

    /// Any range may lack writes: this process did not run for a while, or its disk not keep up.
    pub fn doubt_all(&self, ring: &Ring) {
        self.doubt(ring, |_| true);
    }

    /// The ranges shared with a peer may lack writes: one did not hear the
    /// other for a while, or not all that it said.
    pub fn doubt_peer(&self, ring: &Ring, peer: NodeId) {
        self.doubt(ring, |replicas| replicas.contains(&peer));
    }

    fn doubt(&self, ring: &Ring, concerned: impl Fn(&[NodeId]) -> bool) {
        let mut work = lock(&self.work);
        let doubts = work.doubts + 1;
        for range in ring.ranges_of(self.node) {
            let replicas = ring.replicas_of_range(range);
            if concerned(replicas) {
                work.doubts = doubts;
                work.doubted.insert(range, BTreeSet::new());
                work.enqueue_all(range, replicas, &[self.node]);
            }
        }
        self.woken.notify_all();
    }

    /// A peer is silent: what it sent last may have reached the other replicas alone, and it may
    /// never come back to say so.
    fn peer_fell_silent(&self, ring: &Ring, peer: NodeId) {
        let mut work = lock(&self.work);
        for range in ring.ranges_of(self.node) {
            let replicas = ring.replicas_of_range(range);
            if replicas.contains(&peer) {
                work.enqueue_all(range, replicas, &[self.node, peer]);
            }
        }
    }

    /// A state for a key of this range was refused. It may be chosen all the same, by the others, and
    /// is not sent again.
    pub fn refused(&self, ring: &Ring, range: usize) {
        let replicas = ring.replicas_of_range(range);
        lock(&self.work).enqueue_all(range, replicas, &[self.node]);
        self.woken.notify_all();
    }

    /// How many of this node's ranges may lack writes.
    pub fn doubted(&self) -> usize {
        lock(&self.work).doubted.len()
    }

    /// Waits until no range is in doubt; false if that takes longer than `time`.
    ///
    /// A process that has just been continued after a pause does not know of it before the
    /// timer's next tick, so a tick that is overdue is a doubt as well.
    pub fn settled_within(&self, time: Duration, longest_tick: Duration) -> bool {
        let until = Instant::now() + time;
        let mut work = lock(&self.work);
        loop {
            let now = Instant::now();
            let overdue = now.saturating_duration_since(work.last_tick) > longest_tick;
            if work.doubted.is_empty() && !overdue {
                return true;
            }
            if now >= until {
                return false;
            }
            let tick = Duration::from_millis(10);
            work = wait_for(&self.woken, work, tick.min(until - now));
        }
    }

    /// The timer ran at that time.
    pub fn ticked(&self, now: Instant) {
        lock(&self.work).last_tick = now;
    }

    pub fn wake(&self) {
        self.woken.notify_all();
    }

    /// The next comparison that is due, if one is due in time, and the number of doubts so far.
    fn next(&self, within: Duration) -> (Option<Comparison>, u64) {
        let mut work = lock(&self.work);
        if work.queue.is_empty() {
            work = wait_for(&self.woken, work, within);
        }
        (work.take_next(), work.doubts)
    }

    /// A comparison that is to be made, though nothing is in doubt.
    fn add(&self, comparison: Comparison) {
        lock(&self.work).enqueue(comparison);
    }

    /// The other replica did not answer to the end.
    fn not_finished(&self, comparison: Comparison) {
        lock(&self.work).unfinished.insert(comparison.with);
    }

    /// A comparison that began when there had been so many doubts is done.
    fn compared(&self, done: Comparison, doubts: u64) {
        let mut work = lock(&self.work);
        work.unfinished.remove(&done.with);
        if work.doubts != doubts {
            // It may have looked before what is now in doubt happened: once more.
            return work.enqueue(done);
        }
        if let Some(compared) = work.doubted.get_mut(&done.range) {
            compared.insert(done.with);
            if compared.len() >= self.enough {
                work.doubted.remove(&done.range);
            }
        }
        self.woken.notify_all();
    }
}

impl Work {
    fn enqueue(&mut self, comparison: Comparison) {
        if !self.queue.contains(&comparison) {
            self.queue.push_back(comparison);
        }
    }

    fn enqueue_all(&mut self, range: usize, replicas: &[NodeId], but: &[NodeId]) {
        for &with in replicas.iter().filter(|replica| !but.contains(replica)) {
            self.enqueue(Comparison { range, with });
        }
    }

    fn take_next(&mut self) -> Option<Comparison> {
        let finishes = |comparison: &Comparison| !self.unfinished.contains(&comparison.with);
        let first = self.queue.iter().position(finishes).unwrap_or(0);
        self.queue.remove(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The work of one of three replicas.
    fn of_three() -> (Ring, AntiEntropy) {
        let ring = Ring::new([1, 2, 3].map(NodeId), 3);
        let quorums = Quorums {
            replicas: 3,
            read: 2,
            write: 2,
        };
        let work = AntiEntropy::new(NodeId(1), &ring, quorums);
        (ring, work)
    }

    #[test]
    fn a_replica_that_did_not_finish_is_compared_with_when_no_other_is_left() {
        let (ring, work) = of_three();
        work.doubt_all(&ring);
        let next = || {
            let (due, doubts) = work.next(Duration::ZERO);
            (due.expect("a comparison is due"), doubts)
        };
        let (first, _) = next();
        work.not_finished(first);
        work.add(first);
        for _ in 0..3 {
            let (due, doubts) = next();
            assert_ne!(due.with, first.with);
            work.compared(due, doubts);
        }
        assert_eq!(work.doubted(), 0, "one other replica is enough");
        // It has its turn, and once it finishes it is like the others again.
        let (due, doubts) = next();
        assert_eq!(due.with, first.with);
        work.compared(due, doubts);
        work.doubt_all(&ring);
        assert_eq!(next().0.with, first.with);
    }

    #[test]
    fn a_comparison_that_began_before_a_doubt_is_made_once_more() {
        let (ring, work) = of_three();
        work.doubt_all(&ring);
        let all = work.doubted();
        let (due, doubts) = work.next(Duration::ZERO);
        let due = due.expect("a comparison is due");
        work.doubt_all(&ring);
        work.compared(due, doubts);
        assert_eq!(work.doubted(), all);
    }
}
