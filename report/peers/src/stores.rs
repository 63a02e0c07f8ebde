//! A connection to either store, and the two requests that both know.

use etcd_client::Client;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::options::{Protocol, Target};

/// One client's connection to one of the nodes.
pub enum Connection {
    Text(BufReader<TcpStream>),
    Etcd(Box<Client>),
}

impl Connection {
    /// Connects client number `place`; the clients are spread over the nodes.
    pub async fn open(target: &Target, place: usize) -> Result<Connection, String> {
        let address = &target.addresses[place % target.addresses.len()];
        let failed = |error: &dyn std::fmt::Display| format!("{address}: {error}");
        match target.protocol {
            Protocol::Text => {
                let stream = TcpStream::connect(address).await.map_err(|e| failed(&e))?;
                stream.set_nodelay(true).map_err(|e| failed(&e))?;
                Ok(Connection::Text(BufReader::new(stream)))
            }
            Protocol::Etcd => {
                let client = Client::connect([address], None)
                    .await
                    .map_err(|e| failed(&e))?;
                Ok(Connection::Etcd(Box::new(client)))
            }
        }
    }

    /// Reads a key, linearizably: both stores do unless told otherwise.
    pub async fn read(&mut self, key: &str) -> Result<(), String> {
        match self {
            Connection::Text(stream) => request(stream, format!("GET {key}\n")).await,
            Connection::Etcd(client) => {
                let answer = client.get(key, None).await;
                answer.map(drop).map_err(|error| error.to_string())
            }
        }
    }

    /// Writes a key, durably: both stores do unless told otherwise.
    pub async fn write(&mut self, key: &str, value: &str) -> Result<(), String> {
        match self {
            Connection::Text(stream) => request(stream, format!("PUT {key} {value}\n")).await,
            Connection::Etcd(client) => {
                let answer = client.put(key, value, None).await;
                answer.map(drop).map_err(|error| error.to_string())
            }
        }
    }
}

async fn request(stream: &mut BufReader<TcpStream>, line: String) -> Result<(), String> {
    let sent = stream.get_mut().write_all(line.as_bytes()).await;
    sent.map_err(|error| error.to_string())?;
    let mut reply = String::new();
    let received = stream.read_line(&mut reply).await;
    match received.map_err(|error| error.to_string())? {
        0 => Err("the node closed the connection".to_owned()),
        _ if reply.starts_with("ERROR") => Err(reply.trim().to_owned()),
        _ => Ok(()),
    }
}
