//! The thread of anti-entropy, which makes one comparison after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use log::{debug, info};

use super::{Comparison, LOOK_AGAIN};
use crate::bytes::Key;
use crate::node::Node;
use crate::node::drive::{Event, ReplyTo};
use crate::node::peers::KeyBatch;
use crate::node::replica::{Cast, OTHERS_HAVE_IT};
use crate::protocol::ring::NodeId;
use crate::protocol::{Accepted, Operation, VoteReply, VoteRequest};
use crate::storage::{MOST_BACKLOG, Scan};
use crate::testing::rules::{self, Rule};
use crate::transport::{Reply, Request};

/// How long to wait after a comparison that the other replica did not finish.
const TRY_AGAIN: Duration = Duration::from_millis(30);
/// How long to wait for a comparison before checking the suspects and the period again.
const NOTHING_DUE: Duration = Duration::from_millis(100);

/// Runs the thread until the node ends. It makes the comparisons that are due, and one more after each period.
///
/// It waits until this node votes, since accepting a pulled state is a vote. Chains make comparisons of their own.
pub fn run(node: &Arc<Node>) {
    if node.strategy.chain().is_some() {
        return;
    }
    while !node.votes() && !node.ending() {
        node.pause(TRY_AGAIN);
    }
    let mut round = all_comparisons(node).into_iter().cycle();
    let period = Duration::from_millis(node.config.anti_entropy_ms);
    let mut last = Instant::now();
    let mut suspects = Vec::new();
    while !node.ending() {
        let before = std::mem::replace(&mut suspects, node.peers.suspects());
        for &peer in suspects.iter().filter(|peer| !before.contains(peer)) {
            node.anti_entropy.peer_fell_silent(peer);
        }
        if last.elapsed() >= period
            && let Some(next) = round.next()
        {
            last = Instant::now();
            node.anti_entropy.add(next);
        }
        let Some(comparison) = node.anti_entropy.next(NOTHING_DUE) else {
            continue;
        };
        let pulled = compare(node, comparison);
        node.anti_entropy.ended(pulled.is_some());
        let Comparison { range, with } = comparison;
        if let Some(pulled) = pulled {
            node.stats.compared.add(1);
            if pulled > 0 {
                let owner = node.ring.replicas_of_range(range)[0];
                info!("pulled {pulled} keys of {owner}'s range from {with}");
            }
            continue;
        }
        debug!("{comparison:?} was not finished");
        // A silent peer is compared with once it is heard again. Any other, such as one that is still
        // starting, is tried again soon.
        if !node.peers[with].suspect() {
            node.anti_entropy.add(comparison);
            node.pause(TRY_AGAIN);
        }
    }
}

fn all_comparisons(node: &Node) -> Vec<Comparison> {
    let mut all = Vec::new();
    for range in node.ring.ranges_of(node.id) {
        let others = node.ring.other_replicas(range, node.id);
        all.extend(others.map(|with| Comparison { range, with }));
    }
    all
}

/// Pulls the states that are newer at the other replica. Returns how many, or none if that replica did not answer
/// to the end.
fn compare(node: &Arc<Node>, Comparison { range, with }: Comparison) -> Option<u64> {
    let Some(Reply::Digests(theirs)) = node.peers.ask_and_wait(
        with,
        Request::Digests {
            range,
            within: None,
        },
    ) else {
        return None;
    };
    let own = node.store.digests(range);
    let differing: Vec<u16> = (0..)
        .zip(own.iter().zip(&theirs))
        .filter(|(_, (a, b))| a != b)
        .map(|(i, _)| i)
        .collect();
    if differing.is_empty() || !rules::holds(Rule::MissedWritesPulled) {
        return Some(0);
    }
    let mut scan = Scan {
        range,
        buckets: Some(differing),
        ..Scan::default()
    };
    let (mut newer, mut pulled) = (KeyBatch::default(), 0);
    loop {
        let Some(Reply::Page(page)) = node.peers.ask_and_wait(with, Request::Scan(scan.clone()))
        else {
            return None;
        };
        for entry in page.entries {
            let is_newer = entry.accepted > node.store.accepted(&entry.key);
            if is_newer && newer.add(entry.key, entry.size) {
                pulled += pull(node, with, &newer.take())?;
            }
        }
        pulled += pull(node, with, &newer.take())?;
        if page.next.is_none() || node.ending() {
            return Some(pulled);
        }
        scan.after = page.next;
    }
}

/// Accepts the states of these keys at another replica. Returns how many, or none if that replica did not answer
/// all questions, or if this one does not hold all the states afterwards.
fn pull(node: &Arc<Node>, from: NodeId, keys: &[Key]) -> Option<u64> {
    let questions = keys.iter().map(|key| (from, Request::read(key)));
    let replies = node.peers.ask_together(questions);
    let (mut states, mut complete) = (Vec::new(), true);
    for (key, reply) in keys.iter().zip(replies) {
        let Some(Reply::Vote(VoteReply::Seen(seen))) = reply else {
            complete = false;
            continue;
        };
        if let Some(accepted) = seen.accepted()
            && !node.store.is_past(key, &accepted)
        {
            states.push((key.clone(), accepted));
        }
    }
    let pulled = states.len() as u64;
    complete &= accept_pulled(node, &states);
    node.stats.pulled.add(pulled);
    complete.then_some(pulled)
}

/// Accepts pulled states. Returns whether this replica now holds each of them, or a later one.
///
/// The rules are those of any accept: if this replica has promised a higher ballot, it refuses the state. Mostly
/// that ballot belongs to a proposal under way, whose state arrives soon. If it does not, a refresh gets
/// the state chosen at a still higher ballot.
fn accept_pulled(node: &Arc<Node>, states: &[(Key, Accepted)]) -> bool {
    if node.store.await_backlog(MOST_BACKLOG).is_err() {
        return false;
    }
    // All votes begin before the first is waited for, so that they share syncs of the disk.
    let (sender, voted) = unbounded();
    for (key, accepted) in states {
        let sender = sender.clone();
        let request = VoteRequest::Accept(accepted.clone());
        let voted = move |_| {
            let _ = sender.send(());
        };
        if let Cast::Abstained = node.cast_vote(node.id, key, &request, voted) {
            return false;
        }
    }
    drop(sender);
    voted.into_iter().for_each(drop);
    let lags = |(key, accepted): &&(Key, Accepted)| {
        node.store.accepted(key) < accepted.ballot && !node.store.is_past(key, accepted)
    };
    let mut lagging = Vec::from_iter(states.iter().filter(lags));
    let until = Instant::now() + OTHERS_HAVE_IT;
    while !lagging.is_empty() && Instant::now() < until {
        node.pause(LOOK_AGAIN);
        lagging.retain(lags);
    }
    let (sender, refreshed) = unbounded();
    for (key, _) in &lagging {
        node.stats.refreshed.add(1);
        node.run(Event::Coordinate {
            reply_to: ReplyTo::AntiEntropy(sender.clone()),
            key: (*key).clone(),
            operation: Operation::Refresh,
            seen: None,
            vouched: None,
        });
    }
    drop(sender);
    // The refreshed state may have been chosen without this replica.
    refreshed.into_iter().for_each(drop);
    !lagging.iter().any(lags)
}
