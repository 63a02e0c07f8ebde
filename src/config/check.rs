//! The conditions that a cluster file has to meet.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use super::{Config, MOST_NODES};

/// The memory that one largest request takes, in MiB.
const LEAST_CLIENT_MEMORY: u64 = 32;
/// An hour in milliseconds.
const HOUR: u64 = 3_600_000;

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
        self.check_limits()?;
        self.check_nodes()
    }

    fn check_quorums(&self) -> Result<(), String> {
        let (n, r, w) = (self.replicas, self.read_quorum, self.write_quorum);
        if n < 3 {
            return Err(format!(
                "replicas is {n}: it must be at least 3, to survive one failure"
            ));
        }
        for (name, quorum) in [("read_quorum", r), ("write_quorum", w)] {
            if quorum < 1 || quorum > n {
                return Err(format!(
                    "{name} is {quorum}: it must be from 1 to replicas, {n}"
                ));
            }
        }
        if r + w <= n {
            return Err(format!(
                "read_quorum {r} + write_quorum {w} is not more than replicas {n}: a read could \
                 miss the last write"
            ));
        }
        if 2 * w <= n {
            return Err(format!(
                "twice write_quorum {w} is not more than replicas {n}: two writes could miss each \
                 other"
            ));
        }
        if 2 * r <= n {
            return Err(format!(
                "twice read_quorum {r} is not more than replicas {n}: a coordinator that restarts \
                 could have one ballot granted twice"
            ));
        }
        // A node that lost its folder has no vote while it copies. The others refresh the keys on which they
        // differ, and each quorum must be possible without that node.
        for (name, quorum) in [("read_quorum", r), ("write_quorum", w)] {
            if quorum == n {
                return Err(format!(
                    "{name} is {quorum}, and so is replicas: one node that is away would stop requests, \
                     and one that lost its data folder could never copy it from the others: at most {}",
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
        for (name, value, allowed) in [
            ("read_timeout_ms", self.read_timeout_ms, 10..=10_000),
            ("line_timeout_ms", self.line_timeout_ms, 100..=24 * HOUR),
            ("anti_entropy_ms", self.anti_entropy_ms, 100..=24 * HOUR),
            ("max_clients", clients, 1..=1_000_000),
            ("client_memory_mib", memory, LEAST_CLIENT_MEMORY..=1 << 20),
            ("data_memory_mib", data, 1..=1 << 20),
        ] {
            if !allowed.contains(&value) {
                let (least, most) = (allowed.start(), allowed.end());
                return Err(format!("{name} is {value}: from {least} to {most}"));
            }
        }
        let least = self.read_timeout_ms * (self.replicas as u64 + 1);
        if self.request_deadline_ms < least {
            return Err(format!(
                "request_deadline_ms is {}: at least {least}, so that a request can wait one \
                 read time-out for every replica of its key",
                self.request_deadline_ms
            ));
        }
        let least = self.request_deadline_ms.saturating_mul(2);
        if self.tombstone_age_ms < least {
            return Err(format!(
                "tombstone_age_ms is {}: at least {least}, twice request_deadline_ms, so that \
                 every request that a dropped tombstone had absorbed has ended",
                self.tombstone_age_ms
            ));
        }
        for (name, value, most) in [
            ("request_deadline_ms", self.request_deadline_ms, HOUR),
            ("tombstone_age_ms", self.tombstone_age_ms, 30 * 24 * HOUR),
        ] {
            if value > most {
                return Err(format!("{name} is {value}: at most {most}"));
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
