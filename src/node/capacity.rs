//! Capacity for data: a node holds all its records in memory, and no more of them than it may.
//!
//! A node that holds as much as it may tells all others so, and tells them again when there is
//! room. Coordinators then turn away whatever would let one of a key's replicas grow, before they
//! have proposed it: it is certainly not done. Votes are never refused for want of room, so that
//! what was proposed comes to its end and a replica that was away copies what it missed. A node
//! may therefore hold more: what is proposed until its peers have heard of it, and what it missed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use log::{info, warn};

use super::Node;
use crate::bytes::{Key, MAX_KEY};
use crate::lock;
use crate::protocol::ring::{NodeId, Position, Ring};
use crate::protocol::{Change, Operation};
use crate::transport::Request;

/// A full node takes more once this part of what it may hold is free again, so that it does not
/// tell one thing and the other in turn.
const FREE_AGAIN: usize = 16;

/// A full node that has not told so again for as many times as it should have is not counted any more: it
/// is there, and what it tells does not come here.
const MISSED: u32 = 3;

/// What the record of a `DEL` that found nothing takes at the most, in bytes.
const REFUSAL: usize = MAX_KEY + 1024;

/// Which nodes hold as much as they may, this one too.
pub struct Capacity {
    /// Until when each counts as full, in milliseconds since `began`; 0 if it is not.
    full: BTreeMap<NodeId, AtomicU64>,
    /// How many deletes of what is not here were let in though a replica is full, since any is,
    exceptions: AtomicUsize,
    /// and how many may be.
    most_exceptions: usize,
    telling: Mutex<Telling>,
    /// How often all are told again.
    period: Duration,
    began: Instant,
}

/// Who is to be told how it is here.
struct Telling {
    untold: BTreeSet<NodeId>,
    /// When all were told last.
    last: Instant,
}

impl Capacity {
    /// A full node tells so every `period`. Each may hold `limit` bytes, and a sixteenth of that comes
    /// on top by deletes of what is not here, from the coordinators of all its ranges.
    pub fn new(ring: &Ring, period: Duration, limit: usize) -> Capacity {
        let members = ring.members().iter();
        let coordinators = ring.replicas_of_range(0).len();
        Capacity {
            exceptions: AtomicUsize::new(0),
            most_exceptions: limit / FREE_AGAIN / coordinators / REFUSAL,
            full: members
                .map(|(_, node)| (*node, AtomicU64::new(0)))
                .collect(),
            period,
            began: Instant::now(),
            telling: Mutex::new(Telling {
                untold: BTreeSet::new(),
                last: Instant::now(),
            }),
        }
    }

    /// A peer is there again, and may not have heard what it was told.
    pub fn returned(&self, peer: NodeId) {
        lock(&self.telling).untold.insert(peer);
    }

    /// A node has told whether it is full.
    pub fn heard(&self, node: NodeId, full: bool) {
        if full && self.none_full() {
            self.exceptions.store(0, Ordering::Relaxed);
        }
        let until = if full {
            (self.began.elapsed() + MISSED * self.period).as_millis() as u64
        } else {
            0
        };
        self.full[&node].store(until, Ordering::Relaxed);
    }

    /// Whom to tell now: everybody after a change, and now and then, since a message may be read
    /// late, after those on a newer connection.
    fn take_untold(&self, changed: bool, all: impl Iterator<Item = NodeId>) -> BTreeSet<NodeId> {
        let mut telling = lock(&self.telling);
        if changed || telling.last.elapsed() >= self.period {
            telling.last = Instant::now();
            telling.untold.extend(all);
        }
        std::mem::take(&mut telling.untold)
    }

    fn is_full(&self, node: NodeId) -> bool {
        self.began.elapsed().as_millis() < u128::from(self.full[&node].load(Ordering::Relaxed))
    }

    /// Whether one more delete of what is not here may be let in though a replica is full.
    fn take_exception(&self) -> bool {
        self.exceptions.fetch_add(1, Ordering::Relaxed) < self.most_exceptions
    }

    fn none_full(&self) -> bool {
        let mut until = self.full.values().map(|full| full.load(Ordering::Relaxed));
        until.all(|until| until == 0)
    }
}

impl Node {
    /// Whether this node holds as much as it may.
    pub fn is_full(&self) -> bool {
        self.capacity.is_full(self.id)
    }

    /// Looks how much this node holds, and tells peers what they may not know. Called by one thread
    /// alone, so that no peer is told last what was true before.
    pub(super) fn check_capacity(&self) {
        let (bytes, limit) = (self.store.data_bytes(), self.config.data_memory());
        let before = self.is_full();
        let full = bytes >= limit || before && bytes >= limit - limit / FREE_AGAIN;
        self.capacity.heard(self.id, full);
        if full != before {
            let (held, limit) = (bytes >> 20, limit >> 20);
            if full {
                warn!(
                    "{}: holds {held} MiB of data, and may hold {limit} (data_memory_mib): answers \
                     BUSY to writes of its keys until some are deleted",
                    self.id
                );
            } else {
                info!(
                    "{}: holds {held} MiB of data, and takes writes again",
                    self.id
                );
            }
        }
        let peers = self.peers.ids();
        for peer in self.capacity.take_untold(full != before, peers) {
            self.peers[peer].tell(Request::Full(full));
        }
    }

    /// The replica that has no room for what an operation may add, if there is one. One without a
    /// connection is not counted: it is away, and does not grow.
    pub(super) fn full_replica(&self, key: &Key, operation: &Operation) -> Option<NodeId> {
        let Operation::Write { dot, change } = operation else {
            return None;
        };
        if self.capacity.none_full() {
            return None;
        }
        let lacks = |node: &&NodeId| {
            let away = || {
                self.peers
                    .get(**node)
                    .is_some_and(|link| !link.has_connection())
            };
            self.capacity.is_full(**node) && !away()
        };
        let full = self.ring.preference_list(key).iter().find(lacks)?;
        let adds_nothing = match self.store.state(key) {
            // A retry of what was done is told so.
            Some(state) if state.decided_of(dot.origin) >= dot.sequence => true,
            Some(_) => *change == Change::Delete,
            // With its range in doubt, what is to be deleted may be just what is missing here. If it is
            // nowhere, its refusal adds a record.
            None => {
                let range = self.ring.range_at(Position::of(key.as_slice()));
                *change == Change::Delete
                    && self.anti_entropy.doubts(range)
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
    fn peers_are_told_when_they_return_all_after_a_change_and_now_and_then() {
        let ids = [1, 2, 3].map(NodeId);
        let peers = &ids[1..];
        let ring = Ring::new(ids, 3);
        let mut room = Capacity::new(&ring, Duration::from_secs(3600), 1 << 20);
        let receivers = |room: &Capacity, changed| {
            Vec::from_iter(room.take_untold(changed, peers.iter().copied()))
        };
        assert_eq!(receivers(&room, false), []);
        room.returned(NodeId(3));
        assert_eq!(receivers(&room, false), [NodeId(3)]);
        assert_eq!(receivers(&room, false), []);
        assert_eq!(receivers(&room, true), peers);
        room.period = Duration::ZERO;
        assert_eq!(receivers(&room, false), peers);
    }

    #[test]
    fn a_node_that_does_not_tell_again_that_it_is_full_is_not_counted_any_more() {
        let ring = Ring::new([1, 2, 3].map(NodeId), 3);
        let mut room = Capacity::new(&ring, Duration::from_secs(3600), 1 << 20);
        room.heard(NodeId(2), true);
        assert!(room.is_full(NodeId(2)) && !room.is_full(NodeId(1)));
        room.heard(NodeId(2), false);
        assert!(!room.is_full(NodeId(2)));
        room.period = Duration::ZERO;
        room.heard(NodeId(2), true);
        assert!(!room.is_full(NodeId(2)));
    }

    #[test]
    fn deletes_of_what_is_not_here_add_no_more_than_a_sixteenth_to_what_a_full_node_holds() {
        let ring = Ring::new([1, 2, 3, 4, 5].map(NodeId), 3);
        let limit = 1 << 20;
        let room = Capacity::new(&ring, Duration::from_secs(3600), limit);
        let let_in = || (0..limit).take_while(|_| room.take_exception()).count();
        room.heard(NodeId(2), true);
        let most = let_in();
        // A replica holds three ranges, of one coordinator each.
        assert!(most > 0 && 3 * most * REFUSAL <= limit / FREE_AGAIN);
        room.heard(NodeId(3), true);
        assert_eq!(let_in(), 0);
        room.heard(NodeId(2), false);
        room.heard(NodeId(3), false);
        room.heard(NodeId(2), true);
        assert_eq!(let_in(), most);
    }
}
