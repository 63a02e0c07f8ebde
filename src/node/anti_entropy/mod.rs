//! Anti-entropy compares whole ranges with other replicas and pulls what this node missed.
//!
//! A range is *in doubt* at a node that may have missed writes of it. After a crash, a pause, a cut or dropped
//! messages between two nodes, the ranges that they share are in doubt at both as soon as they reach each
//! other again. All ranges of a node are in doubt when it starts, and when its disk did not keep up. A
//! restarted node still votes at once, since its log is whole: it pulls what it missed in the background.
//!
//! Ranges without a doubt are compared, too: one after each period, those shared with a peer that falls silent,
//! and the range of a state that this node refused because it had promised a higher ballot.
//!
//! Comparisons with N - W other replicas end a doubt. A state that was chosen without this node was accepted by
//! W of the N - 1 others, and so by at least one of any N - W of them.
//!
//! `GET @` does not rely on doubts, since nobody knows of a cut that has just begun. It waits for comparisons
//! of its own.

mod compare;

pub use compare::run;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::protocol::Quorums;
use crate::protocol::ring::{NodeId, Ring};
use crate::{lock, wait_for};

/// How often a waiting thread checks whether a state has arrived, or whether other replicas have to be asked.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Which ranges of this node are in doubt, and which comparisons are due.
pub struct AntiEntropy {
    node: NodeId,
    ring: Arc<Ring>,
    /// With how many other replicas a range must be compared to end a doubt.
    enough: usize,
    work: Mutex<Work>,
    /// A comparison is due or has ended.
    woken: Condvar,
}

#[derive(Default)]
struct Work {
    /// The comparisons that are due, in order and without repetition.
    queue: VecDeque<Comparison>,
    /// The comparison that is being made.
    running: Option<Comparison>,
    /// How many comparisons have begun. This is also the number of the last one.
    begun: u64,
    /// The number of the last time that each comparison was finished.
    finished: BTreeMap<Comparison, u64>,
    /// For each range that was in doubt, the value of `begun` when the last doubt arose. Only a comparison
    /// with a higher number can end that doubt.
    doubted: BTreeMap<usize, u64>,
    /// Replicas that did not finish their last comparison. The others come first, since a doubt may end
    /// without these.
    unfinished: BTreeSet<NodeId>,
}

/// A range, and the replica with which to compare it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Comparison {
    range: usize,
    with: NodeId,
}

impl AntiEntropy {
    /// All ranges of `node` are in doubt at first.
    pub fn new(node: NodeId, ring: Arc<Ring>, quorums: Quorums) -> AntiEntropy {
        let ranges = ring.ranges_of(node).into_iter();
        let work = Work {
            doubted: ranges.map(|range| (range, 0)).collect(),
            ..Work::default()
        };
        AntiEntropy {
            node,
            ring,
            enough: quorums.replicas - quorums.write,
            work: Mutex::new(work),
            woken: Condvar::new(),
        }
    }

    /// All ranges are in doubt, because the disk of this node did not keep up.
    pub fn doubt_all(&self) {
        self.doubt(self.ring.ranges_of(self.node));
    }

    /// The ranges shared with a peer are in doubt, because one did not reach the other for a while.
    pub fn doubt_peer(&self, peer: NodeId) {
        self.doubt(self.ranges_shared_with(peer));
    }

    fn doubt(&self, ranges: Vec<usize>) {
        let mut work = lock(&self.work);
        for range in ranges {
            let begun = work.begun;
            work.doubted.insert(range, begun);
            self.enqueue_others(&mut work, range, &[], usize::MAX);
        }
        self.woken.notify_all();
    }

    /// A peer has fallen silent. Its last messages may have reached only the other replicas, and it may never
    /// return to say so.
    fn peer_fell_silent(&self, peer: NodeId) {
        let mut work = lock(&self.work);
        for range in self.ranges_shared_with(peer) {
            self.enqueue_others(&mut work, range, &[peer], usize::MAX);
        }
    }

    /// This node refused a state of a key of this range. The others may have chosen it, and nobody sends it
    /// again.
    pub fn refused(&self, range: usize) {
        self.enqueue_others(&mut lock(&self.work), range, &[], usize::MAX);
        self.woken.notify_all();
    }

    /// Enqueues comparisons of a range with up to `most` other replicas. Those that finished their last
    /// comparison come first.
    fn enqueue_others(&self, work: &mut Work, range: usize, except: &[NodeId], most: usize) {
        let mut others = self.ring.replicas_of_range(range).to_vec();
        others.retain(|replica| *replica != self.node && !except.contains(replica));
        others.sort_by_key(|replica| work.unfinished.contains(replica));
        for with in others.into_iter().take(most) {
            work.enqueue(Comparison { range, with });
        }
    }

    /// The ranges of this node that a peer holds, too.
    pub fn ranges_shared_with(&self, peer: NodeId) -> Vec<usize> {
        let mut ranges = self.ring.ranges_of(self.node);
        ranges.retain(|&range| self.ring.replicas_of_range(range).contains(&peer));
        ranges
    }

    /// How many of this node's ranges are in doubt.
    pub fn doubted(&self) -> usize {
        let work = lock(&self.work);
        let in_doubt = |range: &&usize| work.doubts(**range, self.enough);
        work.doubted.keys().filter(in_doubt).count()
    }

    /// Whether a range of this node is in doubt.
    pub fn doubts(&self, range: usize) -> bool {
        lock(&self.work).doubts(range, self.enough)
    }

    /// Waits until every range of this node has been compared with enough other replicas since the call. This
    /// node then holds all that was chosen before the call. Returns the ranges that have not been
    /// compared so within `time`.
    ///
    /// All callers share the comparisons, so that they do not hold each other up.
    pub fn compare_all_within(
        &self,
        time: Duration,
        suspects: impl Fn() -> Vec<NodeId>,
    ) -> Vec<usize> {
        let until = Instant::now() + time;
        let begun = lock(&self.work).begun;
        loop {
            let suspects = suspects();
            let mut work = lock(&self.work);
            let mut missing = self.ring.ranges_of(self.node);
            missing.retain(|&range| work.compared_since(range, begun) < self.enough);
            let now = Instant::now();
            if missing.is_empty() || now >= until {
                return missing;
            }
            let queued = work.queue.len();
            missing.retain(|&range| !work.is_under_way(range));
            for range in missing {
                self.enqueue_others(&mut work, range, &suspects, self.enough);
            }
            // Without this condition the callers would wake each other again and again.
            if work.queue.len() > queued {
                self.woken.notify_all();
            }
            drop(wait_for(&self.woken, work, LOOK_AGAIN.min(until - now)));
        }
    }

    /// Wakes all threads that wait here, for the end of the node.
    pub fn wake(&self) {
        self.woken.notify_all();
    }

    /// Begins the next comparison. Returns none if none is due within this time.
    fn next(&self, within: Duration) -> Option<Comparison> {
        let mut work = lock(&self.work);
        if work.queue.is_empty() {
            work = wait_for(&self.woken, work, within);
        }
        work.begin_next()
    }

    /// Adds a comparison although nothing is in doubt.
    fn add(&self, comparison: Comparison) {
        lock(&self.work).enqueue(comparison);
    }

    /// The running comparison has ended. It is finished if the other replica answered to the end.
    fn ended(&self, finished: bool) {
        let mut work = lock(&self.work);
        let comparison = work.running.take().expect("a comparison has begun");
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
    /// Whether a range has not been compared with `enough` others since its last doubt.
    fn doubts(&self, range: usize, enough: usize) -> bool {
        let doubted = self.doubted.get(&range);
        doubted.is_some_and(|&begun| self.compared_since(range, begun) < enough)
    }

    /// With how many other replicas a range has been compared, counting comparisons with a higher number than
    /// `begun`.
    fn compared_since(&self, range: usize, begun: u64) -> usize {
        let later = |(comparison, number): &(&Comparison, &u64)| {
            comparison.range == range && **number > begun
        };
        self.finished.iter().filter(later).count()
    }

    /// Whether a comparison of this range is running or due.
    fn is_under_way(&self, range: usize) -> bool {
        let mut all = self.queue.iter().chain(&self.running);
        all.any(|comparison| comparison.range == range)
    }

    fn enqueue(&mut self, comparison: Comparison) {
        if !self.queue.contains(&comparison) {
            self.queue.push_back(comparison);
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
    fn of_three() -> (Arc<Ring>, AntiEntropy) {
        let ring = Arc::new(Ring::new([1, 2, 3].map(NodeId), 3));
        let quorums = Quorums {
            replicas: 3,
            read: 2,
            write: 2,
        };
        let work = AntiEntropy::new(NodeId(1), ring.clone(), quorums);
        (ring, work)
    }

    #[test]
    fn a_replica_that_did_not_finish_is_compared_with_when_no_other_is_left() {
        let (_, work) = of_three();
        work.doubt_all();
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
        work.doubt_all();
        assert_eq!(next().with, first.with);
    }

    #[test]
    fn a_comparison_that_began_before_a_doubt_does_not_end_it() {
        let (_, work) = of_three();
        work.doubt_all();
        let all = work.doubted();
        let begun = work.next(Duration::ZERO).expect("a comparison is due");
        work.doubt_all();
        work.ended(true);
        assert_eq!(work.doubted(), all);
        let due = std::iter::from_fn(|| work.next(Duration::ZERO));
        assert!(due.take(6).any(|due| due == begun), "it is made once more");
    }

    #[test]
    fn a_listing_waits_for_comparisons_that_began_after_it() {
        let (_, work) = of_three();
        work.doubt_all();
        let compare_all = |suspects: &[u32]| {
            let suspects = Vec::from_iter(suspects.iter().copied().map(NodeId));
            work.compare_all_within(Duration::from_secs(5), || suspects.clone())
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
        let missing = work.compare_all_within(Duration::from_millis(1), all_silent);
        assert_eq!(missing, ring.ranges_of(NodeId(1)));
        assert_eq!(work.next(Duration::ZERO), None, "nobody is asked in vain");
    }

    #[test]
    fn listings_that_wait_together_do_not_wake_each_other() {
        let (_, work) = of_three();
        let looks = AtomicUsize::new(0);
        let all_silent = || {
            looks.fetch_add(1, Ordering::Relaxed);
            vec![NodeId(2), NodeId(3)]
        };
        let time = 10 * LOOK_AGAIN;
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| work.compare_all_within(time, all_silent));
            }
        });
        // Each after each wait, when it begins, and at the end.
        assert!(looks.into_inner() <= 4 * (10 + 2));
    }
}
