//! The asking side: this node's own connection to one peer.
//!
//! Every question gets exactly one answer: the peer's reply, or the news that there was none: the
//! peer was silent for the read time-out, or sent other bytes only for as long as a request may
//! take. A connection that is refused or reset is opened again, and what is still outstanding is
//! sent again, but for requests to coordinate: their time-out goes on.
//!
//! A connection may also be half open: gone, and nobody told this side. It looks like the silence
//! of a peer that is only slow, and lasts for ever. So a connection that has been silent for long
//! is opened anew.

mod connection;
mod silence;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::acquaintance::Acquaintance;
use super::message::{self, Ask, Reply, Request, Resumed};
use super::suspicion::Suspicion;
use crate::lock;
use crate::logging::Throttle;
use crate::protocol::ring::NodeId;
use crate::storage::{LogPosition, Start};
use crate::sync::{AtomicBool, Condvar, Instant, Mutex};
use crate::transport::Outgoing;

/// How many questions may wait for one peer's answers.
const MOST_OUTSTANDING: usize = 20_000;
/// How long to wait before a connection is tried again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);
/// The same where the other side does not want it, or makes no sense.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// How a question ended.
#[derive(Debug)]
pub enum Answer {
    Reply(Reply),
    /// The question was sent, and no reply came in time.
    Silent,
    /// The question was not sent: there is no connection, too much waits for the peer already, or
    /// the node ends.
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
    /// The node that the link belongs to.
    pub owner: Weak<dyn Acquaintance>,
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
    /// Which process is at the other end of it.
    process: Option<Start>,
    /// How far the peer's log was, as it told last, and which of its processes told that.
    position: Option<Resumed>,
    outstanding: BTreeMap<u64, Outstanding>,
    last_id: u64,
    last_asked: Duration,
    suspicion: Suspicion,
    /// When the connection was opened last.
    opened: Duration,
    /// How often it was opened anew since the peer was heard last.
    renewals: u32,
    /// Whether a message was dropped, and the peer has not been told that it may have missed it.
    dropped: bool,
    /// How often it could not be opened: each attempt tries the next address of the peer's name.
    failures: usize,
    /// Logs trouble with it.
    trouble: Throttle,
    /// Whether it was logged that there is a connection, and no trouble since.
    connected_told: bool,
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

    /// Whether there is a connection. A suspect may have one, and take what it is sent.
    pub fn has_connection(&self) -> bool {
        lock(&self.state).connection.is_some()
    }

    /// Which process of the peer this link is connected to.
    pub fn process(&self) -> Option<Start> {
        lock(&self.state).process.clone()
    }

    /// How far the peer's log was, as it told last, and which of its processes told that.
    pub fn position(&self) -> Option<Resumed> {
        lock(&self.state).position.clone()
    }

    /// Opens the connection anew if another process than this one is at its other end.
    pub fn accept_only(&self, start: &Start) {
        let state = lock(&self.state);
        let process = state.process.as_ref();
        let other = process.is_some_and(|process| !process.is_of_same_process(start));
        if let Some(connection) = state.connection.as_ref().filter(|_| other) {
            connection.close();
        }
    }

    /// Asks; `callback` runs exactly once, on this thread or on the link's.
    pub fn ask(&self, request: Request, callback: impl FnOnce(Answer) + Send + 'static) {
        let now = self.now();
        let mut state = lock(&self.state);
        let hopeless = state.connection.is_none() && state.suspicion.suspect();
        // Looked at with the lock held: whoever gives up all at the end finds this question, or
        // this is seen.
        let ending = self.ending.load(Ordering::Relaxed);
        let crowded = state.outstanding.len() >= MOST_OUTSTANDING;
        if hopeless || ending || crowded {
            state.dropped |= crowded;
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
        let Some(connection) = connection else {
            return;
        };
        if !message::send(&connection, &Ask { id, ask: request }) && !connection.closed() {
            // Too much waits for the peer already. What a closed connection did not take is sent
            // on the next one, perhaps at this moment.
            let mut state = lock(&self.state);
            state.dropped = true;
            let question = state.outstanding.remove(&id);
            drop(state);
            question
                .into_iter()
                .for_each(|q| (q.callback)(Answer::Unreached));
        }
    }

    /// Sends a message whose answer is not needed, if there is a connection.
    pub fn tell(&self, request: Request) {
        let connection = lock(&self.state).connection.clone();
        if let Some(connection) = connection {
            let (id, ask) = (0, request);
            if !message::send(&connection, &Ask { id, ask }) {
                lock(&self.state).dropped = true;
            }
        }
    }

    /// Connects, receives answers and watches for silence until [`Link::end`].
    pub fn run(&self) {
        while !self.ending.load(Ordering::Relaxed) {
            let mut pause = RECONNECT_PAUSE;
            let opened = self.connect();
            lock(&self.state).failures += usize::from(opened.is_err());
            if let Err(error) = opened.and_then(|lines| self.receive(lines)) {
                self.note_trouble(&error.to_string());
                if error.kind() == io::ErrorKind::InvalidData {
                    pause = REFUSED_PAUSE;
                }
            }
            let mut state = lock(&self.state);
            state.process = None;
            let connection = state.connection.take();
            drop(state);
            if let Some(connection) = connection {
                connection.close();
            }
            self.watch();
            let state = lock(&self.state);
            if !self.ending.load(Ordering::Relaxed) {
                drop(self.paused.wait_timeout(state, pause));
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

    fn give_up_all(&self) {
        let all = std::mem::take(&mut lock(&self.state).outstanding);
        all.into_values().for_each(Outstanding::give_up);
    }
}

impl State {
    /// The process at the other end has told how far its log is.
    fn heard_position(&mut self, position: LogPosition) {
        self.position = self
            .process
            .clone()
            .map(|start| Resumed { start, position });
    }

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
