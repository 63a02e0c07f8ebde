//! The answering side: connections that other nodes opened.

mod duplicates;
mod greeting;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use duplicates::Duplicates;
use log::{debug, warn};

use super::acquaintance::Acquaintance;
use super::message::{self, Ask, MAX_LINE, Reply, Request, Tell, Welcome};
use crate::bytes::LARGE;
use crate::lock;
use crate::logging::Throttle;
use crate::protocol::ring::NodeId;
use crate::protocol::{Outcome, Why};
use crate::storage::Start;
use crate::transport::{self, Budget, Lines, Outgoing, Received};

/// A [large](LARGE) value is not told while so many bytes wait for the same peer: many small replies would wait
/// behind it.
const MOST_BEFORE_LARGE: usize = 8 << 20;
/// How many connections may not have said yet who they are; one more takes the place of the
/// oldest, so that a peer gets in, which says so at once.
pub const MOST_STRANGERS: usize = 64;

/// After several questions at once the thread yields before each of so many reads: whoever
/// is ready to run may have more questions, and they are then taken with one system call, without
/// a sleep and a wake-up for each. A single client never causes that, and gains nothing by it.
const TURNS: usize = 1000;

/// What a node does with its peers' questions. Must not wait for another node: other nodes wait
/// for the thread that this runs on.
pub trait Service: Acquaintance {
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
        let awaited = matches!(reply, Reply::Vote(_) | Reply::Page(_));
        let sent = match &reply {
            Reply::Outcome(Outcome::Found { value, .. })
                if value.len() > LARGE && self.connection.waiting() > MOST_BEFORE_LARGE =>
            {
                self.tell(Reply::Outcome(Outcome::not_done(Why::Congested)))
            }
            _ => self.tell(reply),
        };
        // If the connection is gone, the asker asks again on a new one. If too much waits on it,
        // the asker need not wait for what does not come.
        if !sent && awaited {
            self.tell(Reply::Abstain);
        }
    }

    fn tell(&self, tell: Reply) -> bool {
        let id = self.id;
        message::send(&self.connection, &Tell { id, tell })
    }
}

/// Accepts connections of peers and answers their questions.
pub struct Inbound {
    node: NodeId,
    cluster: String,
    peers: Vec<NodeId>,
    service: Arc<dyn Service>,
    connections: Mutex<BTreeMap<u64, Connection>>,
    last_connection: AtomicU64,
    began: Instant,
    /// Logs connections that were refused.
    refusals: Mutex<Throttle>,
    ending: AtomicBool,
}

struct Connection {
    /// Who opened it, and which of its processes, once that is known.
    peer: Option<(NodeId, Start)>,
    stream: TcpStream,
}

impl Connection {
    fn is_of(&self, peer: NodeId, process: impl FnOnce(&Start) -> bool) -> bool {
        let opened_by = self.peer.as_ref();
        opened_by.is_some_and(|(from, start)| *from == peer && process(start))
    }

    fn close(&self) {
        // An error says that the connection is gone already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Inbound {
    pub fn new(
        node: NodeId,
        cluster: String,
        peers: Vec<NodeId>,
        service: Arc<dyn Service>,
    ) -> Arc<Inbound> {
        Arc::new(Inbound {
            node,
            cluster,
            peers,
            service,
            connections: Mutex::default(),
            last_connection: AtomicU64::new(0),
            began: Instant::now(),
            refusals: Mutex::default(),
            ending: AtomicBool::new(false),
        })
    }

    /// Accepts connections until [`Inbound::end`]; a thread for each.
    pub fn run(self: &Arc<Self>, listener: &TcpListener) {
        let mut failures = Throttle::default();
        for stream in listener.incoming() {
            if self.ending.load(Ordering::Relaxed) {
                return;
            }
            let started = stream.and_then(|stream| self.start(stream));
            if let Err(error) = started {
                if let Some(others) = failures.pass(self.began.elapsed()) {
                    warn!("{}: a peer's connection failed: {error}{others}", self.node);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Closes all connections and refuses further ones.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
        lock(&self.connections).values().for_each(Connection::close);
    }

    fn start(self: &Arc<Self>, stream: TcpStream) -> io::Result<()> {
        let id = self.last_connection.fetch_add(1, Ordering::Relaxed);
        let mut connections = lock(&self.connections);
        let strangers = connections
            .iter()
            .filter(|(_, known)| known.peer.is_none())
            .map(|(&id, _)| id);
        let strangers: Vec<u64> = strangers.collect();
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
                debug!("{}: a peer's connection ended: {error}", inbound.node);
            }
            lock(&inbound.connections).remove(&id);
        };
        let thread = std::thread::Builder::new().name("votes".into()).spawn(run);
        if thread.is_err() {
            // Closed, the peer opens another one at once.
            lock(&self.connections).remove(&id);
        }
        thread.map(drop)
    }

    fn converse(&self, id: u64, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(greeting::WITHIN))?;
        let sending = stream.try_clone()?;
        let mut lines = Lines::new(stream, greeting::LONGEST);
        let (peer, start) = match self.await_hello(&mut lines) {
            Ok(greeted) => greeted,
            Err(refusal) => {
                self.note_refusal(refusal.text());
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
        ended
    }

    fn note_refusal(&self, why: &str) {
        // A stranger's words are in it.
        let why = why.replace(char::is_control, " ");
        let passed = lock(&self.refusals).pass(self.began.elapsed());
        let Some(others) = passed else {
            return debug!("{}: refused another connection: {why}", self.node);
        };
        warn!(
            "{}: refused a connection on the port for peers: {why}{others}",
            self.node
        );
    }

    /// A process of a peer has one connection, which it opened last: older ones are gone, even if
    /// nobody said so. Returns false if this one, `by`, is older than another.
    fn replace_older(&self, peer: NodeId, start: Start, by: u64) -> bool {
        let mut connections = lock(&self.connections);
        for (&id, connection) in connections.iter().filter(|(id, _)| **id != by) {
            if connection.is_of(peer, |process| process.is_of_same_process(&start)) {
                if id > by {
                    return false;
                }
                connection.close();
            }
        }
        if let Some(own) = connections.get_mut(&by) {
            own.peer = Some((peer, start));
        }
        true
    }

    /// Closes the connections of all other processes of a peer than this one.
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
        let mut taken = Duplicates::new();
        let mut turns = 0;
        loop {
            if turns > 0 {
                turns -= 1;
                std::thread::yield_now();
            }
            match lines.receive()? {
                Received::Bytes(_) | Received::Nothing => {}
                Received::End => return Ok(()),
            }
            let questions = transport::batch(|| {
                self.answer_received(peer, &mut lines, &mut taken, connection)
            })?;
            if questions > 1 {
                turns = TURNS;
            }
        }
    }

    /// Answers what came; returns how many questions that were.
    fn answer_received(
        &self,
        peer: NodeId,
        lines: &mut Lines<TcpStream>,
        taken: &mut Duplicates,
        connection: &Arc<Outgoing>,
    ) -> io::Result<usize> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let endless = |_| invalid("an endless line".into());
        let mut questions = 0;
        while let Some(line) = lines.next_line().map_err(endless)? {
            let Ask { id, ask } = serde_json::from_slice(line)
                .map_err(|error| invalid(format!("{peer} asks nonsense: {error}")))?;
            if matches!(ask, Request::Coordinate { .. }) && !taken.take(id) {
                continue;
            }
            questions += 1;
            let respond = Respond {
                connection: connection.clone(),
                id,
            };
            self.service.clone().serve(peer, ask, respond);
        }
        Ok(questions)
    }
}
