//! Compares a range with other members of a chain: before an epoch begins, and while this replica is left out.
//!
//! The digests say which buckets differ. Of these the ballots are compared, key by key, and the states are read
//! that are higher. The rules decide under their own lock whether a state may still be taken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use log::warn;

use super::Node;
use super::chaining::ChainEvent;
use super::drive::Event;
use super::peers::KeyBatch;
use crate::bytes::Key;
use crate::lock;
use crate::protocol::chain::epoch::Epoch;
use crate::protocol::ring::NodeId;
use crate::protocol::{Accepted, Ballot};
use crate::storage::{Page, Scan, Within};
use crate::transport::{Reply, Request};

/// While so many bytes wait for the disk, no more are taken: one sync should not take as long as a disk that hangs.
const MOST_AHEAD: usize = 4 << 20;
/// How often a member is asked that has no page to give.
const MOST_TRIES: usize = 5;
/// How long to wait before it is asked again.
const TRY_AGAIN: Duration = Duration::from_millis(30);
/// So long others may use the chains, after some keys were renewed.
const A_TURN: Duration = Duration::from_micros(100);

/// A range that is compared, and what for.
pub(super) struct Comparison {
    range: usize,
    /// The epoch that begins with it, or what this replica had adopted before it began to catch up.
    epoch: Epoch,
    within: Within,
    from: Vec<NodeId>,
    /// Whether keys count that seem to be the same, too.
    every_key: bool,
}

impl Comparison {
    pub(super) fn of_epoch(
        range: usize,
        epoch: Epoch,
        from: Vec<NodeId>,
        every_key: bool,
    ) -> Comparison {
        Comparison {
            range,
            epoch,
            within: Within::Epoch(epoch),
            from,
            every_key,
        }
    }

    pub(super) fn to_catch_up(range: usize, since: Epoch, from: NodeId) -> Comparison {
        Comparison {
            range,
            epoch: since,
            within: Within::Serving,
            from: vec![from],
            every_key: false,
        }
    }

    fn begins_an_epoch(&self) -> bool {
        self.within != Within::Serving
    }
}

impl Node {
    /// Makes a comparison on a thread of its own, since it waits for other nodes.
    pub(super) fn compare(self: &Arc<Node>, comparison: Comparison) {
        let (node, comparison) = (self.clone(), Arc::new(comparison));
        let wanted = comparison.clone();
        let work = move || {
            let compares = |with: &NodeId| node.compare_with(&wanted, *with).is_some();
            let whole = wanted.from.iter().all(compares) && node.renew(&wanted).is_some();
            node.compared(&wanted, whole);
        };
        let thread = std::thread::Builder::new().name("comparison".into());
        if let Err(error) = thread.spawn(work) {
            warn!("cannot start a thread for a comparison: {error}");
            self.compared(&comparison, false);
        }
    }

    fn compared(self: &Arc<Node>, comparison: &Comparison, whole: bool) {
        let (range, epoch) = (comparison.range, comparison.epoch);
        if comparison.begins_an_epoch() {
            self.run(Event::Chain(ChainEvent::Collected {
                range,
                epoch,
                whole,
            }));
        } else if let Some(chain) = self.strategy.chain() {
            self.stats.compared.add(u64::from(whole));
            lock(chain).caught_up(range, whole, self.began.elapsed());
        }
    }

    /// Compares with one member. Returns none if it did not answer to the end, or if nothing may be taken any
    /// more.
    pub(super) fn compare_with(&self, comparison: &Comparison, with: NodeId) -> Option<()> {
        let (range, within) = (comparison.range, comparison.within);
        let digests = Request::Digests {
            range,
            within: Some(within),
        };
        let Some(Reply::Digests(theirs)) = self.ask_patiently(with, &digests) else {
            return None;
        };
        let own = self.store.digests(range);
        let buckets = (0..).zip(own.iter().zip(&theirs));
        let differing = buckets.filter(|(_, (own, theirs))| own != theirs || comparison.every_key);
        let differing: Vec<u16> = differing.map(|(bucket, _)| bucket).collect();
        if differing.is_empty() {
            return Some(());
        }
        let mut scan = Scan {
            range,
            buckets: Some(differing),
            within: Some(within),
            ..Scan::default()
        };
        // What the member does not hold at all.
        let mut own = self.ballots(&scan);
        loop {
            let request = Request::Scan(scan.clone());
            let Some(Reply::Page(page)) = self.ask_patiently(with, &request) else {
                return None;
            };
            self.take_page(comparison, with, &page, &mut own)?;
            if page.next.is_none() {
                break;
            }
            scan.after = page.next;
        }
        if comparison.begins_an_epoch() {
            for key in own.keys() {
                self.take_state(comparison, key, None)?;
            }
        }
        Some(())
    }

    /// Asks a member. One for which too many pages wait has none to give, and is asked again.
    fn ask_patiently(&self, with: NodeId, request: &Request) -> Option<Reply> {
        for _ in 1..MOST_TRIES {
            match self.peers.ask_and_wait(with, request.clone()) {
                Some(Reply::Abstain) => self.pause(TRY_AGAIN),
                reply => return reply,
            }
        }
        self.peers.ask_and_wait(with, request.clone())
    }

    /// Renews what the members do not agree on. Others may use the chains in between.
    fn renew(&self, comparison: &Comparison) -> Option<()> {
        let (range, epoch) = (comparison.range, comparison.epoch);
        let chain = self.strategy.chain()?;
        while comparison.begins_an_epoch() && !lock(chain).renew(range, epoch, &mut &self.store) {
            self.store.await_backlog(MOST_AHEAD).ok()?;
            std::thread::sleep(A_TURN);
        }
        Some(())
    }

    /// The ballots that this replica holds of the keys of a scan.
    fn ballots(&self, scan: &Scan) -> BTreeMap<Key, Ballot> {
        let (mut scan, mut ballots) = (scan.clone(), BTreeMap::new());
        loop {
            let page = self.store.look(&scan);
            let entries = page.entries.into_iter();
            ballots.extend(entries.map(|entry| (entry.key, entry.accepted)));
            if page.next.is_none() {
                return ballots;
            }
            scan.after = page.next;
        }
    }

    fn take_page(
        &self,
        comparison: &Comparison,
        with: NodeId,
        page: &Page,
        own: &mut BTreeMap<Key, Ballot>,
    ) -> Option<()> {
        let mut higher = KeyBatch::default();
        for entry in &page.entries {
            let key = &entry.key;
            let held = own.remove(key).unwrap_or_default();
            let held = held.max(self.store.accepted(key));
            let is_same = held == entry.accepted && comparison.every_key;
            if (held > entry.accepted || is_same) && comparison.begins_an_epoch() {
                self.take_state(comparison, key, None)?;
            }
            if entry.accepted > held && higher.add(key.clone(), entry.size) {
                self.take_states(comparison, with, &higher.take())?;
            }
        }
        self.take_states(comparison, with, &higher.take())
    }

    /// Reads the states of these keys, and takes them. An answer holds at least one of them, and others only as far
    /// as a message goes.
    fn take_states(&self, comparison: &Comparison, with: NodeId, mut keys: &[Key]) -> Option<()> {
        while !keys.is_empty() {
            self.store.await_backlog(MOST_AHEAD).ok()?;
            let request = Request::States {
                range: comparison.range,
                keys: keys.to_vec(),
                within: comparison.within,
            };
            let Some(Reply::Page(page)) = self.ask_patiently(with, &request) else {
                return None;
            };
            let answered = page.entries.len();
            if answered == 0 || answered > keys.len() {
                return None;
            }
            keys = &keys[answered..];
            for entry in page.entries {
                let accepted = entry.record.and_then(|record| record.accepted);
                self.take_state(comparison, &entry.key, accepted.as_ref())?;
                self.stats.pulled.add(1);
            }
        }
        Some(())
    }

    /// Another member holds this of a key.
    fn take_state(
        &self,
        comparison: &Comparison,
        key: &Key,
        theirs: Option<&Accepted>,
    ) -> Option<()> {
        let (range, epoch) = (comparison.range, comparison.epoch);
        let mut chain = lock(self.strategy.chain()?);
        let replica = &mut &self.store;
        let taken = match theirs {
            theirs if comparison.begins_an_epoch() => {
                chain.move_in(range, epoch, key, theirs, replica)
            }
            Some(theirs) => chain.pull_in(range, epoch, key, theirs, replica),
            None => true,
        };
        taken.then_some(())
    }
}
