//! The asking side: this node's own connection to one peer.
//!
//! Every question gets exactly one answer: the peer's reply, or that there was none. A question is
//! given up when the peer is silent for the read time-out, or sends only other bytes for as long as a
//! request may take.
//!
//! A connection that is refused or reset is opened again, and the outstanding questions are sent again.
//! Forwarded requests are not: two answers to one of them could contradict each other. They wait for
//! their time-out.
//!
//! A connection may also be half open: the other end has closed it, but the news was lost. That looks
//! like a slow peer, and lasts for ever. So a connection that has been silent for long is opened anew.

mod connection;
mod silence;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::handshake::LocalNode;
use super::message::{self, Ask, Reply, Request, Resumed};
use super::suspicion::Suspicion;
use crate::lock;
use crate::logging::Throttle;
use crate::protocol::ring::NodeId;
use crate::storage::{LogPosition, Start};
use crate::sync::{AtomicBool, Condvar, Instant, Mutex};
use crate::transport::Outgoing;

/// How many questions may be outstanding.
const MOST_OUTSTANDING: usize = 20_000;
/// Behind so many bytes a hint would only hold up what matters.
const MOST_BEFORE_HINT: usize = 1 << 20;
/// How long to wait before the connection is opened again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);
/// The same if the other side refused it or sent something that is not understood.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// How a question ended.
#[derive(Debug)]
pub enum Answer {
    /// The peer answered.
    Reply(Reply),
    /// The question was sent, and no reply came in time.
    Silent,
    /// The question was never sent: there is no connection, too much waits for the peer already, or
    /// this node ends.
    Unreached,
}

type AnswerCallback = Box<dyn FnOnce(Answer) + Send>;

/// What a link is made with.
pub struct Settings {
    pub node: NodeId,
    pub peer: NodeId,
    /// `host:port` of the peer's listener for peers.
    pub address: String,
    /// The fingerprint of the cluster.
    pub cluster: String,
    /// How long a peer may be silent while a question is outstanding.
    pub read_timeout: Duration,
    /// How long a question may be outstanding while the peer sends other bytes.
    pub patience: Duration,
    /// The node that the link belongs to.
    pub owner: Weak<dyn LocalNode>,
}

/// The connection to one peer, and the questions that it has not answered yet.
pub struct Link {
    settings: Settings,
    began: Instant,
    state: Mutex<LinkState>,
    /// A copy of the suspicion in the state, to be read without a lock.
    suspect: AtomicBool,
    ending: AtomicBool,
    /// Wakes the thread at the end, if it pauses before it connects again.
    paused: Condvar,
}

#[derive(Default)]
struct LinkState {
    connection: Option<Arc<Outgoing>>,
    /// The process at the other end of the connection.
    process: Option<Start>,
    /// How far the peer's log was durable when it last answered a ping, and the process that answered.
    position: Option<Resumed>,
    /// By id, so in the order in which they were asked.
    outstanding: BTreeMap<u64, Outstanding>,
    last_id: u64,
    last_asked: Duration,
    suspicion: Suspicion,
    /// When the last attempt to connect began.
    opened: Duration,
    /// How often a silent connection was given up since the peer was heard last.
    renewals: u32,
    /// Whether a message was dropped and [`LocalNode::returned`] has not been called since.
    dropped: bool,
    /// How many attempts to connect failed. Each one tries the next address of the peer's name.
    failures: usize,
    /// Limits how often trouble with the connection is logged.
    trouble: Throttle,
    /// Whether the last line in the log about the connection says that there is one.
    connection_logged: bool,
}

/// A question without an answer so far.
struct Outstanding {
    /// When it was asked.
    asked: Duration,
    request: Request,
    /// Whether it was sent on any connection.
    sent: bool,
    /// Whether the connection that it was sent on is gone and it is not sent again.
    orphaned: bool,
    callback: AnswerCallback,
}

impl Link {
    /// A link without a connection. [`Link::run`] opens it.
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

    /// Whether the peer was silent for the read time-out, and has not been heard since.
    pub fn suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// Whether there is a connection. A suspect may have one, too, and receive messages.
    pub fn has_connection(&self) -> bool {
        lock(&self.state).connection.is_some()
    }

    /// The process of the peer that this link is connected to.
    pub fn process(&self) -> Option<Start> {
        lock(&self.state).process.clone()
    }

    /// How far the peer's log was durable when it last answered a ping, and the process that answered.
    pub fn position(&self) -> Option<Resumed> {
        lock(&self.state).position.clone()
    }

    /// Closes the connection if it leads to another process than this one.
    pub fn accept_only(&self, start: &Start) {
        let state = lock(&self.state);
        let process = state.process.as_ref();
        let other = process.is_some_and(|process| !process.is_of_same_process(start));
        if let Some(connection) = state.connection.as_ref().filter(|_| other) {
            connection.close();
        }
    }

    /// Asks the peer. `callback` runs exactly once, on this thread or on the link's.
    pub fn ask(&self, request: Request, callback: impl FnOnce(Answer) + Send + 'static) {
        let now = self.now();
        let mut state = lock(&self.state);
        let hopeless = state.connection.is_none() && state.suspicion.suspect();
        // The lock is held: either this thread sees the end, or the link's thread finds the question
        // when it gives up all at the end.
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
        let id = state.next_id();
        state.outstanding.insert(id, question);
        drop(state);
        let Some(connection) = connection else {
            return;
        };
        if !message::send(&connection, &Ask { id, ask: request }) && !connection.closed() {
            // Too much waits for the peer already. If the connection is closed, the question is sent on the
            // next one instead.
            let mut state = lock(&self.state);
            state.dropped = true;
            let question = state.outstanding.remove(&id);
            drop(state);
            if let Some(question) = question {
                (question.callback)(Answer::Unreached);
            }
        }
    }

    /// Sends a message that wants no answer, if there is a connection.
    pub fn tell(&self, request: Request) {
        let connection = lock(&self.state).connection.clone();
        if let Some(connection) = connection {
            let (id, ask) = (0, request);
            if !message::send(&connection, &Ask { id, ask }) {
                lock(&self.state).dropped = true;
            }
        }
    }

    /// Sends a message that may as well be lost. It is not sent to a suspect, nor where much waits already.
    pub fn hint(&self, request: Request) {
        let connection = lock(&self.state).connection.clone();
        let connection = connection.filter(|connection| connection.waiting() <= MOST_BEFORE_HINT);
        if let Some(connection) = connection.filter(|_| !self.suspect()) {
            message::send(
                &connection,
                &Ask {
                    id: 0,
                    ask: request,
                },
            );
        }
    }

    /// Connects, receives answers and watches for silence until [`Link::end`].
    pub fn run(&self) {
        while !self.ending.load(Ordering::Relaxed) {
            let mut pause = RECONNECT_PAUSE;
            let opened = self.connect();
            lock(&self.state).failures += usize::from(opened.is_err());
            if let Err(error) = opened.and_then(|lines| self.receive(lines)) {
                self.log_trouble(&error.to_string());
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

impl LinkState {
    /// Notes how far the log of the process at the other end is durable.
    fn note_position(&mut self, position: LogPosition) {
        let process = self.process.clone();
        self.position = process.map(|start| Resumed { start, position });
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

impl Outstanding {
    fn give_up(self) {
        let answer = match self.sent {
            true => Answer::Silent,
            false => Answer::Unreached,
        };
        (self.callback)(answer);
    }
}
