//! Serving clients: a thread per connection out of a bounded pool, and the text protocol.
//!
//! The way of a line: [`telnet`] takes out what telnet adds, `transport::lines` splits, [`command`]
//! understands, [`session`] has it done, [`text`] prints the reply, [`pipeline`] lets it leave in its turn.

pub mod command;
pub mod descriptors;
pub mod pipeline;
pub mod session;
pub mod startup;
pub mod telnet;
pub mod text;

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use log::warn;

use crate::error::Failure;
use crate::lock;
use crate::logging::Throttle;
use crate::node::Node;
use crate::transport::socket::part;
use crate::transport::{self, Budget, Outgoing};
use pipeline::Pipeline;

/// A thread without a connection ends after this time.
const IDLE_THREAD: Duration = Duration::from_secs(5);
/// At the end, requests that are under way get this long. The process has 5 s for all of its end.
const FAREWELL: Duration = Duration::from_secs(4);

/// Of a client that is turned away, so much is taken that it has sent already, in bytes,
const TAKEN_OF_ONE_AWAY: usize = 64 << 10;
/// and for so long at the most.
const TURNING_AWAY: Duration = Duration::from_millis(10);

/// The listener for clients and the threads behind it.
pub struct Server {
    node: Arc<Node>,
    /// How many clients are served at a time.
    most: usize,
    budget: Arc<Budget>,
    /// Hands a connection to a thread that waits for one.
    idle: Sender<TcpStream>,
    waiting: Receiver<TcpStream>,
    threads: AtomicUsize,
    sessions: Mutex<HashMap<u64, Arc<Pipeline>>>,
    last_session: AtomicU64,
    ending: AtomicBool,
}

impl Server {
    pub fn new(node: Arc<Node>) -> Arc<Server> {
        let (idle, waiting) = bounded(0);
        let most = descriptors::allowed_clients(node.id, &node.config);
        let budget = Budget::new(node.config.client_memory_mib << 20);
        Arc::new(Server {
            node,
            most,
            budget,
            idle,
            waiting,
            threads: AtomicUsize::new(0),
            sessions: Mutex::default(),
            last_session: AtomicU64::new(0),
            ending: AtomicBool::new(false),
        })
    }

    /// Accepts clients until [`Server::stop`].
    pub fn run(self: &Arc<Self>, listener: &TcpListener) {
        let (began, mut failures) = (Instant::now(), Throttle::default());
        for stream in listener.incoming() {
            if self.ending.load(Ordering::Relaxed) {
                return;
            }
            match stream {
                Ok(stream) => self.assign(stream),
                Err(error) => {
                    if let Some(others) = failures.pass(began.elapsed()) {
                        warn!(
                            "{}: a client could not connect: {error}{others}",
                            self.node.id
                        );
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }

    /// Stops accepting, lets what is under way finish, and closes all connections.
    pub fn stop(&self, listener: &TcpListener) {
        self.ending.store(true, Ordering::Relaxed);
        transport::stop_listening(listener);
        lock(&self.sessions)
            .values()
            .for_each(|pipeline| pipeline.end());
        let until = Instant::now() + FAREWELL;
        while !lock(&self.sessions).is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Gives a connection to an idle thread or a new one; with none to be had it says so.
    fn assign(self: &Arc<Self>, stream: TcpStream) {
        let stream = match self.idle.try_send(stream) {
            Ok(()) => return,
            Err(TrySendError::Full(stream) | TrySendError::Disconnected(stream)) => stream,
        };
        if self.threads.load(Ordering::Relaxed) >= self.most {
            return turn_away(stream, &no_thread(self.most));
        }
        self.threads.fetch_add(1, Ordering::Relaxed);
        let unserved = stream.try_clone();
        let server = self.clone();
        let thread = std::thread::Builder::new().name("client".into());
        let spawned = thread.spawn(move || {
            server.serve(stream);
            while let Ok(stream) = server.waiting.recv_timeout(IDLE_THREAD) {
                server.serve(stream);
            }
            server.threads.fetch_sub(1, Ordering::Relaxed);
        });
        if let Err(error) = spawned {
            warn!(
                "{}: cannot start a thread for a client: {error}",
                self.node.id
            );
            let threads = self.threads.fetch_sub(1, Ordering::Relaxed) - 1;
            if let Ok(stream) = unserved {
                turn_away(stream, &no_thread(threads));
            }
        }
    }

    fn serve(&self, stream: TcpStream) {
        let id = self.last_session.fetch_add(1, Ordering::Relaxed);
        let sending = stream.try_clone();
        let Ok(replies) = sending.and_then(|stream| Outgoing::new(stream, &self.budget)) else {
            return;
        };
        let pipeline = Pipeline::new(replies, &self.budget);
        lock(&self.sessions).insert(id, pipeline.clone());
        if !self.ending.load(Ordering::Relaxed) {
            // An error says that the client has gone: there is nobody to tell.
            let _ = session::run(&self.node, &self.budget, &pipeline, &stream);
        }
        lock(&self.sessions).remove(&id);
    }
}

fn no_thread(most: usize) -> Failure {
    Failure::Busy(format!(
        "all {most} threads for clients are taken; try again later"
    ))
}

fn turn_away(mut stream: TcpStream, why: &Failure) {
    // The client is not waited for: only what it has sent already is taken, lest the close resets
    // the connection.
    let _ = stream
        .set_nonblocking(true)
        .and_then(|()| stream.write_all(text::failure(why).as_bytes()))
        .and_then(|()| part(&stream, TURNING_AWAY, TAKEN_OF_ONE_AWAY));
}

/// Listens on `host:port`.
///
/// # Errors
/// With the address in the text.
pub fn listen(address: &str) -> io::Result<TcpListener> {
    TcpListener::bind(address).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}
