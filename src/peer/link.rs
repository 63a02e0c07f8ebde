//! The asking side: this node's own connection to one peer.
//!
//! Every question gets exactly one answer: the peer's reply, or the news that there was none
//! within the read time-out. A connection that is refused or reset is opened again, and what is
//! still outstanding is sent again, until the time-out of the question has passed.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use super::message::{self, Ask, Hello, MAX_LINE, Reply, Request, Tell, Welcome};
use super::suspicion::{Judgement, Suspicion};
use crate::lock;
use crate::net::{self, Lines, Outgoing, Received};
use crate::ring::NodeId;

/// How many bytes may wait for one peer before more messages to it are dropped.
const QUEUE_LIMIT: usize = 64 << 20;
/// How many questions may wait for one peer's answers.
const MOST_OUTSTANDING: usize = 20_000;
/// How long to wait before a connection is tried again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);
/// A peer that was asked nothing for so long is asked whether it is there.
const PING_AFTER: Duration = Duration::from_millis(500);

/// How a question ended.
#[derive(Debug)]
pub enum Answer {
    Reply(Reply),
    /// The question was sent, and no reply came in time.
    Silent,
    /// There was no connection to send the question on.
    Unreached,
}

type Callback = Box<dyn FnOnce(Answer) + Send>;

/// How a link meets the rest of the node.
pub struct Settings {
    pub node: NodeId,
    pub peer: NodeId,
    /// `host:port` of the peer's listener for peers.
    pub address: String,
    pub cluster: String,
    pub read_timeout: Duration,
    /// How long a question may wait while the peer sends other bytes.
    pub patience: Duration,
    /// Called whenever the peer is heard again after a silence, and at the first connection.
    pub returned: Box<dyn Fn(NodeId) + Send + Sync>,
}

/// The connection to one peer, and the questions that wait for its answers.
pub struct Link {
    settings: Settings,
    began: Instant,
    state: Mutex<State>,
    suspect: AtomicBool,
    ending: AtomicBool,
    paused: Condvar,
}

#[derive(Default)]
struct State {
    connection: Option<Arc<Outgoing>>,
    outstanding: BTreeMap<u64, Outstanding>,
    last_id: u64,
    last_asked: Duration,
    suspicion: Suspicion,
    /// What was logged last about the connection, so that it is logged once.
    trouble: String,
}

struct Outstanding {
    asked: Duration,
    request: Request,
    sent: bool,
    /// The connection that it was sent on is gone, and it is not sent again.
    orphaned: bool,
    callback: Callback,
}

impl Link {
    /// A link that is not connected yet: [`Link::run`] does that.
    pub fn new(settings: Settings) -> Arc<Link> {
        Arc::new(Link {
            settings,
            began: Instant::now(),
            state: Mutex::default(),
            suspect: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            paused: Condvar::new(),
        })
    }

    pub fn peer(&self) -> NodeId {
        self.settings.peer
    }

    /// Whether the peer has been silent for the read time-out, and not been heard since.
    pub fn suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// Asks; `callback` runs exactly once, on this thread or on the link's.
    pub fn ask(&self, request: Request, callback: impl FnOnce(Answer) + Send + 'static) {
        let now = self.now();
        let mut state = lock(&self.state);
        let hopeless = state.connection.is_none() && state.suspicion.suspect();
        if hopeless || state.outstanding.len() >= MOST_OUTSTANDING {
            drop(state);
            return callback(Answer::Unreached);
        }
        state.last_asked = now;
        let connection = state.connection.clone();
        let sent = connection.is_some();
        let question = Outstanding {
            asked: now,
            request: request.clone(),
            sent,
            orphaned: false,
            callback: Box::new(callback),
        };
        let id = state.remember(question);
        drop(state);
        if let Some(connection) = connection {
            message::send(&connection, &Ask { id, ask: request });
        }
    }

    /// Sends a message whose answer is not needed, if there is a connection.
    pub fn tell(&self, request: Request) {
        let connection = lock(&self.state).connection.clone();
        if let Some(connection) = connection {
            connection.send(&message::line(&Ask {
                id: 0,
                ask: request,
            }));
        }
    }

    /// Connects, receives answers and watches for silence until [`Link::end`].
    pub fn run(&self) {
        while !self.ending.load(Ordering::Relaxed) {
            if let Err(error) = self.connect().and_then(|lines| self.receive(lines)) {
                self.note_trouble(&error.to_string());
            }
            if let Some(connection) = lock(&self.state).connection.take() {
                connection.close();
            }
            self.watch();
            let state = lock(&self.state);
            if !self.ending.load(Ordering::Relaxed) {
                drop(self.paused.wait_timeout(state, RECONNECT_PAUSE));
            }
        }
        self.give_up_all();
    }

    /// Makes [`Link::run`] return.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(connection) = &lock(&self.state).connection {
            connection.close();
        }
        self.paused.notify_all();
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn connect(&self) -> io::Result<Lines<TcpStream>> {
        let time_out = self.settings.read_timeout;
        let address = resolve(&self.settings.address)?;
        let mut stream = TcpStream::connect_timeout(&address, time_out)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(time_out))?;
        stream.set_write_timeout(Some(time_out))?;
        let hello = Hello {
            protocol: message::PROTOCOL,
            cluster: self.settings.cluster.clone(),
            from: self.settings.node,
            to: self.settings.peer,
        };
        stream.write_all(&message::line(&hello))?;
        let sending = stream.try_clone()?;
        let mut lines = Lines::new(stream, MAX_LINE);
        self.await_welcome(&mut lines)?;
        self.connected(Outgoing::new(sending, QUEUE_LIMIT)?);
        Ok(lines)
    }

    fn await_welcome(&self, lines: &mut Lines<TcpStream>) -> io::Result<()> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        loop {
            if let Some(line) = lines
                .next_line()
                .map_err(|_| invalid("an endless line".into()))?
            {
                return match serde_json::from_slice(line) {
                    Ok(Welcome::Welcome) => Ok(()),
                    Ok(Welcome::Refused(why)) => Err(invalid(format!("refused: {why}"))),
                    Err(error) => Err(invalid(format!("not a node of this kind: {error}"))),
                };
            }
            match lines.receive()? {
                Received::Bytes(_) => {}
                Received::End => return Err(io::ErrorKind::UnexpectedEof.into()),
                Received::Nothing if self.ending.load(Ordering::Relaxed) => {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                // A paused process still accepts connections: its silence is watched meanwhile.
                Received::Nothing => drop(self.watch()),
            }
        }
    }

    /// Sends again what is still outstanding: a reset is no evidence of failure.
    fn connected(&self, connection: Arc<Outgoing>) {
        let mut state = lock(&self.state);
        for (&id, question) in &mut state.outstanding {
            if question.sent && matches!(question.request, Request::Coordinate { .. }) {
                // Once is enough: two answers to one try could contradict each other. Its
                // time-out goes on.
                question.orphaned = true;
                continue;
            }
            let ask = Ask {
                id,
                ask: question.request.clone(),
            };
            question.sent |= message::send(&connection, &ask);
        }
        state.connection = Some(connection);
        state.trouble.clear();
        drop(state);
        info!(
            "{}: connected to {}",
            self.settings.node, self.settings.peer
        );
        self.heard();
        (self.settings.returned)(self.settings.peer);
    }

    fn receive(&self, mut lines: Lines<TcpStream>) -> io::Result<()> {
        loop {
            match lines.receive()? {
                Received::Bytes(_) => {
                    self.heard();
                    net::batch(|| self.take_replies(&mut lines))?;
                }
                Received::Nothing => {
                    let patience = self.watch();
                    lines.reader().set_read_timeout(Some(patience))?;
                }
                Received::End => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            if self.ending.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }

    fn take_replies(&self, lines: &mut Lines<TcpStream>) -> io::Result<()> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        while let Some(line) = lines
            .next_line()
            .map_err(|_| invalid("an endless line".into()))?
        {
            let tell: Tell = serde_json::from_slice(line)
                .map_err(|error| invalid(format!("a reply that makes no sense: {error}")))?;
            // A late reply finds no question any more and is dropped.
            let question = lock(&self.state).outstanding.remove(&tell.id);
            if let Some(question) = question {
                (question.callback)(Answer::Reply(tell.tell));
            }
        }
        Ok(())
    }

    fn heard(&self) {
        let cleared = lock(&self.state).suspicion.heard(self.now());
        if cleared {
            self.suspect.store(false, Ordering::Relaxed);
            info!(
                "{}: {} answers again",
                self.settings.node, self.settings.peer
            );
            (self.settings.returned)(self.settings.peer);
        }
    }

    /// Judges the peer's silence, and gives up the questions whose time has passed. Returns how
    /// long to wait before the next look.
    fn watch(&self) -> Duration {
        let now = self.now();
        let mut state = lock(&self.state);
        self.ping_if_quiet(&mut state, now);
        let oldest = state
            .outstanding
            .values()
            .next()
            .map(|question| question.asked);
        let before = state.suspicion.suspect();
        let judgement = state
            .suspicion
            .judge(now, oldest, self.settings.read_timeout);
        let limit = match judgement {
            Judgement::Silent => Duration::ZERO,
            Judgement::Patience(_) => self.settings.patience,
        };
        let time_out = self.settings.read_timeout;
        let over = |question: &Outstanding| {
            let limit = if question.orphaned {
                limit.min(time_out)
            } else {
                limit
            };
            question.asked + limit <= now
        };
        let ids: Vec<u64> = state
            .outstanding
            .iter()
            .filter(|(_, q)| over(q))
            .map(|(&id, _)| id)
            .collect();
        let given_up: Vec<_> = ids
            .iter()
            .filter_map(|id| state.outstanding.remove(id))
            .collect();
        let suspect = state.suspicion.suspect();
        drop(state);
        if suspect && !before {
            let millis = self.settings.read_timeout.as_millis();
            warn!(
                "{}: {} is silent for {millis} ms: suspect",
                self.settings.node,
                self.peer()
            );
        }
        self.suspect.store(suspect, Ordering::Relaxed);
        net::batch(|| given_up.into_iter().for_each(Outstanding::give_up));
        match judgement {
            Judgement::Silent => self.settings.read_timeout,
            // A socket takes no time-out of zero.
            Judgement::Patience(patience) => patience.max(Duration::from_millis(1)),
        }
    }

    /// Silence is noticed only while a question is outstanding.
    fn ping_if_quiet(&self, state: &mut State, now: Duration) {
        if state.last_asked + PING_AFTER > now || !state.outstanding.is_empty() {
            return;
        }
        state.last_asked = now;
        let connection = state.connection.clone();
        let sent = connection.is_some();
        let callback = Box::new(|_| {});
        let question = Outstanding {
            asked: now,
            request: Request::Ping,
            sent,
            orphaned: false,
            callback,
        };
        let id = state.remember(question);
        if let Some(connection) = connection {
            connection.send(&message::line(&Ask {
                id,
                ask: Request::Ping,
            }));
        }
    }

    fn give_up_all(&self) {
        let all = std::mem::take(&mut lock(&self.state).outstanding);
        all.into_values().for_each(Outstanding::give_up);
    }

    fn note_trouble(&self, trouble: &str) {
        let mut state = lock(&self.state);
        let (node, peer) = (self.settings.node, self.settings.peer);
        if state.trouble != trouble && !self.ending.load(Ordering::Relaxed) {
            info!(
                "{node}: connection to {peer} at {}: {trouble}",
                self.settings.address
            );
            state.trouble = trouble.to_owned();
        } else {
            debug!("{node}: connection to {peer}: {trouble}");
        }
    }
}

impl State {
    fn remember(&mut self, question: Outstanding) -> u64 {
        self.last_id += 1;
        self.outstanding.insert(self.last_id, question);
        self.last_id
    }
}

impl Outstanding {
    fn give_up(self) {
        (self.callback)(if self.sent {
            Answer::Silent
        } else {
            Answer::Unreached
        });
    }
}

fn resolve(address: &str) -> io::Result<SocketAddr> {
    let unknown = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    address.to_socket_addrs()?.next().ok_or_else(unknown)
}
