//! A client's connection to either store.

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
    Routed(Box<RoutedClient>),
    Etcd(Box<Client>),
}

/// A connection on which lines are exchanged.
pub struct Lines(BufReader<TcpStream>);

impl Connection {
    /// Connects client number `place`; the clients are spread over the nodes.
    pub async fn open(target: &Target, place: usize) -> Result<Connection, String> {
        let address = &target.addresses[place % target.addresses.len()];
        let failed = |error: &dyn std::fmt::Display| format!("{address}: {error}");
        match target.protocol {
            Protocol::Text => {
                let stream = TcpStream::connect(address).await.map_err(|e| failed(&e))?;
                stream.set_nodelay(true).map_err(|e| failed(&e))?;
                Ok(Connection::Text(Lines(BufReader::new(stream))))
            }
            Protocol::Routed => {
                let client = RoutedClient::connect(&target.addresses, PATIENCE);
                Ok(Connection::Routed(Box::new(
                    client.map_err(|e| failed(&e))?,
                )))
            }
            Protocol::Etcd => {
                let client = Client::connect([address], None)
                    .await
                    .map_err(|e| failed(&e))?;
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
            Connection::Routed(client) => done(&client.call(key, &line)),
            Connection::Etcd(client) => write(client, key, value).await,
        }
    }
}

impl Lines {
    pub async fn send(&mut self, lines: String) -> Result<(), String> {
        let sent = self.0.get_mut().write_all(lines.as_bytes()).await;
        sent.map_err(|error| error.to_string())
    }

    /// Waits for the reply to the oldest request.
    pub async fn receive(&mut self) -> Result<(), String> {
        let mut reply = String::new();
        let received = self.0.read_line(&mut reply).await;
        match received.map_err(|error| error.to_string())? {
            0 => Err("the node closed the connection".to_owned()),
            _ => done(&reply),
        }
    }

    /// Whether a reply has come already.
    pub fn has_reply(&self) -> bool {
        self.0.buffer().contains(&b'\n')
    }
}

/// What a reply of this store says.
pub fn done(reply: &str) -> Result<(), String> {
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
