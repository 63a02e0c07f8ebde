//! The answering side of the handshake: receives a [`Hello`] and checks it.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::Inbound;
use crate::protocol::Strategy;
use crate::protocol::ring::NodeId;
use crate::storage::Start;
use crate::transport::handshake::{Hello, PROTOCOL, Welcome};
use crate::transport::{Lines, Received};

/// How long a connection may take for its hello. It is closed when it sends something after that, or
/// after one more read time-out of this length.
pub(super) const TIMEOUT: Duration = Duration::from_secs(1);
/// The longest hello, in bytes. A stranger is not given more memory.
pub(super) const MAX_HELLO: usize = 1 << 10;

/// The part of a hello that all releases understand.
#[derive(Deserialize)]
struct Version {
    protocol: u32,
    from: NodeId,
}

impl Inbound {
    /// Waits for the first line of a connection. Returns the peer that has opened it, and which of its
    /// processes this is.
    ///
    /// # Errors
    /// The refusal: why the sender is not a peer of this cluster, or not the process that may be this
    /// peer, and what to do.
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
                let hello = self.check(line).map_err(Welcome::Refused)?;
                self.service.meet(hello.from, &hello.introduction)?;
                return Ok((hello.from, hello.introduction.start));
            }
            let received = lines
                .receive()
                .map_err(|error| refused(&error.to_string()))?;
            if received == Received::End || began.elapsed() > TIMEOUT {
                return Err(refused("no greeting"));
            }
        }
    }

    /// Whether a hello is for this node, and from a peer that speaks the same protocol.
    fn check(&self, line: &[u8]) -> Result<Hello, String> {
        let node = self.node;
        let unknown = |_| "this is a port for nodes; clients use another".to_owned();
        // The version comes first: another release may not understand the rest.
        let Version { protocol, from } = serde_json::from_slice(line).map_err(unknown)?;
        if protocol != PROTOCOL {
            return Err(format!(
                "node {from} speaks version {protocol} of the protocol between nodes, node {node} \
                 version {PROTOCOL}: run the same release on all nodes"
            ));
        }
        let hello: Hello = serde_json::from_slice(line).map_err(unknown)?;
        let (theirs, ours) = (Strategy::of(&hello.cluster), Strategy::of(&self.cluster));
        if theirs != ours {
            return Err(format!(
                "node {from} runs the strategy {theirs}, and node {node} {ours}: give all nodes the same cluster file"
            ));
        }
        if hello.cluster != self.cluster {
            return Err(format!(
                "node {from} belongs to cluster {}, node {node} to {}: give all nodes the same \
                 cluster file",
                hello.cluster, self.cluster
            ));
        }
        if hello.to != node {
            let to = hello.to;
            return Err(format!(
                "node {from} looks for node {to}, but this is {node}"
            ));
        }
        if !self.peers.contains(&from) {
            return Err(format!("node {from} is not a member of this cluster"));
        }
        Ok(hello)
    }
}
