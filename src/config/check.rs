//! The conditions that a cluster file has to meet.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use super::{Config, MOST_NODES};
use crate::protocol::Strategy;

/// How many replicas a key has in a cluster that runs chains.
const CHAIN: usize = 3;
/// The memory that one largest request takes, in MiB.
const LEAST_MEMORY: u64 = 32;
/// A day in milliseconds.
const DAY: u64 = 24 * 3_600_000;
/// Why a request deadline has a least value.
const FOR_ALL: &str = ", so that a request can wait one read time-out for every replica of its key";
/// Why the age of a tombstone has one.
const FOR_LAST: &str = "; at least twice request_deadline_ms, so that every request that a dropped \
                        tombstone had absorbed has ended";

impl Config {
    /// # Errors
    /// What is wrong, and what would be right.
    pub(super) fn check(&self) -> Result<(), String> {
        if !(1..=64).contains(&self.name.len()) || !self.name.bytes().all(is_plain) {
            let name = &self.name;
            return Err(format!(
                "name is {name:?}: up to 64 letters, digits, dots, hyphens and underscores"
            ));
        }
        self.check_quorums()?;
        self.check_nodes()?;
        self.check_limits()
    }

    fn check_quorums(&self) -> Result<(), String> {
        let n = self.replicas;
        if n < 3 {
            return Err(format!(
                "replicas is {n}: it must be at least 3, to survive one failure"
            ));
        }
        if self.strategy == Strategy::Chain && n != CHAIN {
            return Err(format!(
                "replicas is {n}: with the strategy chain it must be {CHAIN}, since one member confirms the \
                 reads of a tail, and any two chains must have a member in common"
            ));
        }
        let reads = "a read could miss the last write, and a coordinator that restarts could have one \
                     ballot granted twice";
        let writes = "two writes could miss each other";
        for (name, quorum, danger) in [
            ("read_quorum", self.read_quorum, reads),
            ("write_quorum", self.write_quorum, writes),
        ] {
            // With R and W above half of N, R + W is more than N.
            if quorum <= n / 2 {
                return Err(format!(
                    "{name} is {quorum}: it must be more than half of replicas, {n}, or {danger}"
                ));
            }
            // A node that lost its folder has no vote while it copies. The others refresh the keys on which
            // they differ, and each quorum must be possible without that node.
            if quorum >= n {
                return Err(format!(
                    "{name} is {quorum}, and replicas is {n}: one node that is away would stop requests, and \
                     one that lost its data folder could never copy it from the others: at most {}",
                    n - 1
                ));
            }
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), String> {
        let clients = self.max_clients as u64;
        let memory = self.client_memory_mib as u64;
        let data = self.data_memory_mib as u64;
        let (deadline, age) = (self.request_deadline_ms, self.tombstone_age_ms);
        let waits = self
            .read_timeout_ms
            .saturating_mul(self.replicas as u64 + 1);
        let twice = deadline.saturating_mul(2);
        for (name, value, allowed, why) in [
            ("read_timeout_ms", self.read_timeout_ms, 10..=10_000, ""),
            ("line_timeout_ms", self.line_timeout_ms, 100..=DAY, ""),
            ("anti_entropy_ms", self.anti_entropy_ms, 100..=DAY, ""),
            ("max_clients", clients, 1..=1_000_000, ""),
            ("client_memory_mib", memory, LEAST_MEMORY..=1 << 20, ""),
            ("data_memory_mib", data, 1..=1 << 20, ""),
            ("request_deadline_ms", deadline, waits..=DAY / 24, FOR_ALL),
            ("tombstone_age_ms", age, twice..=30 * DAY, FOR_LAST),
        ] {
            if !allowed.contains(&value) {
                let (least, most) = (allowed.start(), allowed.end());
                return Err(format!("{name} is {value}: from {least} to {most}{why}"));
            }
        }
        Ok(())
    }

    fn check_nodes(&self) -> Result<(), String> {
        let (count, n) = (self.nodes.len(), self.replicas);
        if count < n {
            return Err(format!("replicas is {n}, but there are {count} nodes"));
        }
        if count > MOST_NODES {
            return Err(format!(
                "there are {count} nodes: at most {MOST_NODES} are possible"
            ));
        }
        let mut ids = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for (place, member) in self.nodes.iter().enumerate() {
            let (id, host) = (member.id, &member.host);
            if !ids.insert(id) {
                return Err(format!("nodes[{place}]: id {id} appears twice"));
            }
            if !is_host(host) {
                return Err(format!(
                    "nodes[{place}]: {host:?} is not the name of a host"
                ));
            }
            for port in [member.client_port, member.peer_port] {
                if !addresses.insert((host, port)) {
                    return Err(format!("nodes[{place}]: {host}:{port} appears twice"));
                }
            }
        }
        Ok(())
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_".contains(&byte)
}

/// Whether this is a name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(is_plain),
    }
}

/// A chain has no quorums, and words without a meaning are an error.
pub(super) fn has_no_quorums(text: &str) -> Result<(), String> {
    let file: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let named = ["read_quorum", "write_quorum"];
    match named.into_iter().find(|name| file.get(name).is_some()) {
        Some(name) => Err(format!(
            "{name} has no meaning with the strategy chain, where all members of a chain hold each write, two or \
             more of the replicas, and one more member confirms each read: leave it out"
        )),
        None => Ok(()),
    }
}
