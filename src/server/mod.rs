//! Serving clients: a thread per connection out of a bounded pool, and the text protocol.
//!
//! The way of a line: [`telnet`] takes out what telnet adds, `transport::lines` splits, [`command`]
//! understands, [`session`] has it done, [`text`] prints the reply, [`pipeline`] lets it leave in its turn.

pub mod command;
pub mod descriptors;
pub mod group_command;
pub mod group_text;
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
        let most = descriptors::allowed_clients(&node.config);
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
                        warn!("a client could not connect: {error}{others}");
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
            warn!("cannot start a thread for a client: {error}");
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
            let _ = session::run(&self.node, &self.budget, &pipeline, &stream, id);
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

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::thread;

    use super::pipeline::{FIRST_REPLY, MOST, MOST_HELD, Pipeline, Until};
    use super::*;
    use crate::bytes::Key;
    use crate::transport::Share;
    use crate::transport::budget::FREE;

    const PLENTY: usize = usize::MAX / 2;
    const LONG: &str =
        "ERROR BUSY too many clients are sent long replies at once; try again later\n";

    /// A pipeline, and what its client receives.
    fn pipeline(budget: &Arc<Budget>) -> (Arc<Pipeline>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let patience = Some(Duration::from_secs(20));
        client.set_read_timeout(patience).unwrap();
        let replies = Outgoing::new(listener.accept().unwrap().0, &Budget::new(PLENTY)).unwrap();
        (Pipeline::new(replies, budget), client)
    }

    fn received(client: &mut TcpStream, length: usize) -> String {
        let mut bytes = vec![0; length];
        client.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Nothing more has come.
    fn expect_nothing(client: &mut TcpStream) {
        client.set_nonblocking(true).unwrap();
        client.read_exact(&mut [0]).unwrap_err();
        client.set_nonblocking(false).unwrap();
    }

    fn key(number: usize) -> Key {
        number.to_string().as_str().into()
    }

    fn begin(pipeline: &Pipeline, number: usize) -> Result<u64, Until> {
        pipeline.begin(&key(number), 0, false)
    }

    /// Has the connection's first reply be a short one, and the next ones be expected short.
    fn expect_short(pipeline: &Pipeline, client: &mut TcpStream) {
        for _ in 0..20 {
            let number = begin(pipeline, 0).unwrap();
            pipeline.answer(number, "-\n".to_owned());
            received(client, 2);
        }
    }

    #[test]
    fn replies_leave_in_the_order_in_which_their_requests_began() {
        let (pipeline, mut client) = pipeline(&Budget::new(PLENTY));
        let numbers = [0, 1, 2, 3].map(|number| begin(&pipeline, number).unwrap());
        pipeline.answer(numbers[2], "two ".to_owned());
        pipeline.answer(numbers[1], "one ".to_owned());
        expect_nothing(&mut client);
        pipeline.answer(numbers[0], "zero ".to_owned());
        assert_eq!(received(&mut client, 13), "zero one two ");
        pipeline.answer(numbers[3], "three".to_owned());
        assert_eq!(received(&mut client, 5), "three");
        assert!(pipeline.wait(Until::ALL));
    }

    #[test]
    fn a_request_waits_for_one_for_the_same_key_until_that_is_answered() {
        let (pipeline, mut client) = pipeline(&Budget::new(PLENTY));
        let (first, second) = (begin(&pipeline, 1).unwrap(), begin(&pipeline, 2).unwrap());
        let until = Until::Answered(second);
        assert_eq!(begin(&pipeline, 2), Err(until));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| pipeline.wait(until));
            pipeline.answer(second, "second ".to_owned());
            assert!(waiting.join().unwrap());
        });
        // Its reply has not left, and yet it is over.
        expect_nothing(&mut client);
        let third = begin(&pipeline, 2).unwrap();
        pipeline.answer(third, "third".to_owned());
        pipeline.answer(first, "first ".to_owned());
        assert_eq!(received(&mut client, 18), "first second third");
    }

    #[test]
    fn no_more_run_at_a_time_than_may_and_half_of_them_leave_before_more_begin() {
        let (pipeline, mut client) = pipeline(&Budget::new(PLENTY));
        expect_short(&pipeline, &mut client);
        let numbers: Vec<_> = (0..MOST).map(|it| begin(&pipeline, it).unwrap()).collect();
        let until = Until::Left(MOST / 2);
        assert_eq!(begin(&pipeline, MOST), Err(until));
        let answer = |number: &u64| pipeline.answer(*number, "-".to_owned());
        // What is answered and has not left counts, too.
        numbers[1..].iter().for_each(answer);
        assert_eq!(begin(&pipeline, MOST), Err(until));
        answer(&numbers[0]);
        assert!(pipeline.wait(Until::ALL) && begin(&pipeline, MOST).is_ok());
    }

    #[test]
    fn what_is_under_way_at_the_end_is_answered_and_nothing_else_begins() {
        let (pipeline, mut client) = pipeline(&Budget::new(PLENTY));
        let numbers = [1, 2].map(|number| begin(&pipeline, number).unwrap());
        assert!(pipeline.listen());
        pipeline.heard();
        pipeline.end();
        assert!(!pipeline.listen());
        assert_eq!(begin(&pipeline, 3), Err(Until::ALL));
        for (number, reply) in numbers.into_iter().zip(["one ", "two "]).rev() {
            pipeline.answer(number, reply.to_owned());
        }
        assert!(!pipeline.wait(Until::ALL));
        assert_eq!(received(&mut client, 8), "one two ");
    }

    #[test]
    fn long_replies_are_asked_for_a_few_at_a_time_until_short_ones_come() {
        let (pipeline, mut client) = pipeline(&Budget::new(PLENTY));
        let first: Vec<_> = (0..).map_while(|it| begin(&pipeline, it).ok()).collect();
        assert_eq!(first.len(), MOST_HELD / FIRST_REPLY);
        let reply = "x".repeat(FIRST_REPLY);
        for number in first.into_iter().rev() {
            pipeline.answer(number, reply.clone());
        }
        received(&mut client, MOST_HELD);
        let again: Vec<_> = (0..).map_while(|it| begin(&pipeline, it).ok()).collect();
        assert_eq!(again.len(), MOST_HELD / FIRST_REPLY);
        for number in again {
            pipeline.answer(number, "-".to_owned());
        }
        expect_short(&pipeline, &mut client);
        assert!((0..MOST).all(|number| begin(&pipeline, number).is_ok()));
    }

    #[test]
    fn replies_that_wait_for_earlier_ones_are_held_in_the_budget_or_told_busy() {
        let budget = Budget::new(2 * FIRST_REPLY);
        let (pipeline, mut client) = pipeline(&budget);
        expect_short(&pipeline, &mut client);
        let numbers = [1, 2, 3, 4, 5].map(|number| begin(&pipeline, number).unwrap());
        let reply = "VALUE ".to_owned() + &"x".repeat(FIRST_REPLY - 6);
        pipeline.answer(numbers[1], reply.clone());
        pipeline.answer(numbers[2], reply.clone());
        pipeline.answer(numbers[3], reply.clone());
        assert!(begin(&pipeline, 6).is_err(), "that was the last");
        // Of a write: it was done, and must not be told that it was not.
        let done = "OK 5554:1".to_owned() + &",5556:1".repeat(200) + "\n";
        pipeline.answer(numbers[4], done.clone());
        pipeline.answer(numbers[0], reply.clone());
        assert_eq!(received(&mut client, 3 * FIRST_REPLY), reply.repeat(3));
        assert_eq!(received(&mut client, LONG.len()), LONG);
        assert_eq!(received(&mut client, done.len()), done);
        assert!(!pipeline.wait(Until::ALL));
        let mut other = Share::of(&budget);
        assert!(other.hold(FREE + 2 * FIRST_REPLY), "nothing is held");
    }

    #[test]
    fn without_room_in_the_budget_requests_run_one_at_a_time() {
        let (pipeline, mut client) = pipeline(&Budget::new(0));
        let first = begin(&pipeline, 1).unwrap();
        assert_eq!(begin(&pipeline, 2), Err(Until::ALL));
        let reply = "x".repeat(FIRST_REPLY);
        pipeline.answer(first, reply.clone());
        assert_eq!(received(&mut client, FIRST_REPLY), reply);
        assert!(begin(&pipeline, 2).is_ok());
    }
}
