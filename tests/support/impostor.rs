//! A peer that the test plays itself: asks a node's replica what another node would ask.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use simple_dynamo::config::Config;
use simple_dynamo::peer::acquaintance::Introduction;
use simple_dynamo::peer::message::{Ask, Hello, PROTOCOL, Reply, Request, Tell, line};
use simple_dynamo::ring::NodeId;
use simple_dynamo::storage::Start;

use super::cluster::Cluster;

/// How long a reply may take that is sure to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to a node's port for peers, in another node's name.
pub struct Impostor {
    stream: BufReader<TcpStream>,
    start: Start,
    last_id: u64,
}

/// What a process says of itself whose folder is new.
pub fn unnumbered() -> Introduction {
    let (start, cluster_id) = (Start::numbered(0), None);
    Introduction { start, cluster_id }
}

impl Impostor {
    /// Greets `to` as `from`, which must be down: of two connections of one peer a node keeps the
    /// newer one only.
    pub fn greet(cluster: &Cluster, from: u32, to: u32) -> Impostor {
        let config = Config::read(&cluster.file(to)).unwrap();
        let stream = TcpStream::connect(cluster.peer_address(to)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let introduction = unnumbered();
        let mut impostor = Impostor {
            stream: BufReader::new(stream),
            start: introduction.start.clone(),
            last_id: 0,
        };
        let hello = Hello {
            protocol: PROTOCOL,
            cluster: config.fingerprint(),
            from: NodeId(from),
            to: NodeId(to),
            introduction,
        };
        impostor.stream.get_mut().write_all(&line(&hello)).unwrap();
        let welcome = impostor.receive();
        assert!(welcome.starts_with("{\"welcome\":"), "{welcome}");
        impostor
    }

    /// Sends a question; its number names the answer.
    pub fn ask(&mut self, request: Request) -> u64 {
        self.ask_times(1, request)
    }

    /// Sends a question so many times, as a network may double it.
    pub fn ask_times(&mut self, times: usize, request: Request) -> u64 {
        self.last_id += 1;
        let ask = Ask {
            id: self.last_id,
            ask: request,
        };
        let lines = line(&ask).repeat(times);
        self.stream.get_mut().write_all(&lines).unwrap();
        self.last_id
    }

    /// Tells the id of its data folder, and whether it votes; waits until that is answered.
    pub fn join(&mut self, storage: &str, votes: bool) {
        let storage = serde_json::from_value(storage.into()).unwrap();
        let start = self.start.clone();
        let asked = self.ask(Request::Join {
            storage,
            start,
            votes,
            resumed: None,
        });
        while self.reply().0 != asked {}
    }

    /// What is answered at once, to the questions so far.
    pub fn replies(&mut self) -> Vec<(u64, Reply)> {
        // A ping never waits for the disk.
        let last = self.ask(Request::Ping);
        let mut replies = Vec::new();
        loop {
            match self.reply() {
                (id, _) if id == last => return replies,
                reply => replies.push(reply),
            }
        }
    }

    fn reply(&mut self) -> (u64, Reply) {
        let Tell { id, tell } = serde_json::from_str(&self.receive()).unwrap();
        (id, tell)
    }

    fn receive(&mut self) -> String {
        let mut text = String::new();
        self.stream.read_line(&mut text).unwrap();
        text
    }
}
