//! Bounds the memory for data: a node holds all its records in memory, up to a limit.
//!
//! A node that has reached its limit is *full*. It announces that to all peers, and announces when it
//! has capacity again. A coordinator turns a write away if it would let a full replica grow. It does so
//! before it proposes anything, so the write is certainly not done.
//!
//! A vote is never refused because a node is full. Otherwise a proposal could not come to its end, and a
//! replica that was away could not copy what it missed. So a node may exceed its limit by these two: what
//! is proposed before its peers hear that it is full, and what it missed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::Node;
use crate::bytes::{Key, MAX_KEY};
use crate::lock;
use crate::protocol::ring::{NodeId, Position, Ring};
use crate::protocol::{Change, Operation};
use crate::transport::Request;

/// A full node takes writes again once this part of its limit is free, one sixteenth. Without that margin it
/// would announce both states in turn.
const FREE_AGAIN: usize = 16;

/// A full node counts as full for so many periods after its last announcement. Then its announcements
/// must have been lost on the way, and maybe also that it has capacity again.
const MISSED: u32 = 3;

/// The most that the record of a `DEL` takes that found nothing, in bytes.
const REFUSAL: usize = MAX_KEY + 1024;

/// Which nodes are full, including this one.
pub struct Capacity {
    state: Mutex<CapacityState>,
    most_exceptions: usize,
    /// How often this node announces to all peers whether it is full.
    period: Duration,
}

struct CapacityState {
    /// The nodes that announced last that they are full, and until when they count as full.
    full: BTreeMap<NodeId, Instant>,
    /// Deletes of missing keys that were let in although a replica is full, since the first node became
    /// full.
    exceptions: usize,
    /// Peers that may not know whether this node is full.
    unaware: BTreeSet<NodeId>,
    /// When this node announced to all peers whether it is full.
    last_announced: Instant,
}

impl Capacity {
    /// Each node may hold `limit` bytes. The coordinators of all its ranges together may add a sixteenth
    /// of that by deletes of missing keys.
    pub fn new(ring: &Ring, period: Duration, limit: usize) -> Capacity {
        let coordinators = ring.replicas_of_range(0).len();
        Capacity {
            state: Mutex::new(CapacityState {
                full: BTreeMap::new(),
                exceptions: 0,
                unaware: BTreeSet::new(),
                last_announced: Instant::now(),
            }),
            most_exceptions: limit / FREE_AGAIN / coordinators / REFUSAL,
            period,
        }
    }

    /// A peer is reachable again, and may have missed an announcement.
    pub fn returned(&self, peer: NodeId) {
        lock(&self.state).unaware.insert(peer);
    }

    /// A node has announced whether it is full.
    pub fn heard(&self, node: NodeId, full: bool) {
        let mut state = lock(&self.state);
        if !full {
            state.full.remove(&node);
            return;
        }
        if state.full.is_empty() {
            state.exceptions = 0;
        }
        let until = Instant::now() + MISSED * self.period;
        state.full.insert(node, until);
    }

    /// The peers that need an announcement now. After a change and after each period these are all peers,
    /// since a message from an older connection may be read after one from a newer connection.
    fn take_unaware(&self, changed: bool, all: impl Iterator<Item = NodeId>) -> BTreeSet<NodeId> {
        let mut state = lock(&self.state);
        let mut unaware = std::mem::take(&mut state.unaware);
        if changed || state.last_announced.elapsed() >= self.period {
            state.last_announced = Instant::now();
            unaware.extend(all);
        }
        unaware
    }

    fn is_full(&self, node: NodeId) -> bool {
        let until = lock(&self.state).full.get(&node).copied();
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether one more delete of a missing key may be let in although a replica is full.
    fn take_exception(&self) -> bool {
        let mut state = lock(&self.state);
        state.exceptions += 1;
        state.exceptions <= self.most_exceptions
    }
}

impl Node {
    /// Whether this node has reached its limit.
    pub fn is_full(&self) -> bool {
        self.capacity.is_full(self.id)
    }

    /// Compares what this node holds with its limit, and announces the result to peers that may not know
    /// it. Only the timer's thread does so: two checks at a time could send their results to a peer in the
    /// wrong order.
    pub(super) fn check_capacity(&self) {
        let (bytes, limit) = (self.store.data_bytes(), self.config.data_memory());
        let before = self.is_full();
        let full = bytes >= limit || before && bytes >= limit - limit / FREE_AGAIN;
        self.capacity.heard(self.id, full);
        if full != before {
            let (held, limit) = (bytes >> 20, limit >> 20);
            if full {
                warn!(
                    "holds {held} MiB of data, and may hold {limit} (data_memory_mib): answers \
                     BUSY to writes of its keys until some are deleted"
                );
            } else {
                info!("holds {held} MiB of data, and takes writes again");
            }
        }
        for peer in self.capacity.take_unaware(full != before, self.peers.ids()) {
            self.peers[peer].tell(Request::Full(full));
        }
    }

    /// Whether a range may hold more elsewhere than here.
    fn is_in_doubt(&self, range: usize) -> bool {
        match self.chain_status(range) {
            Some(status) => !status.serves,
            None => self.anti_entropy.doubts(range),
        }
    }

    /// A replica that has no capacity for what an operation may add, if there is one. A replica without a
    /// connection does not count: it is away and does not grow.
    pub(super) fn full_replica(&self, key: &Key, operation: &Operation) -> Option<NodeId> {
        let Operation::Write { dot, change } = operation else {
            return None;
        };
        if lock(&self.capacity.state).full.is_empty() {
            return None;
        }
        let lacks = |node: &&NodeId| {
            let link = self.peers.get(**node);
            let is_away = link.is_some_and(|link| !link.has_connection());
            self.capacity.is_full(**node) && !is_away
        };
        let full = self.ring.preference_list(key).iter().find(lacks)?;
        let adds_nothing = match self.store.state(key) {
            // The write was done by an earlier try, and this one only gets the answer.
            Some(state) if state.decided_of(dot.origin) >= dot.sequence => true,
            Some(_) => matches!(change, Change::Delete | Change::Trim | Change::TrimPage(_)),
            // While the range is in doubt, the key may exist elsewhere. If it exists nowhere, the
            // refusal of the delete adds a record.
            None => {
                let range = self.ring.range_at(Position::of_key(key));
                *change == Change::Delete
                    && self.is_in_doubt(range)
                    && self.capacity.take_exception()
            }
        };
        (!adds_nothing).then_some(*full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_announces_to_peers_that_return_and_to_all_after_a_change_and_each_period() {
        let ids = [1, 2, 3].map(NodeId);
        let peers = &ids[1..];
        let ring = Ring::new(ids, 3);
        let mut capacity = Capacity::new(&ring, Duration::from_secs(3600), 1 << 20);
        let receivers = |capacity: &Capacity, changed| {
            Vec::from_iter(capacity.take_unaware(changed, peers.iter().copied()))
        };
        assert_eq!(receivers(&capacity, false), []);
        capacity.returned(NodeId(3));
        assert_eq!(receivers(&capacity, false), [NodeId(3)]);
        assert_eq!(receivers(&capacity, false), []);
        assert_eq!(receivers(&capacity, true), peers);
        capacity.period = Duration::ZERO;
        assert_eq!(receivers(&capacity, false), peers);
    }

    #[test]
    fn a_node_that_does_not_announce_again_that_it_is_full_is_not_counted_any_more() {
        let ring = Ring::new([1, 2, 3].map(NodeId), 3);
        let mut capacity = Capacity::new(&ring, Duration::from_secs(3600), 1 << 20);
        capacity.heard(NodeId(2), true);
        assert!(capacity.is_full(NodeId(2)) && !capacity.is_full(NodeId(1)));
        capacity.heard(NodeId(2), false);
        assert!(!capacity.is_full(NodeId(2)));
        capacity.period = Duration::ZERO;
        capacity.heard(NodeId(2), true);
        assert!(!capacity.is_full(NodeId(2)));
    }

    #[test]
    fn deletes_of_missing_keys_add_no_more_than_a_sixteenth_to_what_a_full_node_holds() {
        let ring = Ring::new([1, 2, 3, 4, 5].map(NodeId), 3);
        let limit = 1 << 20;
        let capacity = Capacity::new(&ring, Duration::from_secs(3600), limit);
        let let_in = || (0..limit).take_while(|_| capacity.take_exception()).count();
        capacity.heard(NodeId(2), true);
        let most = let_in();
        // A replica holds three ranges, of one coordinator each.
        assert!(most > 0 && 3 * most * REFUSAL <= limit / FREE_AGAIN);
        capacity.heard(NodeId(3), true);
        assert_eq!(let_in(), 0);
        capacity.heard(NodeId(2), false);
        capacity.heard(NodeId(3), false);
        capacity.heard(NodeId(2), true);
        assert_eq!(let_in(), most);
    }
}
