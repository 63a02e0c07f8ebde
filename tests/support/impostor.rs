//! A peer that the test plays itself. It asks a node what another node would ask.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use simple_dynamo::config::Config;
use simple_dynamo::protocol::ring::NodeId;
use simple_dynamo::storage::Start;
use simple_dynamo::transport::handshake::{Hello, Introduction, PROTOCOL, Welcome};
use simple_dynamo::transport::message::{Ask, Join, Reply, Request, Tell, line};

use super::cluster::Cluster;

/// How long a test waits for a reply before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to a node's port for peers, in another node's name.
pub struct Impostor {
    stream: BufReader<TcpStream>,
    start: Start,
    last_id: u64,
}

/// The introduction of a process whose folder is new.
pub fn unnumbered() -> Introduction {
    let (start, cluster_id) = (Start::numbered(0), None);
    Introduction { start, cluster_id }
}

impl Impostor {
    /// Greets `to` as `from`, which must be down: of two connections of one peer a node keeps the
    /// newer one only.
    pub fn greet(cluster: &Cluster, from: u32, to: u32) -> Impostor {
        Impostor::greet_as(unnumbered(), cluster, from, to)
    }

    /// Greets `to` as `from`, with this introduction.
    pub fn greet_as(introduction: Introduction, cluster: &Cluster, from: u32, to: u32) -> Impostor {
        let config = Config::read(&cluster.file(to)).unwrap();
        let stream = TcpStream::connect(cluster.peer_address(to)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
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

    /// Sends a question. Returns its id, which the answer carries, too.
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

    /// Sends the id of its data folder, and whether it votes. Waits until that is answered.
    pub fn join(&mut self, storage: &str, votes: bool) {
        let storage = serde_json::from_value(storage.into()).unwrap();
        let start = self.start.clone();
        let asked = self.ask(Request::Join(Join {
            storage,
            start,
            votes,
            resumed: None,
        }));
        while self.reply().0 != asked {}
    }

    /// The answers that have come to the questions so far, without those that wait for the disk.
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

/// Plays the node `id`, which must be down: answers whatever other nodes ask it, until the tests end.
/// Returns the introduction that it gives.
pub fn play(
    cluster: &Cluster,
    id: u32,
    answer: impl Fn(Request) -> Reply + Send + Sync + 'static,
) -> Introduction {
    let played = unnumbered();
    let welcome = line(&Welcome::Welcome(played.clone()));
    let listener = TcpListener::bind(cluster.peer_address(id)).unwrap();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, welcome, answer) = (stream.unwrap(), welcome.clone(), answer.clone());
            // An error means that the node has gone.
            thread::spawn(move || drop(answer_all(stream, &welcome, answer.as_ref())));
        }
    });
    played
}

fn answer_all(
    mut stream: TcpStream,
    welcome: &[u8],
    answer: &dyn Fn(Request) -> Reply,
) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    lines.next().transpose()?;
    stream.write_all(welcome)?;
    for text in lines {
        let Ask { id, ask } = serde_json::from_str(&text?)?;
        let tell = answer(ask);
        if id != 0 {
            stream.write_all(&line(&Tell { id, tell }))?;
        }
    }
    Ok(())
}
