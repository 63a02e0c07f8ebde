//! Anti-entropy: compares whole ranges with other replicas and pulls what was missed.
//!
//! It runs after a restart, after a pause of this process, whenever a peer is heard again after a
//! silence, and slowly all the time. A restarted node votes at once, since its log is whole; what
//! it missed comes in the background. Until then it is *in doubt* about the ranges concerned, and
//! `GET @` waits.
//!
//! To end the doubt about a range it takes N - W other replicas: what was chosen without this node
//! was accepted by W of the N - 1 others, and so by at least one of any N - W of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use log::{debug, info};

use super::{Node, Origin};
use crate::bytes::Key;
use crate::lock;
use crate::net;
use crate::peer::link::Answer;
use crate::peer::{Reply, Request};
use crate::register::{Accepted, Operation, Quorums, VoteReply, VoteRequest};
use crate::ring::{NodeId, Ring};
use crate::storage::{Scan, Urgency};

/// States that are asked for at a time.
const PULLS_AT_A_TIME: usize = 64;
/// The wait after a comparison that the other replica did not finish.
const TRY_AGAIN: Duration = Duration::from_millis(30);

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
    /// Counts the doubts: a comparison that began before a doubt does not end it.
    doubts: u64,
    last_tick: Instant,
}

/// A range, and the replica to compare it with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Comparison {
    arc: usize,
    with: NodeId,
}

impl AntiEntropy {
    /// All ranges of `node` are in doubt at first.
    pub fn new(node: NodeId, ring: &Ring, quorums: Quorums) -> AntiEntropy {
        let doubted = ring
            .arcs_of(node)
            .into_iter()
            .map(|arc| (arc, BTreeSet::new()))
            .collect();
        let queue = VecDeque::new();
        let work = Work {
            queue,
            doubted,
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

    /// Any range may lack writes: this process did not run for a while.
    pub fn doubt_all(&self, ring: &Ring) {
        self.doubt(ring, |_| true);
    }

    /// The ranges shared with a peer may lack writes: it was not heard for a while.
    pub fn doubt_peer(&self, ring: &Ring, peer: NodeId) {
        self.doubt(ring, |replicas| replicas.contains(&peer));
    }

    fn doubt(&self, ring: &Ring, concerned: impl Fn(&[NodeId]) -> bool) {
        let mut work = lock(&self.work);
        work.doubts += 1;
        for arc in ring.arcs_of(self.node) {
            let replicas = ring.replicas_of_arc(arc);
            if concerned(replicas) {
                work.doubted.insert(arc, BTreeSet::new());
                for &with in replicas.iter().filter(|replica| **replica != self.node) {
                    work.enqueue(Comparison { arc, with });
                }
            }
        }
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
            let wait = (until - now).min(Duration::from_millis(10));
            work = match self.woken.wait_timeout(work, wait) {
                Ok((work, _)) => work,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// The timer runs.
    pub fn ticked(&self) {
        lock(&self.work).last_tick = Instant::now();
    }

    pub fn wake(&self) {
        self.woken.notify_all();
    }

    /// The next comparison that is due, if one is due in time, and the number of doubts so far.
    fn next(&self, within: Duration) -> (Option<Comparison>, u64) {
        let work = lock(&self.work);
        let mut work = match self
            .woken
            .wait_timeout_while(work, within, |w| w.queue.is_empty())
        {
            Ok((work, _)) => work,
            Err(poisoned) => poisoned.into_inner().0,
        };
        (work.queue.pop_front(), work.doubts)
    }

    /// A comparison that began when there had been so many doubts is done.
    fn compared(&self, done: Comparison, doubts: u64) {
        let mut work = lock(&self.work);
        if work.doubts != doubts {
            // It may have looked before what is now in doubt happened: once more.
            return work.enqueue(done);
        }
        if let Some(compared) = work.doubted.get_mut(&done.arc) {
            compared.insert(done.with);
            if compared.len() >= self.enough {
                work.doubted.remove(&done.arc);
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
}

/// The thread: compares what is due, and one range with one replica after each period.
pub fn run(node: &Arc<Node>) {
    let mut round = all_comparisons(node).into_iter().cycle();
    let period = Duration::from_millis(node.config.anti_entropy_ms);
    let mut last = Instant::now();
    while !node.ending() {
        let (mut due, doubts) = node.anti_entropy.next(Duration::from_millis(100));
        if due.is_none() && last.elapsed() >= period {
            last = Instant::now();
            due = round.next();
        }
        let Some(comparison) = due else { continue };
        match compare(node, comparison) {
            Some(pulled) => {
                node.stats.compared.add(1);
                node.anti_entropy.compared(comparison, doubts);
                if pulled > 0 {
                    let Comparison { arc, with } = comparison;
                    let owner = node.ring.replicas_of_arc(arc)[0];
                    info!(
                        "{}: pulled {pulled} keys of {owner}'s range from {with}",
                        node.id
                    );
                }
            }
            None => {
                debug!("{}: {comparison:?} was not finished", node.id);
                // A silent peer is compared with when it is heard again; one that is busy with
                // its own start, a little later.
                if !node.suspects().contains(&comparison.with) {
                    lock(&node.anti_entropy.work).enqueue(comparison);
                    node.pause(TRY_AGAIN);
                }
            }
        }
    }
}

fn all_comparisons(node: &Node) -> Vec<Comparison> {
    let mut all = Vec::new();
    for arc in node.ring.arcs_of(node.id) {
        let others = node
            .ring
            .replicas_of_arc(arc)
            .iter()
            .filter(|other| **other != node.id);
        all.extend(others.map(|&with| Comparison { arc, with }));
    }
    all
}

/// Pulls what the other replica has newer; `None` if it did not answer to the end.
fn compare(node: &Arc<Node>, Comparison { arc, with }: Comparison) -> Option<u64> {
    let Some(Reply::Digests(theirs)) = node.ask_and_wait(with, Request::Digests { arc }) else {
        return None;
    };
    let own = node.store.digests(arc);
    let differing: Vec<u16> = (0..)
        .zip(own.iter().zip(&theirs))
        .filter(|(_, (a, b))| a != b)
        .map(|(i, _)| i)
        .collect();
    if differing.is_empty() {
        return Some(0);
    }
    let mut scan = Scan {
        arc,
        buckets: Some(differing),
        after: None,
        states: false,
    };
    let mut pulled = 0;
    loop {
        let Some(Reply::Page(page)) = node.ask_and_wait(with, Request::Scan(scan.clone())) else {
            return None;
        };
        let newer: Vec<Key> = page
            .entries
            .into_iter()
            .filter(|entry| entry.accepted > node.store.accepted(&entry.key))
            .map(|entry| entry.key)
            .collect();
        for keys in newer.chunks(PULLS_AT_A_TIME) {
            pulled += pull(node, with, keys)?;
        }
        if page.next.is_none() || node.ending() {
            return Some(pulled);
        }
        scan.after = page.next;
    }
}

/// Takes over the states of these keys; `None` if the other replica did not answer.
fn pull(node: &Arc<Node>, from: NodeId, keys: &[Key]) -> Option<u64> {
    let (told, answers) = bounded(keys.len());
    net::batch(|| {
        for key in keys {
            let (told, asked) = (told.clone(), key.clone());
            let vote = VoteRequest::Read { state: true };
            node.links[&from].ask(
                Request::Vote {
                    key: key.clone(),
                    vote,
                    spare: false,
                },
                move |answer| {
                    let _ = told.send((asked, answer));
                },
            );
        }
    });
    drop(told);
    let mut pulled = 0;
    for (key, answer) in answers {
        let Answer::Reply(Reply::Vote(VoteReply::Seen(seen))) = answer else {
            return None;
        };
        if let (Some((ballot, _)), Some(state)) = (seen.digest, seen.state) {
            take_over(node, key, Accepted { ballot, state });
            pulled += 1;
        }
    }
    node.stats.pulled.add(pulled);
    Some(pulled)
}

/// The same rule as for any accept. Where this replica has promised a higher ballot it may not
/// take the old one: then the state is chosen anew, at a higher ballot still.
fn take_over(node: &Arc<Node>, key: Key, accepted: Accepted) {
    let (told, answer) = bounded(1);
    node.store.vote(
        &key,
        &VoteRequest::Accept(accepted),
        Urgency::Now,
        move |vote| {
            let _ = told.send(vote);
        },
    );
    if let Ok(VoteReply::Rejected(_)) = answer.recv() {
        node.stats.restored.add(1);
        net::batch(|| node.coordinate(Origin::Nobody, key, Operation::Restore));
    }
}

impl Node {
    /// Asks a peer and waits for the answer: only on threads that no other node waits for.
    pub(super) fn ask_and_wait(&self, peer: NodeId, request: Request) -> Option<Reply> {
        let (told, answer) = bounded(1);
        self.links.get(&peer)?.ask(request, move |answer| {
            let _ = told.send(answer);
        });
        match answer.recv() {
            Ok(Answer::Reply(reply)) => Some(reply),
            _ => None,
        }
    }
}
