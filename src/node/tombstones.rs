//! The thread that drops tombstones. [`protocol::tombstones`](crate::protocol::tombstones) says when that
//! is safe.
//!
//! A key's coordinator asks the other replicas about tombstones that are old enough. Once all replicas hold a
//! tombstone, the coordinator drops it and has the others drop it. If that message is lost, or the
//! coordinator is away, a replica that still has the tombstone asks by itself, later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Node;
use crate::bytes::Key;
use crate::lock;
use crate::protocol::chain::epoch::Epoch;
use crate::protocol::ring::{NodeId, Position};
use crate::protocol::{Accepted, Ballot, tombstones};
use crate::transport;
use crate::transport::{Reply, Request};

/// How many tombstones are asked about at a time.
const BATCH: usize = 256;

/// For each tombstone, its ballot and when this node first saw it.
type FirstSeen = BTreeMap<Key, (Ballot, Instant)>;

/// Runs the thread until the node ends.
pub fn run(node: &Arc<Node>) {
    let age = Duration::from_millis(node.config.tombstone_age_ms);
    let mut seen = FirstSeen::new();
    while !node.ending() {
        node.pause(age / 4);
        if node.votes() {
            seen = look(node, &seen, age);
            node.stats.tombstone_looks.add(1);
        }
    }
}

/// Looks at every tombstone, and settles those that are old enough.
fn look(node: &Arc<Node>, before: &FirstSeen, age: Duration) -> FirstSeen {
    let now = Instant::now();
    let mut seen = FirstSeen::new();
    let mut due: BTreeMap<usize, Vec<(Key, Accepted)>> = BTreeMap::new();
    let mut promises = Vec::new();
    let mut after = None;
    loop {
        // An error means that the log has failed, which ends the process.
        let page = node.store.tombstones(after.as_ref(), BATCH).recv();
        let page = page.unwrap_or_default();
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (key, record) in page {
            let range = node.ring.range_at(Position::of_key(&key));
            let accepted = record.accepted_ballot();
            let since = match before.get(&key) {
                Some((ballot, since)) if *ballot == accepted => *since,
                _ => now,
            };
            seen.insert(key.clone(), (accepted, since));
            let wait = age * (1 + 2 * rank(node, range));
            if now.saturating_duration_since(since) < wait {
                continue;
            }
            let Some(tombstone) = record.accepted else {
                promises.push((key, accepted));
                continue;
            };
            let batch = due.entry(range).or_default();
            batch.push((key, tombstone));
            if batch.len() >= BATCH {
                settle(node, range, std::mem::take(batch));
            }
        }
        if node.ending() {
            break;
        }
    }
    // These are promises whose proposals never came. The fence promises the same, so nobody is asked.
    node.drop_tombstones(promises);
    for (range, batch) in due {
        settle(node, range, batch);
    }
    seen
}

/// This node's place among the replicas of a range: 0 for the coordinator, 1 for its successor, and so on.
fn rank(node: &Node, range: usize) -> u32 {
    let replicas = node.ring.replicas_of_range(range);
    let place = replicas.iter().position(|replica| *replica == node.id);
    place.unwrap_or(replicas.len()) as u32
}

/// Drops those of a range's tombstones that all replicas hold. All of them have to answer, so nobody is asked
/// while one is silent.
fn settle(node: &Arc<Node>, range: usize, tombstones: Vec<(Key, Accepted)>) {
    let others = || node.ring.other_replicas(range, node.id);
    if others().any(|other| node.peers[other].suspect()) {
        return;
    }
    let lost_folders = node.introductions.lost_folders();
    // A chain drops only out of an epoch of all replicas.
    let epoch = match node.strategy.chain() {
        Some(chain) => match lock(chain).whole_epoch(range) {
            None => return,
            epoch => epoch,
        },
        None => None,
    };
    let Some(answers) = ask(node, others(), &tombstones, epoch) else {
        return;
    };
    // A replica that has lost its folder may copy from another one what that one held before it accepted
    // the tombstone. It announces the loss before it copies anything, so the loss is visible here.
    if node.introductions.lost_folders() != lost_folders {
        return;
    }
    let held = |place: usize| -> Vec<bool> { answers.iter().map(|held| held[place]).collect() };
    let held_by_all = (0..)
        .zip(tombstones)
        .filter(|(place, _)| tombstones::may_drop(&held(*place)))
        .map(|(_, (key, tombstone))| (key, tombstone.ballot));
    let dropped = node.drop_tombstones(held_by_all.collect());
    if dropped.is_empty() {
        return;
    }
    node.stats.dropped.add(dropped.len() as u64);
    // In a chain the others drop only what is dropped durably here: the next epoch could bring it back.
    if epoch.is_some() && node.store.await_durable().is_err() {
        return;
    }
    transport::batch(|| {
        for other in others() {
            node.peers[other].tell(Request::Drop(dropped.clone()));
        }
    });
}

/// Whether each of the others holds each tombstone. Returns none unless all of them answer.
fn ask(
    node: &Arc<Node>,
    others: impl Iterator<Item = NodeId>,
    tombstones: &[(Key, Accepted)],
    epoch: Option<Epoch>,
) -> Option<Vec<Vec<bool>>> {
    others
        .map(|other| {
            let request = Request::Tombstones {
                tombstones: tombstones.to_vec(),
                epoch,
            };
            match node.peers.ask_and_wait(other, request) {
                Some(Reply::Held(held)) if held.len() == tombstones.len() => Some(held),
                _ => None,
            }
        })
        .collect()
}
