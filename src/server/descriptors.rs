//! Open files: each client takes some, and the rest of the node must not run out of them.

use std::io;

use log::warn;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::transport::inbound::MOST_STRANGERS;

/// A client's socket, to receive and to send.
const PER_CLIENT: u64 = 2;
/// A connection of a peer or of a stranger: to receive, to send, and to be closed.
const PER_PEER: u64 = 3;
/// The data folder, logs, snapshots, listeners, and one who is told that there is no room.
const OTHERS: u64 = 24;

/// Raises the limit of open files, and returns how many clients there is room for: `max_clients`,
/// unless that takes more than the system allows.
pub fn allowed_clients(config: &Config) -> usize {
    // Each peer has a connection to this node and one from it, and may be opening others anew.
    let peers = MOST_STRANGERS + 4 * config.nodes.len();
    let reserved = OTHERS + PER_PEER * peers as u64;
    let wanted = reserved + PER_CLIENT * config.max_clients as u64;
    let allowed = allow(wanted).unwrap_or_else(|error| {
        warn!("the limit of open files cannot be raised: {error}");
        getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
    });
    if allowed >= wanted {
        return config.max_clients;
    }
    let most = (allowed.saturating_sub(reserved) / PER_CLIENT).max(1);
    warn!(
        "serves {most} clients at a time at most: {} of them would take {wanted} open files, \
         and the limit is {allowed} (ulimit -n)",
        config.max_clients
    );
    most as usize
}

/// Raises the limit as far as wanted and possible; returns what it is.
pub fn allow(wanted: u64) -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let allowed = limit.current.unwrap_or(u64::MAX);
    if allowed >= wanted {
        return Ok(allowed);
    }
    let most = limit.maximum.map_or(wanted, |most| most.min(wanted));
    let raised = Rlimit {
        current: Some(most),
        ..limit
    };
    setrlimit(Resource::Nofile, raised)?;
    Ok(most)
}
