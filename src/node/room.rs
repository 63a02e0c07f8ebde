//! Room for data: a node holds all its records in memory, and no more of them than it may.
//!
//! A node that holds as much as it may tells all others so, and tells them again when there is
//! room. Coordinators then turn away whatever would let one of a key's replicas grow, before they
//! have proposed it: it is certainly not done. Votes are never refused for want of room, so that
//! what was proposed comes to its end and a replica that was away copies what it missed. A node
//! may therefore hold somewhat more: what is proposed until its peers have heard of it, and what it
//! missed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use log::{info, warn};

use super::Node;
use crate::bytes::Key;
use crate::lock;
use crate::peer::Request;
use crate::register::{Change, Operation};
use crate::ring::{NodeId, Ring};

/// Which nodes hold as much as they may, this one too.
pub struct Room {
    full: BTreeMap<NodeId, AtomicBool>,
    /// Peers that may not know how it is here.
    untold: Mutex<BTreeSet<NodeId>>,
}

impl Room {
    pub fn new(ring: &Ring) -> Room {
        let members = ring.members().iter();
        Room {
            full: members
                .map(|(_, node)| (*node, AtomicBool::new(false)))
                .collect(),
            untold: Mutex::default(),
        }
    }

    /// A peer is there again, and may not have heard what it was told.
    pub fn returned(&self, peer: NodeId) {
        lock(&self.untold).insert(peer);
    }

    /// A node has told whether it is full.
    pub fn heard(&self, node: NodeId, full: bool) {
        self.full[&node].store(full, Ordering::Relaxed);
    }

    fn is_full(&self, node: NodeId) -> bool {
        self.full[&node].load(Ordering::Relaxed)
    }

    fn none_full(&self) -> bool {
        !self.full.values().any(|full| full.load(Ordering::Relaxed))
    }
}

impl Node {
    /// Whether this node holds as much as it may.
    pub fn is_full(&self) -> bool {
        self.room.is_full(self.id)
    }

    /// Looks how much this node holds, and tells peers what they do not know. Called by one thread
    /// alone, so that no peer hears last what was true before.
    pub(super) fn look_at_room(&self) {
        let (bytes, limit) = (self.store.data_bytes(), self.config.data_memory());
        let full = bytes >= limit;
        if full != self.is_full() {
            self.room.heard(self.id, full);
            lock(&self.room.untold).extend(self.links.keys());
            let (held, limit) = (bytes >> 20, limit >> 20);
            if full {
                warn!(
                    "{}: holds {held} MiB of data, and may hold {limit} (data_memory_mib): writes of \
                     its keys are told BUSY until some are deleted",
                    self.id
                );
            } else {
                info!(
                    "{}: holds {held} MiB of data, and takes more again",
                    self.id
                );
            }
        }
        for peer in std::mem::take(&mut *lock(&self.room.untold)) {
            self.links[&peer].tell(Request::Full(full));
        }
    }

    /// The replica that has no room for what an operation adds, if there is one. What deletes is
    /// let in wherever there is something to delete. One that is silent is not asked: it does not
    /// grow, and may have room by now.
    pub(super) fn without_room(&self, key: &Key, operation: &Operation) -> Option<NodeId> {
        let Operation::Write { change, .. } = operation else {
            return None;
        };
        if self.room.none_full() {
            return None;
        }
        let lacks = |node: &&NodeId| {
            let silent = || self.links.get(node).is_some_and(|link| link.suspect());
            self.room.is_full(**node) && !silent()
        };
        let full = self.ring.preference_list(key).iter().find(lacks)?;
        let deletes = *change == Change::Delete && self.store.has_record(key);
        (!deletes).then_some(*full)
    }
}
