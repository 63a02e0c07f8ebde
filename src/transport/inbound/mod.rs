//! The answering side: connections that other nodes opened.

mod hello;
mod replay_window;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use log::{debug, warn};

use super::handshake::{LocalNode, Welcome};
use super::message::{self, Ask, MAX_LINE, Reply, Request, Tell};
use crate::bytes::LARGE;
use crate::lock;
use crate::logging::Throttle;
use crate::protocol::ring::NodeId;
use crate::protocol::{Outcome, Why};
use crate::storage::Start;
use crate::transport::{self, Budget, Lines, Outgoing, Received};
use replay_window::ReplayWindow;

/// A [large](LARGE) value is not sent while so many bytes wait for the same peer, because many small
/// replies would wait behind it.
const MOST_BEFORE_LARGE: usize = 8 << 20;
/// How many connections may be without a hello. One more replaces the oldest of them, so that strangers
/// cannot keep peers out: a peer sends its hello at once.
pub const MOST_STRANGERS: usize = 64;
/// After several questions came at once, the thread yields the processor before each of so many reads.
/// Threads that are ready to send more questions run first, and one system call then takes all of them,
/// without a sleep and a wake-up for each. The questions of a single client never come at once, and
/// would gain nothing.
const YIELDS: usize = 1000;

/// What a node does with the questions of its peers.
pub trait Service: LocalNode {
    /// Answers one question, now or later. Must not wait for another node, because other nodes wait for
    /// the thread that calls it.
    fn serve(self: Arc<Self>, from: NodeId, request: Request, respond: Respond);
}

/// Sends the answer to one question.
#[derive(Clone)]
pub struct Respond {
    connection: Arc<Outgoing>,
    id: u64,
}

impl Respond {
    /// Sends the answer, unless none is wanted.
    pub fn reply(self, reply: Reply) {
        if self.id == 0 {
            return;
        }
        let is_awaited = matches!(reply, Reply::Vote(_) | Reply::Page(_));
        let sent = match &reply {
            Reply::Outcome(Outcome::Found { value, .. })
                if value.len() > LARGE && self.connection.waiting() > MOST_BEFORE_LARGE =>
            {
                self.send(Reply::Outcome(Outcome::not_done(Why::Congested)))
            }
            _ => self.send(reply),
        };
        // If the connection is closed, the peer asks again on a new one. If too much waits on it, a
        // shorter answer keeps the peer from waiting in vain.
        if !sent && is_awaited {
            self.send(Reply::Abstain);
        }
    }

    fn send(&self, tell: Reply) -> bool {
        let id = self.id;
        message::send(&self.connection, &Tell { id, tell })
    }
}

/// Accepts connections of peers and answers their questions.
pub struct Inbound {
    node: NodeId,
    /// The fingerprint of the cluster.
    cluster: String,
    peers: Vec<NodeId>,
    listener: TcpListener,
    service: Arc<dyn Service>,
    /// By the order in which they were accepted.
    connections: Mutex<BTreeMap<u64, Connection>>,
    last_connection: AtomicU64,
    began: Instant,
    /// Limits how often refused connections are logged.
    refusals: Mutex<Throttle>,
    ending: AtomicBool,
}

struct Connection {
    /// The process of a peer that opened it, once its hello has come.
    peer: Option<(NodeId, Start)>,
    stream: TcpStream,
}

impl Connection {
    fn is_of(&self, peer: NodeId, process: impl FnOnce(&Start) -> bool) -> bool {
        let opened_by = self.peer.as_ref();
        opened_by.is_some_and(|(from, start)| *from == peer && process(start))
    }

    fn close(&self) {
        // An error means that the connection is closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Inbound {
    pub fn new(
        node: NodeId,
        cluster: String,
        peers: Vec<NodeId>,
        listener: TcpListener,
        service: Arc<dyn Service>,
    ) -> Arc<Inbound> {
        Arc::new(Inbound {
            node,
            cluster,
            peers,
            listener,
            service,
            connections: Mutex::default(),
            last_connection: AtomicU64::new(0),
            began: Instant::now(),
            refusals: Mutex::default(),
            ending: AtomicBool::new(false),
        })
    }

    /// Accepts connections until [`Inbound::end`], and starts a thread for each.
    pub fn run(self: &Arc<Self>) {
        let mut failures = Throttle::default();
        for stream in self.listener.incoming() {
            if self.ending.load(Ordering::Relaxed) {
                return;
            }
            let started = stream.and_then(|stream| self.start(stream));
            if let Err(error) = started {
                if let Some(others) = failures.pass(self.began.elapsed()) {
                    warn!("a peer's connection failed: {error}{others}");
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Closes all connections, and accepts no more.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
        lock(&self.connections).values().for_each(Connection::close);
        transport::stop_listening(&self.listener);
    }

    fn start(self: &Arc<Self>, stream: TcpStream) -> io::Result<()> {
        let id = self.last_connection.fetch_add(1, Ordering::Relaxed);
        let mut connections = lock(&self.connections);
        let strangers = connections.iter().filter(|(_, it)| it.peer.is_none());
        let strangers: Vec<u64> = strangers.map(|(&id, _)| id).collect();
        if strangers.len() >= MOST_STRANGERS
            && let Some(oldest) = connections.remove(&strangers[0])
        {
            oldest.close();
        }
        let connection = Connection {
            peer: None,
            stream: stream.try_clone()?,
        };
        connections.insert(id, connection);
        drop(connections);
        let inbound = self.clone();
        let run = move || {
            if let Err(error) = inbound.converse(id, stream) {
                debug!("a peer's connection ended: {error}");
            }
            lock(&inbound.connections).remove(&id);
        };
        let thread = std::thread::Builder::new().name("votes".into()).spawn(run);
        if thread.is_err() {
            // This closes the connection, so that the peer opens another one at once.
            lock(&self.connections).remove(&id);
        }
        thread.map(drop)
    }

    /// The thread of a connection.
    fn converse(&self, id: u64, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(hello::TIMEOUT))?;
        let sending = stream.try_clone()?;
        let mut lines = Lines::new(stream, hello::MAX_HELLO);
        let (peer, start) = match self.await_hello(&mut lines) {
            Ok(opened_by) => opened_by,
            Err(refusal) => {
                self.log_refusal(refusal.text());
                return (&sending).write_all(&message::line(&refusal));
            }
        };
        if !self.replace_older(peer, start, id) {
            return Ok(());
        }
        let welcome = Welcome::Welcome(self.service.introduction());
        (&sending).write_all(&message::line(&welcome))?;
        lines.allow(MAX_LINE);
        lines.reader().set_read_timeout(None)?;
        let connection = Outgoing::new(sending, &Budget::new(message::QUEUE_LIMIT))?;
        let ended = self.answer(peer, lines, &connection);
        connection.close();
        ended.map_err(|error| io::Error::new(error.kind(), format!("{peer}: {error}")))
    }

    fn log_refusal(&self, why: &str) {
        // The text may contain words of a stranger.
        let why = why.replace(char::is_control, " ");
        let passed = lock(&self.refusals).pass(self.began.elapsed());
        let Some(others) = passed else {
            return debug!("refused another connection: {why}");
        };
        warn!("refused a connection on the port for peers: {why}{others}");
    }

    /// Closes the older connections of a process that has opened connection `id`: it uses only the last
    /// one that it opened, and may have given the others up without a word. Returns false if this one is
    /// older than another.
    fn replace_older(&self, peer: NodeId, start: Start, id: u64) -> bool {
        let mut connections = lock(&self.connections);
        for (&other, connection) in connections.iter().filter(|(other, _)| **other != id) {
            if connection.is_of(peer, |process| process.is_of_same_process(&start)) {
                if other > id {
                    return false;
                }
                connection.close();
            }
        }
        if let Some(own) = connections.get_mut(&id) {
            own.peer = Some((peer, start));
        }
        true
    }

    /// Closes the connections of all processes of a peer but this one.
    pub fn accept_only(&self, peer: NodeId, start: &Start) {
        for connection in lock(&self.connections).values() {
            if connection.is_of(peer, |process| !process.is_of_same_process(start)) {
                connection.close();
            }
        }
    }

    fn answer(
        &self,
        peer: NodeId,
        mut lines: Lines<TcpStream>,
        connection: &Arc<Outgoing>,
    ) -> io::Result<()> {
        let mut window = ReplayWindow::new();
        let mut yields = 0;
        loop {
            if yields > 0 {
                yields -= 1;
                std::thread::yield_now();
            }
            if lines.receive()? == Received::End {
                return Ok(());
            }
            let questions = transport::batch(|| {
                self.answer_received(peer, &mut lines, &mut window, connection)
            })?;
            if questions > 1 {
                yields = YIELDS;
            }
        }
    }

    /// Answers the questions that were received, and returns how many there were.
    fn answer_received(
        &self,
        peer: NodeId,
        lines: &mut Lines<TcpStream>,
        window: &mut ReplayWindow,
        connection: &Arc<Outgoing>,
    ) -> io::Result<usize> {
        let mut questions = 0;
        while let Some(question) = message::next(lines, "a question that is not understood")? {
            let Ask { id, ask } = question;
            if matches!(ask, Request::Coordinate { .. }) && !window.accept(id) {
                continue;
            }
            questions += 1;
            let connection = connection.clone();
            let respond = Respond { connection, id };
            self.service.clone().serve(peer, ask, respond);
        }
        Ok(questions)
    }
}
