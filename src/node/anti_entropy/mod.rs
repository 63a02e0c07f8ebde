//! Anti-entropy: compares whole ranges with other replicas and pulls what was missed.
//!
//! Who may have failed to reach a node says so as soon as it reaches it again: after a crash, a
//! pause or a cut, and after messages were dropped. Then both are *in doubt* about the ranges
//! that they share, and so is a node about all when it starts, and when its disk did not keep up. A
//! restarted node votes at once, since its log is whole; what it missed comes in the background.
//!
//! Besides, ranges are compared slowly all the time, and at once when a peer falls silent, or when
//! this node refused a state since it had promised a higher ballot.
//!
//! To end the doubt about a range it takes N - W other replicas: what was chosen without this node
//! was accepted by W of the N - 1 others, and so by at least one of any N - W of them.
//!
//! `GET @` does not rely on doubts, since of a cut that has just begun nobody knows: it waits for
//! comparisons of its own.

mod compare;

pub use compare::run;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::protocol::Quorums;
use crate::protocol::ring::{NodeId, Ring};
use crate::{lock, wait_for};

/// Who waits for what others do looks after this time whether it is there, or others have to be asked.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Which ranges are to be compared with whom.
pub struct AntiEntropy {
    node: NodeId,
    /// How many other replicas a range must have been compared with to be up to date.
    enough: usize,
    work: Mutex<Work>,
    woken: Condvar,
}

#[derive(Default)]
struct Work {
    /// Comparisons to make, each once, in order.
    queue: VecDeque<Comparison>,
    /// The one that is being made.
    running: Option<Comparison>,
    /// How many have begun: the number of the last.
    begun: u64,
    /// The number of the last one that came to its end.
    finished: BTreeMap<Comparison, u64>,
    /// Per range, how many had begun when it came into doubt the last time: they do not end it.
    doubted: BTreeMap<usize, u64>,
    /// Replicas that did not finish the last comparison: the others come first, since one that
    /// answers is enough to end a doubt.
    unfinished: BTreeSet<NodeId>,
}

/// A range, and the replica to compare it with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Comparison {
    range: usize,
    with: NodeId,
}

impl AntiEntropy {
    /// All ranges of `node` are in doubt at first.
    pub fn new(node: NodeId, ring: &Ring, quorums: Quorums) -> AntiEntropy {
        let ranges = ring.ranges_of(node).into_iter();
        let work = Work {
            doubted: ranges.map(|range| (range, 0)).collect(),
            ..Work::default()
        };
        AntiEntropy {
            node,
            enough: quorums.replicas - quorums.write,
            work: Mutex::new(work),
            woken: Condvar::new(),
        }
    }

    /// Any range may lack writes: the disk of this node did not keep up.
    pub fn doubt_all(&self, ring: &Ring) {
        self.doubt(ring, |_| true);
    }

    /// The ranges shared with a peer may lack writes: one did not reach the other for a while.
    pub fn doubt_peer(&self, ring: &Ring, peer: NodeId) {
        self.doubt(ring, |replicas| replicas.contains(&peer));
    }

    fn doubt(&self, ring: &Ring, concerned: impl Fn(&[NodeId]) -> bool) {
        let mut work = lock(&self.work);
        for range in ring.ranges_of(self.node) {
            let replicas = ring.replicas_of_range(range);
            if concerned(replicas) {
                let begun = work.begun;
                work.doubted.insert(range, begun);
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
        let work = lock(&self.work);
        let doubted = work.doubted.keys();
        doubted
            .filter(|range| work.doubts(**range, self.enough))
            .count()
    }

    /// Whether a range of this node may lack writes.
    pub fn doubts(&self, range: usize) -> bool {
        lock(&self.work).doubts(range, self.enough)
    }

    /// Has every range of this node compared with enough others from now on, and waits for that:
    /// then this node holds all that was chosen before. Returns the ranges of which that is not
    /// known after `time`.
    ///
    /// Those who wait share what is compared: any number of them cannot hold each other up.
    pub fn compare_all_within(
        &self,
        time: Duration,
        ring: &Ring,
        suspects: impl Fn() -> Vec<NodeId>,
    ) -> Vec<usize> {
        let until = Instant::now() + time;
        let begun = lock(&self.work).begun;
        loop {
            let but = [suspects(), vec![self.node]].concat();
            let mut work = lock(&self.work);
            let mut missing = ring.ranges_of(self.node);
            missing.retain(|&range| work.compared_since(range, begun) < self.enough);
            let now = Instant::now();
            if missing.is_empty() || now >= until {
                return missing;
            }
            let queued = work.queue.len();
            missing.retain(|&range| !work.is_under_way(range));
            for range in missing {
                work.enqueue_enough(range, ring.replicas_of_range(range), &but, self.enough);
            }
            // Not without a reason: those who wait would wake each other without an end.
            if work.queue.len() > queued {
                self.woken.notify_all();
            }
            drop(wait_for(&self.woken, work, LOOK_AGAIN.min(until - now)));
        }
    }

    pub fn wake(&self) {
        self.woken.notify_all();
    }

    /// Begins the next comparison that is due, if one is due in time.
    fn next(&self, within: Duration) -> Option<Comparison> {
        let mut work = lock(&self.work);
        if work.queue.is_empty() {
            work = wait_for(&self.woken, work, within);
        }
        work.begin_next()
    }

    /// A comparison that is to be made, though nothing is in doubt.
    fn add(&self, comparison: Comparison) {
        lock(&self.work).enqueue(comparison);
    }

    /// The comparison that was begun has ended; whether the other replica answered to the end.
    fn ended(&self, finished: bool) {
        let mut work = lock(&self.work);
        let Some(comparison) = work.running.take() else {
            return;
        };
        if finished {
            work.unfinished.remove(&comparison.with);
            let number = work.begun;
            work.finished.insert(comparison, number);
        } else {
            work.unfinished.insert(comparison.with);
        }
        self.woken.notify_all();
    }
}

impl Work {
    /// Whether a range came into doubt, and has not been compared with `enough` others since.
    fn doubts(&self, range: usize, enough: usize) -> bool {
        let doubted = self.doubted.get(&range);
        doubted.is_some_and(|&begun| self.compared_since(range, begun) < enough)
    }

    /// With how many others a range was compared from its beginning to its end after so many
    /// comparisons had begun.
    fn compared_since(&self, range: usize, begun: u64) -> usize {
        let finished = self.finished.iter();
        finished
            .filter(|(comparison, number)| comparison.range == range && **number > begun)
            .count()
    }

    /// Whether a range is being compared or about to be.
    fn is_under_way(&self, range: usize) -> bool {
        let mut all = self.queue.iter().chain(&self.running);
        all.any(|comparison| comparison.range == range)
    }

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

    /// As many of the replicas as are needed: first those that finished the last time.
    fn enqueue_enough(&mut self, range: usize, replicas: &[NodeId], but: &[NodeId], enough: usize) {
        let others = replicas.iter().filter(|replica| !but.contains(replica));
        let mut others = Vec::from_iter(others);
        others.sort_by_key(|replica| self.unfinished.contains(replica));
        for &&with in others.iter().take(enough) {
            self.enqueue(Comparison { range, with });
        }
    }

    fn begin_next(&mut self) -> Option<Comparison> {
        let finishes = |comparison: &Comparison| !self.unfinished.contains(&comparison.with);
        let first = self.queue.iter().position(finishes).unwrap_or(0);
        self.running = self.queue.remove(first);
        self.begun += u64::from(self.running.is_some());
        self.running
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

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
        let next = || work.next(Duration::ZERO).expect("a comparison is due");
        let first = next();
        work.ended(false);
        work.add(first);
        for _ in 0..3 {
            assert_ne!(next().with, first.with);
            work.ended(true);
        }
        assert_eq!(work.doubted(), 0, "one other replica is enough");
        // It has its turn, and once it finishes it is like the others again.
        assert_eq!(next().with, first.with);
        work.ended(true);
        work.doubt_all(&ring);
        assert_eq!(next().with, first.with);
    }

    #[test]
    fn a_comparison_that_began_before_a_doubt_does_not_end_it() {
        let (ring, work) = of_three();
        work.doubt_all(&ring);
        let all = work.doubted();
        let begun = work.next(Duration::ZERO).expect("a comparison is due");
        work.doubt_all(&ring);
        work.ended(true);
        assert_eq!(work.doubted(), all);
        let due = std::iter::from_fn(|| work.next(Duration::ZERO));
        assert!(due.take(6).any(|due| due == begun), "it is made once more");
    }

    #[test]
    fn a_listing_waits_for_comparisons_that_began_after_it() {
        let (ring, work) = of_three();
        work.doubt_all(&ring);
        let compare_all = |suspects: &[u32]| {
            let suspects = Vec::from_iter(suspects.iter().copied().map(NodeId));
            work.compare_all_within(Duration::from_secs(5), &ring, || suspects.clone())
        };
        while work.next(Duration::ZERO).is_some() {
            work.ended(true);
        }
        assert_eq!(work.doubted(), 0);
        thread::scope(|scope| {
            let listing = scope.spawn(|| compare_all(&[2]));
            let due: Vec<Comparison> = (0..3)
                .map(|_| {
                    assert!(!listing.is_finished());
                    let due = work.next(Duration::from_secs(5)).expect("it asks for one");
                    work.ended(true);
                    due
                })
                .collect();
            assert!(due.iter().all(|due| due.with == NodeId(3)), "{due:?}");
            assert_eq!(listing.join().unwrap(), [0; 0]);
        });
    }

    #[test]
    fn without_another_replica_no_range_is_known_to_be_complete() {
        let (ring, work) = of_three();
        let all_silent = || vec![NodeId(2), NodeId(3)];
        let missing = work.compare_all_within(Duration::from_millis(1), &ring, all_silent);
        assert_eq!(missing, ring.ranges_of(NodeId(1)));
        assert_eq!(work.next(Duration::ZERO), None, "nobody is asked in vain");
    }

    #[test]
    fn listings_that_wait_together_do_not_wake_each_other() {
        let (ring, work) = of_three();
        let looks = AtomicUsize::new(0);
        let all_silent = || {
            looks.fetch_add(1, Ordering::Relaxed);
            vec![NodeId(2), NodeId(3)]
        };
        let time = 10 * LOOK_AGAIN;
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| work.compare_all_within(time, &ring, all_silent));
            }
        });
        // Each after each wait, when it begins, and at the end.
        assert!(looks.into_inner() <= 4 * (10 + 2));
    }
}
