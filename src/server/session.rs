//! One client's connection: its requests, one after the other, and the replies in their order.

use std::collections::BTreeSet;
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::command::{Command, HELP};
use super::telnet::{MARK, Telnet, VOID};
use super::text;
use crate::bytes::{Key, MAX_KEY, MAX_VALUE};
use crate::error::Failure;
use crate::lock;
use crate::net::{Lines, Outgoing, Received};
use crate::node::Node;
use crate::node::listing::{Emit, Pair};
use crate::node::router::Action;
use crate::register::{Change, Outcome};
use crate::ring::Position;

/// The longest line: key and value with every byte escaped as `\u0000`, and what surrounds them.
const MAX_LINE: usize = 6 * (MAX_KEY + MAX_VALUE) + 1024;
/// Bytes of unfinished lines that one connection may hold without asking,
const SMALL: usize = 64 << 10;
/// and that all connections together may hold beyond that.
const BUDGET: usize = 256 << 20;
/// A reply may be this long; a listing waits for the client before it goes on.
const MAX_WAITING: usize = 16 << 20;
/// A part of a listing that is sent at a time.
const PART: usize = 64 << 10;

/// Memory for long lines, shared by all connections.
#[derive(Default)]
pub struct Budget(AtomicUsize);

/// Serves one client until it leaves.
pub fn run(node: &Arc<Node>, budget: &Budget, stream: TcpStream) -> io::Result<()> {
    let line_timeout = Duration::from_millis(node.config.line_timeout_ms);
    stream.set_read_timeout(Some(line_timeout))?;
    let replies = Outgoing::new(stream.try_clone()?, MAX_WAITING)?;
    let mut session = Session {
        node,
        lines: Lines::new(Telnet::new(stream), MAX_LINE),
        replies: replies.clone(),
        turn: Arc::default(),
        line_began: Instant::now(),
        line_timeout,
    };
    let mut share = Share { budget, taken: 0 };
    let ended = session.serve(&mut share);
    session.turn.wait();
    session.drain();
    replies.close();
    ended
}

struct Session<'a> {
    node: &'a Arc<Node>,
    lines: Lines<Telnet<TcpStream>>,
    replies: Arc<Outgoing>,
    turn: Arc<Turn>,
    /// When the first byte of an unfinished line came.
    line_began: Instant,
    line_timeout: Duration,
}

/// Whether to go on with a connection.
#[derive(PartialEq, Eq)]
enum Next {
    Serve,
    Close,
}

impl Session<'_> {
    fn serve(&mut self, share: &mut Share) -> io::Result<()> {
        loop {
            let received = self.lines.receive()?;
            for _ in 0..self.lines.reader_mut().take_marks() {
                self.replies.send(&MARK);
            }
            if self.serve_lines() == Next::Close || received == Received::End {
                return Ok(());
            }
            let partial = self.lines.partial();
            if matches!(received, Received::Bytes(count) if partial <= count) {
                self.line_began = Instant::now();
            }
            if partial > 0 && self.line_began.elapsed() >= self.line_timeout {
                let millis = self.line_timeout.as_millis();
                let text = format!("half a line, and no end of it within {millis} ms");
                self.fail(&Failure::Syntax(text));
                return Ok(());
            }
            if !share.covers(partial) {
                let text = "too many clients send long lines at once; try again later";
                self.fail(&Failure::Busy(text.to_owned()));
                return Ok(());
            }
        }
    }

    /// Serves all whole lines that have come.
    fn serve_lines(&mut self) -> Next {
        loop {
            let command = match self.lines.next_line() {
                Ok(Some(line)) => {
                    let valid = line.rsplit(|byte| *byte == VOID).next().unwrap_or(line);
                    Command::parse(valid)
                }
                Ok(None) => return Next::Serve,
                Err(_) => {
                    self.turn.wait();
                    let text = format!("the line has over {MAX_LINE} bytes");
                    self.fail(&Failure::TooLarge(text));
                    return Next::Close;
                }
            };
            // Replies come in the order of the requests, and a request sees those before it. A
            // client that does not take its replies is not served any further.
            self.turn.wait();
            self.drain();
            let next = match command {
                Ok(command) => self.execute(command),
                Err(failure) => self.fail(&failure),
            };
            if next == Next::Close {
                return Next::Close;
            }
        }
    }

    fn execute(&mut self, command: Command) -> Next {
        match command {
            Command::Put { key, value } => self.change(key, Change::Put(value)),
            Command::Get(key) => self.request(key, Action::Get, text::outcome),
            Command::Delete(key) => {
                self.request(key, Action::Change(Change::Delete), text::deletion);
            }
            Command::CompareAndSet {
                key,
                expected,
                value,
            } => {
                self.change(key, Change::CompareAndSet { expected, value });
            }
            Command::ListOwn => return self.list(|emit| self.node.list_own(emit)),
            Command::ListAll => return self.list(|emit| self.node.list_all(emit)),
            Command::DeleteOwn => return self.delete(|emit| self.node.list_own(emit)),
            Command::DeleteAll => return self.delete(|emit| self.node.list_all(emit)),
            Command::Where(key) => self.reply(&self.place(&key)),
            Command::Ring => self.reply(&text::listing(self.node.describe_ring())),
            Command::Stats => self.reply(&text::listing(self.node.describe_stats())),
            Command::Ping => self.reply("PONG\n"),
            Command::Help => self.reply(&text::listing(HELP.map(str::to_owned))),
            Command::Quit => {
                self.reply("BYE\n");
                return Next::Close;
            }
        }
        Next::Serve
    }

    fn change(&self, key: Key, change: Change) {
        self.request(key, Action::Change(change), text::outcome);
    }

    /// Starts a request; whichever thread ends it prints the reply.
    fn request(&self, key: Key, action: Action, print: fn(&Result<Outcome, Failure>) -> String) {
        self.turn.take();
        self.node.stats.requests.add(1);
        let (node, replies, turn) = (self.node.clone(), self.replies.clone(), self.turn.clone());
        let ended = move |result: Result<Outcome, Failure>| {
            node.stats.failures.add(u64::from(result.is_err()));
            if !replies.send(print(&result).as_bytes()) {
                // Without this reply the client would take the next one for it.
                replies.close();
            }
            turn.give();
        };
        self.node.submit(key, action, Box::new(ended));
    }

    fn reply(&self, text: &str) {
        if !self.replies.send(text.as_bytes()) {
            self.replies.close();
        }
    }

    fn fail(&self, failure: &Failure) -> Next {
        self.reply(&text::failure(failure));
        match failure {
            Failure::Busy(_) | Failure::Denied(_) => Next::Close,
            _ => Next::Serve,
        }
    }

    fn place(&self, key: &Key) -> String {
        let replicas = self.node.ring.preference_list(key);
        let ids: Vec<_> = replicas.iter().map(|node| node.to_string()).collect();
        format!("WHERE {} {}\n", Position::of(key.as_slice()), ids.join(" "))
    }

    /// Prints pairs as they are found, at the pace of the client.
    fn list(&self, find: impl FnOnce(Emit) -> Result<(), Failure>) -> Next {
        let mut part = String::new();
        let mut count = 0;
        let found = find(&mut |pair: Pair| {
            part += &text::pair(&pair);
            count += 1;
            if part.len() >= PART {
                self.reply(&std::mem::take(&mut part));
                self.drain();
            }
            Ok(())
        });
        self.reply(&part);
        match found {
            Ok(()) => self.reply(&text::end(count)),
            Err(failure) => return self.fail(&failure),
        }
        Next::Serve
    }

    fn delete(&self, find: impl FnOnce(Emit) -> Result<(), Failure>) -> Next {
        let mut keys = BTreeSet::new();
        let deleted = find(&mut |pair: Pair| {
            keys.insert(pair.key);
            Ok(())
        })
        .and_then(|()| self.node.delete_all(&keys));
        match deleted {
            Ok(count) => self.reply(&format!("OK {count}\n")),
            Err(failure) => return self.fail(&failure),
        }
        Next::Serve
    }

    /// Waits until the client has taken what was sent, or its connection is closed.
    fn drain(&self) {
        while !self.replies.drained() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Whether a request of the connection is under way.
#[derive(Default)]
struct Turn {
    state: Mutex<TurnState>,
    given: Condvar,
}

#[derive(Default)]
struct TurnState {
    taken: bool,
    /// Whether the session's thread waits. Mostly the client sends its next request only after the
    /// reply, and nobody has to be woken.
    awaited: bool,
}

impl Turn {
    fn take(&self) {
        lock(&self.state).taken = true;
    }

    fn give(&self) {
        let mut state = lock(&self.state);
        state.taken = false;
        if state.awaited {
            self.given.notify_one();
        }
    }

    fn wait(&self) {
        let mut state = lock(&self.state);
        state.awaited = true;
        while state.taken {
            state = self
                .given
                .wait(state)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        state.awaited = false;
    }
}

/// One connection's part of the budget, given back at its end.
struct Share<'a> {
    budget: &'a Budget,
    taken: usize,
}

impl Share<'_> {
    /// Takes what a line of this length needs, or gives back what it no longer needs.
    fn covers(&mut self, length: usize) -> bool {
        let needed = length.saturating_sub(SMALL);
        if needed > self.taken {
            let more = needed - self.taken;
            let before = self.budget.0.fetch_add(more, Ordering::Relaxed);
            self.taken = needed;
            return before + more <= BUDGET;
        }
        self.budget
            .0
            .fetch_sub(self.taken - needed, Ordering::Relaxed);
        self.taken = needed;
        true
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.taken, Ordering::Relaxed);
    }
}
