//! A client's connection to either store.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::Client;
use simple_dynamo::client::routed::RoutedClient;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::options::{Protocol, Target};

/// How long a client that knows the ring waits for a node.
const PATIENCE: Duration = Duration::from_secs(10);

/// One client's connection to one of the nodes, or to all.
pub enum Connection {
    Text(Lines),
    Routed(Nodes),
    Etcd(Box<Client>),
}

/// A connection on which lines are exchanged.
pub struct Lines {
    stream: BufReader<TcpStream>,
    queued: String,
    /// Replies to what is queued.
    expected: usize,
}

/// Connections to all nodes of this store, for a client that knows the ring.
pub struct Nodes {
    ring: RoutedClient,
    by_address: BTreeMap<String, Lines>,
}

impl Connection {
    /// Connects client number `place`; the clients are spread over the nodes.
    pub async fn open(target: &Target, place: usize) -> Result<Connection, String> {
        let address = &target.addresses[place % target.addresses.len()];
        match target.protocol {
            Protocol::Text => Ok(Connection::Text(Lines::open(address).await?)),
            Protocol::Routed => Ok(Connection::Routed(Nodes::open(&target.addresses).await?)),
            Protocol::Etcd => {
                let client = Client::connect([address], None)
                    .await
                    .map_err(|error| format!("{address}: {error}"))?;
                Ok(Connection::Etcd(Box::new(client)))
            }
        }
    }

    /// Writes a key once, durably: both stores do unless told otherwise.
    pub async fn write(&mut self, key: &str, value: &str) -> Result<(), String> {
        let line = format!("PUT {key} {value}");
        match self {
            Connection::Text(lines) => {
                lines.send(line + "\n").await?;
                lines.receive().await
            }
            Connection::Routed(nodes) => {
                let connection = nodes.of(key)?;
                connection.send(line + "\n").await?;
                connection.receive().await
            }
            Connection::Etcd(client) => write(client, key, value).await,
        }
    }
}

impl Nodes {
    async fn open(addresses: &[String]) -> Result<Nodes, String> {
        let ring = RoutedClient::connect(addresses, PATIENCE).map_err(|error| error.to_string())?;
        let mut by_address = BTreeMap::new();
        for address in addresses {
            by_address.insert(address.clone(), Lines::open(address).await?);
        }
        Ok(Nodes { ring, by_address })
    }

    /// The connection to the coordinator of a key.
    pub fn of(&mut self, key: &str) -> Result<&mut Lines, String> {
        let address = self.ring.coordinator(&key.into());
        self.by_address
            .get_mut(address)
            .ok_or_else(|| format!("RING tells {address}, which is not among the addresses"))
    }

    pub fn all(&mut self) -> impl Iterator<Item = &mut Lines> {
        self.by_address.values_mut()
    }
}

impl Lines {
    async fn open(address: &str) -> Result<Lines, String> {
        let failed = |error: std::io::Error| format!("{address}: {error}");
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Lines {
            stream: BufReader::new(stream),
            queued: String::new(),
            expected: 0,
        })
    }

    /// Queues a request, which [`Lines::flush`] sends.
    pub fn queue(&mut self, line: &str) {
        self.queued += line;
        self.queued.push('\n');
        self.expected += 1;
    }

    /// Sends what is queued; returns how many replies are to come.
    pub async fn flush(&mut self) -> Result<usize, String> {
        if !self.queued.is_empty() {
            let lines = std::mem::take(&mut self.queued);
            self.send(lines).await?;
        }
        Ok(std::mem::take(&mut self.expected))
    }

    pub async fn send(&mut self, lines: String) -> Result<(), String> {
        let sent = self.stream.get_mut().write_all(lines.as_bytes()).await;
        sent.map_err(|error| error.to_string())
    }

    /// Waits for the reply to the oldest request.
    pub async fn receive(&mut self) -> Result<(), String> {
        let mut reply = String::new();
        let received = self.stream.read_line(&mut reply).await;
        match received.map_err(|error| error.to_string())? {
            0 => Err("the node closed the connection".to_owned()),
            _ => done(&reply),
        }
    }

    /// Whether a reply has come already.
    pub fn has_reply(&self) -> bool {
        self.stream.buffer().contains(&b'\n')
    }
}

/// What a reply of this store says.
fn done(reply: &str) -> Result<(), String> {
    if reply.starts_with("ERROR") {
        return Err(reply.trim().to_owned());
    }
    Ok(())
}

/// Writes a key of etcd.
pub async fn write(client: &mut Client, key: &str, value: &str) -> Result<(), String> {
    let answer = client.put(key, value, None).await;
    answer.map(drop).map_err(|error| error.to_string())
}

/// Reads a key of etcd, linearizably, as this store does: both do unless told otherwise.
pub async fn read(client: &mut Client, key: &str) -> Result<(), String> {
    let answer = client.get(key, None).await;
    answer.map(drop).map_err(|error| error.to_string())
}
