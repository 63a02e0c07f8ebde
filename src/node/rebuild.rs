//! Rebuilds what this node may have voted before its folder was lost.
//!
//! [`takeover`] says which record to take over, and why. Here the records of all other replicas of a range are
//! read side by side, in the order of their keys and page by page. If a replica falls silent, only its
//! current page has to be asked for again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{error, warn};

use super::Node;
use super::peers::KeyBatch;
use crate::bytes::Key;
use crate::logging;
use crate::protocol::chain::epoch::Adopted;
use crate::protocol::ring::NodeId;
use crate::protocol::{Fence, Operation, Outcome, Record, Seen, VoteReply, takeover};
use crate::storage::{MOST_BACKLOG, Scan, Standing};
use crate::transport::message::Known;
use crate::transport::{Reply, Request};

/// How long to wait before asking again the nodes that did not answer.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How long to retry before logging which node is missing.
pub(super) const LOG_AFTER: Duration = Duration::from_secs(1);

/// Calls `ask` until it succeeds. Its error names the node that did not answer. Returns none if this node ends
/// before.
pub(super) fn insist<T>(node: &Arc<Node>, mut ask: impl FnMut() -> Result<T, NodeId>) -> Option<T> {
    let mut logged = None;
    let mut log_at = Instant::now() + LOG_AFTER;
    while !node.ending() {
        match ask() {
            Ok(answer) => return Some(answer),
            Err(missing)
                if Instant::now() >= log_at && logged.replace(missing) != Some(missing) =>
            {
                warn!(
                    "does not vote yet: waits for node {missing}, which does not answer, or does \
                     not vote either"
                );
                log_at = Instant::now() + LOG_AFTER;
            }
            Err(_) => {}
        }
        node.pause(ASK_AGAIN);
    }
    None
}

/// Copies a range. Returns none if the node ends before.
///
/// A chain shows no state before an epoch has begun with it, so that the highest one is taken over as it is. The
/// number of this start sets the epochs apart that were proposed from lost folders.
///
/// If other replicas are given up, the highest state of the rest counts as chosen, since nobody is left who
/// could choose it.
pub(super) fn copy_range(
    node: &Arc<Node>,
    range: usize,
    given_up: &[NodeId],
    start: u64,
) -> Option<()> {
    let others = node.ring.other_replicas(range, node.id);
    let (lost, others): (Vec<_>, Vec<_>) = others.partition(|other| given_up.contains(other));
    if !lost.is_empty() {
        log_loss(node, range, &lost, &others);
    }
    let mut sources: Vec<Source> = others.iter().map(|&it| Source::new(it, range)).collect();
    let mut differing = KeyBatch::default();
    let is_chain = node.strategy.chain().is_some();
    loop {
        for source in &mut sources {
            source.fill(node)?;
        }
        let Some(key) = sources.iter().filter_map(Source::first).min().cloned() else {
            let adopted = sources.iter().map(|source| source.adopted.clone()).max();
            if let Some(adopted) = adopted.filter(|_| is_chain) {
                node.store.absorb_adopted(range, adopted.copied(start));
            }
            return refresh(node, &others, &differing.take());
        };
        let records: Vec<Record> = sources.iter_mut().map(|source| source.take(&key)).collect();
        node.stats.copied.add(1);
        let agreed = if lost.is_empty() && !is_chain {
            takeover::agreed(&records)
        } else {
            Some(takeover::highest(&records))
        };
        if let Some(record) = agreed {
            node.store.absorb(&key, record);
            continue;
        }
        let size = records.iter().map(Record::value_size).max();
        if differing.add(key, size.unwrap_or_default()) {
            refresh(node, &others, &differing.take())?;
        }
    }
}

/// Logs what may be lost with the folders that are given up.
fn log_loss(node: &Node, range: usize, lost: &[NodeId], others: &[NodeId]) {
    let owner = node.ring.replicas_of_range(range)[0];
    let (own, lost) = (node.id, ids(lost));
    if others.is_empty() {
        return warn!(
            "every folder of {owner}'s range was lost, here and on {lost}: all its keys are lost"
        );
    }
    let others = ids(others);
    warn!(
        "takes what {others} holds of {owner}'s range for the truth. Writes that only {own} and \
         {lost} had are lost"
    );
}

fn ids(nodes: &[NodeId]) -> String {
    let ids: Vec<_> = nodes.iter().map(NodeId::to_string).collect();
    ids.join(",")
}

impl Node {
    /// The other nodes that a copy does not wait for, as `--give-up` names them. These must be exactly the
    /// replicas of this node's ranges that lost their folders, too: a copy has to wait for all others, and
    /// what they hold need not be given up. Ends the process if `--give-up` names other nodes.
    pub(super) fn check_given_up(&self, known: &BTreeMap<NodeId, Known>) -> &[NodeId] {
        let given_up = self.standing.given_up.as_slice();
        let is_lost = |peer: &NodeId| known[peer].standing != Standing::Whole;
        let shares_ranges = |peer: &NodeId| !self.anti_entropy.ranges_shared_with(*peer).is_empty();
        let lost = known.keys().copied().filter(shares_ranges).filter(is_lost);
        let lost = Vec::from_iter(lost);
        if lost == given_up {
            return given_up;
        }
        let (named, option) = match lost[..] {
            [] => ("none".to_owned(), "without --give-up".to_owned()),
            _ => (ids(&lost), format!("with --give-up {}", ids(&lost))),
        };
        let way_out = format!(
            "the nodes that share ranges with this one and lost their folders, too, are: {named}. Only if the \
             old folders cannot be brought back: start this node once {option}. It then takes what the \
             others hold for the truth, and writes that only the lost folders had are gone"
        );
        if !given_up.is_empty() {
            error!("not started, because --give-up names other nodes: {way_out}");
            logging::exit(1);
        }
        error!("cannot copy and does not vote: {way_out}");
        &[]
    }
}

/// Reads the records of a range that one other replica holds.
struct Source {
    from: NodeId,
    scan: Scan,
    /// Records that have been read and not been taken yet.
    page: VecDeque<(Key, Record)>,
    is_last: bool,
    fence: Fence,
    /// The epoch that the replica had adopted when it sent its last page.
    adopted: Adopted,
}

impl Source {
    fn new(from: NodeId, range: usize) -> Source {
        Source {
            from,
            scan: Scan {
                range,
                states: true,
                ..Scan::default()
            },
            page: VecDeque::new(),
            is_last: false,
            fence: Fence::default(),
            adopted: Adopted::default(),
        }
    }

    /// Reads the next page if none of the last one is left. Returns none if the node ends before.
    fn fill(&mut self, node: &Arc<Node>) -> Option<()> {
        while self.page.is_empty() && !self.is_last {
            let page = insist(node, || {
                let scan = Request::Scan(self.scan.clone());
                match node.peers.ask_and_wait(self.from, scan) {
                    Some(Reply::Page(page)) => Ok(page),
                    _ => Err(self.from),
                }
            })?;
            // Copying must not be faster than the disk.
            node.store.await_backlog(MOST_BACKLOG).ok()?;
            node.store.absorb_fence(self.scan.range, &page.fence);
            self.fence = page.fence;
            self.adopted = page.adopted;
            let entries = page.entries.into_iter();
            self.page = entries
                .filter_map(|entry| Some((entry.key, entry.record?)))
                .collect();
            self.is_last = page.next.is_none();
            self.scan.after = page.next;
        }
        Some(())
    }

    fn first(&self) -> Option<&Key> {
        self.page.front().map(|(key, _)| key)
    }

    /// Takes the record of this key, which must not come after the first one. A key without a record has that
    /// of the fence.
    fn take(&mut self, key: &Key) -> Record {
        assert!(self.first().is_none_or(|first| key <= first));
        let found = match self.first() {
            Some(first) if first == key => self.page.pop_front(),
            _ => None,
        };
        found.map_or_else(|| self.fence.record(), |(_, record)| record)
    }
}

/// Has the other replicas refresh the states of these keys, and takes over the results.
fn refresh(node: &Arc<Node>, others: &[NodeId], keys: &[Key]) -> Option<()> {
    if keys.is_empty() {
        return Some(());
    }
    let refresh = |key: &Key| Request::Coordinate {
        key: key.clone(),
        operation: Operation::Refresh,
        seen: None,
        vouched: None,
    };
    let chosen = |reply| match reply {
        Reply::Outcome(Outcome::Found { .. } | Outcome::Missing) => Some(()),
        _ => None,
    };
    ask_about(node, *others.first()?, keys, refresh, chosen)?;
    let record = |reply| match reply {
        Reply::Vote(VoteReply::Seen(seen)) => Some(record_of(seen)),
        _ => None,
    };
    let mut received = vec![Vec::new(); keys.len()];
    for &other in others {
        let records = ask_about(node, other, keys, Request::read, record)?;
        for (all, record) in received.iter_mut().zip(records) {
            all.push(record);
        }
    }
    for (key, records) in keys.iter().zip(&received) {
        node.store.absorb(key, takeover::highest(records));
    }
    Some(())
}

/// The record that a read has seen. It was promised at least to the ballot of the accepted state.
fn record_of(seen: Seen) -> Record {
    Record {
        promised: seen.ballot,
        accepted: seen.accepted(),
    }
}

/// Asks a peer about each of these keys until all questions are answered. Returns none if the node ends before.
fn ask_about<T>(
    node: &Arc<Node>,
    peer: NodeId,
    keys: &[Key],
    question: impl Fn(&Key) -> Request,
    answer: impl Fn(Reply) -> Option<T>,
) -> Option<Vec<T>> {
    let mut answers: Vec<Option<T>> = keys.iter().map(|_| None).collect();
    insist(node, || {
        let missing = (0..keys.len()).filter(|&place| answers[place].is_none());
        let places: Vec<usize> = missing.collect();
        let questions = places.iter().map(|&place| (peer, question(&keys[place])));
        let replies = node.peers.ask_together(questions);
        for (place, reply) in places.into_iter().zip(replies) {
            answers[place] = reply.and_then(&answer);
        }
        let complete = answers.iter().all(Option::is_some);
        complete.then_some(()).ok_or(peer)
    })?;
    answers.into_iter().collect()
}
