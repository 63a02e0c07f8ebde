//! Counters, and the replies to `STATS` and `RING`.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Node;
use crate::config::Member;
use crate::protocol::ring::{NodeId, Position};
use crate::storage::{ClusterId, Standing};

/// A number that only grows.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a node has done since it started.
#[derive(Default)]
pub struct Stats {
    /// Requests of this node's clients for one key.
    pub requests: Counter,
    /// Requests that ended with an error.
    pub failures: Counter,
    /// Requests of this node's clients that it sent to another node as the coordinator.
    pub forwarded: Counter,
    /// Replicas that a read brought up to date.
    pub read_repairs: Counter,
    /// Keys that anti-entropy found newer elsewhere and pulled.
    pub pulled: Counter,
    /// Pulled keys that needed a refresh.
    pub refreshed: Counter,
    /// How often this node has looked at all its tombstones.
    pub tombstone_looks: Counter,
    /// Tombstones that all replicas held, so that this node dropped them.
    pub dropped: Counter,
    /// Ranges that anti-entropy compared with another replica.
    pub compared: Counter,
    /// Messages that this node appended to groups for its clients.
    pub group_messages: Counter,
    /// How often a message had to wait because a page was to be stored first.
    pub group_full: Counter,
    /// How often a group was read because a message was missing.
    pub gaps_healed: Counter,
    /// Keys that this node copied from the others because it had lost its folder.
    pub copied: Counter,
}

impl Node {
    /// The lines of `RING`, which are the nodes in ring order.
    pub fn describe_ring(&self) -> Vec<String> {
        let suspects = self.peers.suspects();
        let describe = |(position, node): &(Position, NodeId)| {
            let member = self.config.member(*node);
            let address = member.map(Member::client_address).unwrap_or_default();
            let state = match node {
                node if *node == self.id => "self",
                node if suspects.contains(node) => "suspect",
                _ => "up",
            };
            format!("NODE {node} {position} {address} {state}")
        };
        self.ring.members().iter().map(describe).collect()
    }

    /// The lines of `STATS`, each of which is a name and a value.
    pub fn describe_stats(&self) -> Vec<String> {
        let identity = self.store.identity().clone();
        let standing = match identity.standing {
            Standing::Whole => "whole",
            Standing::New => "new",
            Standing::Lost | Standing::Outdated => "copying",
        };
        let cluster_id = identity.cluster_id.as_ref();
        let cluster_id = cluster_id.map_or("none".to_owned(), ClusterId::to_string);
        let ranges = self.ring.ranges_of(self.id).len();
        let up_to_date = if self.votes() {
            ranges - self.anti_entropy.doubted()
        } else {
            0
        };
        let yes = |it| if it { "yes" } else { "no" };
        let (records, tombstones) = self.store.counts();
        let (groups, members) = self.groups.counts();
        let stats = &self.stats;
        let lines: [(&str, &dyn Display); 31] = [
            ("node", &self.id),
            ("cluster", &self.config.fingerprint()),
            ("cluster_id", &cluster_id),
            ("start", &identity.start.number),
            ("uptime_seconds", &self.began.elapsed().as_secs()),
            ("storage", &identity.storage),
            ("storage_standing", &standing),
            ("keys_copied", &stats.copied.get()),
            ("votes", &yes(self.votes())),
            ("keys", &(records - tombstones)),
            ("tombstones", &tombstones),
            ("data_bytes", &self.store.data_bytes()),
            ("full", &yes(self.is_full())),
            ("log_bytes", &self.store.log_bytes()),
            ("ranges", &ranges),
            ("ranges_up_to_date", &up_to_date),
            ("ranges_compared", &stats.compared.get()),
            ("keys_pulled", &stats.pulled.get()),
            ("keys_restored", &stats.refreshed.get()),
            ("tombstone_looks", &stats.tombstone_looks.get()),
            ("tombstones_dropped", &stats.dropped.get()),
            ("read_repairs", &stats.read_repairs.get()),
            ("groups", &groups),
            ("group_members", &members),
            ("group_messages", &stats.group_messages.get()),
            ("group_full", &stats.group_full.get()),
            ("group_gaps_healed", &stats.gaps_healed.get()),
            ("requests", &stats.requests.get()),
            ("requests_failed", &stats.failures.get()),
            ("requests_forwarded", &stats.forwarded.get()),
            ("requests_in_flight", &self.in_flight()),
        ];
        lines
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect()
    }
}
