//! The thread of anti-entropy: one comparison after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use log::{debug, info};

use super::{Comparison, LOOK_AGAIN};
use crate::bytes::Key;
use crate::node::Node;
use crate::node::drive::{Event, ReplyTo};
use crate::node::peers::Wanted;
use crate::node::replica::{Cast, OTHERS_HAVE_IT};
use crate::protocol::ring::NodeId;
use crate::protocol::{Accepted, Operation, VoteReply, VoteRequest};
use crate::storage::Entry;
use crate::storage::Scan;
use crate::testing::rules::{self, Rule};
use crate::transport::{Reply, Request};

/// The wait after a comparison that the other replica did not finish.
const TRY_AGAIN: Duration = Duration::from_millis(30);
/// The longest wait for a comparison that is due.
const NOTHING_DUE: Duration = Duration::from_millis(100);

/// The thread: compares what is due, and one range with one replica after each period. Not before
/// this node votes: what it pulls counts as its vote.
pub fn run(node: &Arc<Node>) {
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
            node.anti_entropy.peer_fell_silent(&node.ring, peer);
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
        match pulled {
            Some(pulled) => {
                node.stats.compared.add(1);
                if pulled > 0 {
                    let Comparison { range, with } = comparison;
                    let owner = node.ring.replicas_of_range(range)[0];
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
                if !node.peers.suspects().contains(&comparison.with) {
                    node.anti_entropy.add(comparison);
                    node.pause(TRY_AGAIN);
                }
            }
        }
    }
}

fn all_comparisons(node: &Node) -> Vec<Comparison> {
    let mut all = Vec::new();
    for range in node.ring.ranges_of(node.id) {
        let others = node
            .ring
            .replicas_of_range(range)
            .iter()
            .filter(|other| **other != node.id);
        all.extend(others.map(|&with| Comparison { range, with }));
    }
    all
}

/// Pulls what the other replica has newer; `None` if it did not answer to the end.
fn compare(node: &Arc<Node>, Comparison { range, with }: Comparison) -> Option<u64> {
    let Some(Reply::Digests(theirs)) = node.peers.ask_and_wait(with, Request::Digests { range })
    else {
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
        after: None,
        states: false,
    };
    let (mut wanted, mut pulled) = (Wanted::default(), 0);
    loop {
        let Some(Reply::Page(page)) = node.peers.ask_and_wait(with, Request::Scan(scan.clone()))
        else {
            return None;
        };
        for Entry {
            key,
            accepted,
            size,
            ..
        } in page.entries
        {
            let newer = accepted > node.store.accepted(&key);
            if newer && wanted.add(key, size) {
                pulled += pull(node, with, &wanted.take())?;
            }
        }
        pulled += pull(node, with, &wanted.take())?;
        if page.next.is_none() || node.ending() {
            return Some(pulled);
        }
        scan.after = page.next;
    }
}

/// Takes over the states of these keys; `None` if the other replica did not answer, or this one
/// does not hold them all then.
fn pull(node: &Arc<Node>, from: NodeId, keys: &[Key]) -> Option<u64> {
    let replies = node
        .peers
        .ask_each(from, keys.iter().map(Request::read).collect());
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

/// The same rule as for any accept. Where this replica has promised a higher ballot it may not
/// take the old one. Mostly that belongs to a proposal under way, and what that proposes comes here
/// in a moment; otherwise the state is chosen anew, at a higher ballot still. Returns whether this
/// replica holds each of them now, or what came after it.
///
/// All votes are on their way before one is waited for: they share the disk's syncs.
fn accept_pulled(node: &Arc<Node>, states: &[(Key, Accepted)]) -> bool {
    let (sender, voted) = unbounded();
    for (key, accepted) in states {
        let sender = sender.clone();
        let request = VoteRequest::Accept(accepted.clone());
        let cast = node.cast_vote(node.id, key, &request, move |_| {
            let _ = sender.send(());
        });
        if let Cast::Abstained = cast {
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
        node.run(Event::Forwarded {
            reply_to: ReplyTo::AntiEntropy(sender.clone()),
            key: (*key).clone(),
            operation: Operation::Refresh,
            seen: None,
        });
    }
    drop(sender);
    // What is chosen now may be held by the other replicas alone.
    refreshed.into_iter().for_each(drop);
    !lagging.iter().any(lags)
}
