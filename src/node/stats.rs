//! Counters, and the replies to `STATS` and `RING`.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Node;
use crate::bytes::Key;
use crate::config::Member;
use crate::protocol::chain;
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
    /// Epochs of chains that this node proposed and that began.
    pub epochs: Counter,
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
        let up_to_date = match (self.votes(), self.strategy.chain()) {
            (false, _) => 0,
            (true, Some(_)) => self
                .chains()
                .iter()
                .filter(|(_, chain)| chain.serves)
                .count(),
            (true, None) => ranges - self.anti_entropy.doubted(),
        };
        let yes = |it| if it { "yes" } else { "no" };
        let (records, tombstones) = self.store.counts();
        let (groups, members) = self.groups.counts();
        let stats = &self.stats;
        let lines: [(&str, &dyn Display); 32] = [
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
            ("epochs_begun", &stats.epochs.get()),
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
        let lines = lines.iter().map(|(name, value)| format!("{name} {value}"));
        let chains = self.chains();
        let chains = chains.iter().map(|(range, chain)| {
            let owner = self.ring.replicas_of_range(*range)[0];
            format!("chain_{owner} {}", self.describe_chain(*range, chain))
        });
        lines.chain(chains).collect()
    }

    /// The chains of this node's ranges.
    fn chains(&self) -> Vec<(usize, chain::Status)> {
        let ranges = self.ring.ranges_of(self.id).into_iter();
        ranges
            .filter_map(|range| Some((range, self.chain_status(range)?)))
            .collect()
    }

    /// The chain of a range in words: its epoch, its members from head to tail, and who is left out.
    pub fn describe_chain(&self, range: usize, chain: &chain::Status) -> String {
        let names = |nodes: &[NodeId], between: &str| {
            let names: Vec<_> = nodes.iter().map(NodeId::to_string).collect();
            names.join(between)
        };
        let (epoch, members) = (chain.adopted.epoch, &chain.adopted.members);
        let mut text = format!("epoch {epoch}: {}", names(members, " -> "));
        let suspects = self.peers.suspects();
        let mut out = self.ring.replicas_of_range(range).to_vec();
        out.retain(|replica| !members.contains(replica));
        for replica in out {
            let why = if suspects.contains(&replica) {
                "silent"
            } else {
                "catching up"
            };
            text += &format!(", without {replica} ({why})");
        }
        text + match (chain.serves, chain.at_work) {
            (true, _) => "",
            (false, true) => ", which this node is beginning",
            (false, false) => ", which this node does not serve",
        }
    }

    /// The chain of the range of a key, if this node holds the key and runs chains.
    pub fn chain_of(&self, key: &Key) -> Option<String> {
        let range = self.ring.range_at(Position::of_key(key));
        let chain = self.chain_status(range)?;
        Some(self.describe_chain(range, &chain))
    }
}
