//! How a connection says who has opened it.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::Inbound;
use crate::protocol::ring::NodeId;
use crate::storage::Start;
use crate::transport::message::{Hello, PROTOCOL, Welcome};
use crate::transport::{Lines, Received};

/// A connection that has not said who it is after this time is closed, once it sends or a read
/// time-out passes.
pub(super) const WITHIN: Duration = Duration::from_secs(1);
/// The longest first line, in bytes: nothing but a [`Hello`] is expected of a stranger.
pub(super) const LONGEST: usize = 1 << 10;

/// What the greeting of any release says.
#[derive(Deserialize)]
struct Version {
    protocol: u32,
    from: NodeId,
}

impl Inbound {
    /// The peer that has opened a connection and which of its processes it is, by its first line.
    ///
    /// # Errors
    /// Why it is none of this cluster, or not the process that may be this peer, and what to do.
    pub(super) fn await_hello(
        &self,
        lines: &mut Lines<TcpStream>,
    ) -> Result<(NodeId, Start), Welcome> {
        let refused = |why: &str| Welcome::Refused(why.to_owned());
        let began = Instant::now();
        loop {
            let line = lines
                .next_line()
                .map_err(|_| refused("this is a port for nodes"))?;
            if let Some(line) = line {
                // What else is in the greeting of another release is not known here.
                let Version { protocol, from } = serde_json::from_slice(line)
                    .map_err(|_| refused("this is a port for nodes; clients use another"))?;
                self.check_version(protocol, from)
                    .map_err(Welcome::Refused)?;
                let hello: Hello = serde_json::from_slice(line)
                    .map_err(|_| refused("this is a port for nodes; clients use another"))?;
                self.check_names(&hello).map_err(Welcome::Refused)?;
                self.service.meet(hello.from, &hello.introduction)?;
                return Ok((hello.from, hello.introduction.start));
            }
            let received = lines
                .receive()
                .map_err(|error| refused(&error.to_string()))?;
            if received == Received::End || began.elapsed() > WITHIN {
                return Err(refused("no greeting"));
            }
        }
    }

    fn check_version(&self, protocol: u32, from: NodeId) -> Result<(), String> {
        if protocol == PROTOCOL {
            return Ok(());
        }
        Err(format!(
            "node {from} speaks version {protocol} of the protocol between nodes, node {} \
             version {PROTOCOL}: run the same release on all nodes",
            self.node
        ))
    }

    fn check_names(&self, hello: &Hello) -> Result<(), String> {
        let Hello {
            cluster, from, to, ..
        } = hello;
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
        Ok(())
    }
}
