//! How a connection says who has opened it.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::Inbound;
use crate::net::{Lines, Received};
use crate::peer::message::{Hello, PROTOCOL};
use crate::ring::NodeId;

/// A connection that has not said who it is after this time is closed, once it sends or a read
/// time-out passes.
pub(super) const WITHIN: Duration = Duration::from_secs(1);
/// The longest first line, in bytes: nothing but a [`Hello`] is expected of a stranger.
pub(super) const LONGEST: usize = 1 << 10;

impl Inbound {
    /// The peer that has opened a connection, by its first line.
    ///
    /// # Errors
    /// Why it is none of this cluster, and what to do.
    pub(super) fn await_hello(&self, lines: &mut Lines<TcpStream>) -> Result<NodeId, String> {
        let began = Instant::now();
        loop {
            let line = lines
                .next_line()
                .map_err(|_| "this is a port for nodes".to_owned())?;
            if let Some(line) = line {
                let hello = serde_json::from_slice(line)
                    .map_err(|_| "this is a port for nodes; clients use another".to_owned())?;
                return self.check(&hello);
            }
            let received = lines.receive().map_err(|error| error.to_string())?;
            if received == Received::End || began.elapsed() > WITHIN {
                return Err("no greeting".to_owned());
            }
        }
    }

    fn check(&self, hello: &Hello) -> Result<NodeId, String> {
        let Hello {
            protocol,
            cluster,
            from,
            to,
        } = hello;
        if *protocol != PROTOCOL {
            return Err(format!(
                "node {from} speaks version {protocol} of the protocol between nodes, node {} \
                 version {PROTOCOL}: run the same release on all nodes",
                self.node
            ));
        }
        if *cluster != self.cluster {
            return Err(format!(
                "node {from} belongs to cluster {cluster}, node {} to {}: give all nodes the same \
                 cluster file",
                self.node, self.cluster
            ));
        }
        if *to != self.node {
            return Err(format!(
                "node {from} looks for node {to}, but this is {}",
                self.node
            ));
        }
        if !self.peers.contains(from) {
            return Err(format!("node {from} is not a member of this cluster"));
        }
        Ok(*from)
    }
}
