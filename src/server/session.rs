//! One client's connection: its requests, one after the other, and the replies in their order.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use memchr::memrchr;

use super::command::{Command, HELP, MAX_VERSION, begins_http, no_web_server};
use super::telnet::{MARK, Telnet, VOID};
use super::text;
use super::turn::Turn;
use crate::bytes::{Key, MAX_KEY, MAX_VALUE};
use crate::error::Failure;
use crate::node::Node;
use crate::node::listing::{Emit, Pair};
use crate::protocol::ring::Position;
use crate::protocol::{Change, Outcome};
use crate::transport::socket::{notice_vanished, part};
use crate::transport::{Budget, Lines, Outgoing, Received, Share};

/// The longest line: key and value with every byte escaped as `\u0000`, a version, and what
/// surrounds them.
const MAX_LINE: usize = 6 * (MAX_KEY + MAX_VALUE) + MAX_VERSION + 1024;
/// Bytes that each byte of a line takes until its request has ended: twice for the buffer, which
/// grows by doubling, once for the text and once for the value.
const PER_BYTE: usize = 4;
/// Bytes that a listing takes: a page of each replica, and the part that waits for the client.
const LISTING: usize = 8 << 20;
/// A part of a listing that is sent at a time.
const PART: usize = 64 << 10;
/// Bytes of replies that may wait for a client, as long as there is plenty for others, before it is
/// served no further: so one that sends a long pipeline before it reads anything is not stuck.
const MOST_WAITING: usize = 4 << 20;
/// What a client sends after the end of its session is thrown away for so long at the most.
const PARTING: Duration = Duration::from_secs(1);
/// The same, in bytes.
const MOST_AFTER_THE_END: usize = 64 << 20;

/// What others than its session's thread have of a client.
pub struct Client {
    replies: Arc<Outgoing>,
    turn: Turn,
}

impl Client {
    /// `replies` is the sending side of its connection.
    pub fn new(replies: Arc<Outgoing>) -> Arc<Client> {
        let turn = Turn::default();
        Arc::new(Client { replies, turn })
    }

    /// Lets what is under way be the last that is done for it.
    pub fn end(&self) {
        if self.turn.end() {
            // Only where nothing comes: what comes later resets a connection that is shut down so.
            self.replies.stop_receiving();
        }
    }
}

/// Serves one client until it leaves, or [`Client::end`].
pub fn run(
    node: &Arc<Node>,
    budget: &Arc<Budget>,
    client: &Arc<Client>,
    stream: &TcpStream,
) -> io::Result<()> {
    let line_timeout = Duration::from_millis(node.config.line_timeout_ms);
    stream.set_read_timeout(Some(line_timeout))?;
    notice_vanished(stream)?;
    let mut session = Session {
        node,
        lines: Lines::new(Telnet::new(stream), MAX_LINE),
        client,
        replies: &client.replies,
        first_line: true,
        line_began: Instant::now(),
        line_timeout,
        budget,
        share: Share::of(budget),
    };
    let ended = session.serve();
    client.turn.wait();
    // What its lines took is not kept while it is waited for.
    drop(session);
    client.replies.drain(0);
    let parted = part(stream, PARTING, MOST_AFTER_THE_END);
    client.replies.close();
    ended.and(parted)
}

struct Session<'a> {
    node: &'a Arc<Node>,
    lines: Lines<Telnet<&'a TcpStream>>,
    client: &'a Arc<Client>,
    replies: &'a Arc<Outgoing>,
    /// Whether no whole line has come yet.
    first_line: bool,
    /// When the first byte of an unfinished line came.
    line_began: Instant,
    line_timeout: Duration,
    budget: &'a Arc<Budget>,
    /// What its lines take of the budget.
    share: Share,
}

/// Whether to go on with a connection.
#[derive(PartialEq, Eq)]
enum Next {
    Serve,
    Close,
}

impl Session<'_> {
    fn serve(&mut self) -> io::Result<()> {
        while self.client.turn.listen() {
            let received = self.lines.receive();
            self.client.turn.heard();
            let received = received?;
            if let Received::Bytes(_) = received {
                self.replies.heard();
            }
            for _ in 0..self.lines.reader_mut().take_marks() {
                self.replies.send(&MARK);
            }
            if self.serve_lines() == Next::Close || received == Received::End {
                return Ok(());
            }
            // Nothing has been typed since Ctrl-C.
            self.lines.forget_after(VOID);
            let partial = self.lines.partial();
            if matches!(received, Received::Bytes(count) if partial <= count) {
                self.line_began = Instant::now();
            }
            if partial > 0 && self.line_began.elapsed() >= self.line_timeout {
                let millis = self.line_timeout.as_millis();
                let text = format!("the line did not end within {millis} ms");
                self.refuse(&Failure::Syntax(text));
                return Ok(());
            }
            if self.share.holds_much() {
                // What a long line asked for is in memory until it has ended.
                self.client.turn.wait();
            }
            if !self.share.hold(PER_BYTE * partial) {
                self.refuse(&busy("send long lines"));
                return Ok(());
            }
        }
        Ok(())
    }

    /// Tells of a line that was never whole, after the reply to the one before it.
    fn refuse(&self, failure: &Failure) {
        self.client.turn.wait();
        self.fail(failure);
    }

    /// Serves all whole lines that have come.
    fn serve_lines(&mut self) -> Next {
        loop {
            let command = match self.lines.next_line() {
                Ok(Some(line)) => {
                    let void = memrchr(VOID, line).map_or(0, |mark| mark + 1);
                    let line = &line[void..];
                    // A web page can make a browser send one, whose lines might be commands.
                    if std::mem::take(&mut self.first_line) && begins_http(line) {
                        Err(no_web_server())
                    } else {
                        Command::parse(line)
                    }
                }
                Ok(None) => return Next::Serve,
                Err(_) => {
                    let text = format!("the line has more than {MAX_LINE} bytes");
                    self.refuse(&Failure::TooLarge(text));
                    return Next::Close;
                }
            };
            // Replies come in the order of the requests, and a request sees those before it. A
            // client that does not take its replies is not served much further.
            let more = self.client.turn.wait();
            let plenty = self.budget.is_plentiful();
            self.replies.drain(if plenty { MOST_WAITING } else { 0 });
            if !more || self.replies.closed() {
                // Nobody is there any more for what was sent ahead.
                return Next::Close;
            }
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
            Command::Get(key) => self.request(key, None, text::outcome),
            Command::Delete(key) => {
                self.request(key, Some(Change::Delete), text::deletion);
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
        self.request(key, Some(change), text::outcome);
    }

    /// Starts a request; whichever thread ends it prints the reply.
    fn request(
        &self,
        key: Key,
        change: Option<Change>,
        print: fn(&Result<Outcome, Failure>) -> String,
    ) {
        self.client.turn.take();
        self.node.stats.requests.add(1);
        let (node, client) = (self.node.clone(), self.client.clone());
        let ended = move |result: Result<Outcome, Failure>| {
            node.stats.failures.add(u64::from(result.is_err()));
            if !client.replies.send(print(&result).as_bytes()) {
                // More of the kind would cost as much, and be told the same.
                let busy = text::failure(&busy("are sent long replies"));
                if !client.replies.send(busy.as_bytes()) {
                    client.replies.close();
                }
                client.end();
            }
            client.turn.give();
        };
        self.node.submit(key, change, Box::new(ended));
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
        let mut share = Share::of(self.budget);
        if !share.hold(LISTING) {
            return self.fail(&busy("list pairs"));
        }
        let mut part = String::new();
        let mut count = 0;
        let found = find(&mut |pair: Pair| {
            part += &text::pair(&pair);
            count += 1;
            if part.len() < PART {
                return Ok(());
            }
            self.send_part(&std::mem::take(&mut part))
        });
        match found.and_then(|()| self.send_part(&part)) {
            Ok(()) => self.reply(&text::end(count)),
            Err(failure) => return self.fail(&failure),
        }
        Next::Serve
    }

    fn send_part(&self, lines: &str) -> Result<(), Failure> {
        let sent = self.replies.send(lines.as_bytes());
        self.replies.drain(0);
        if self.replies.closed() {
            return Err(Failure::Unavailable("the client has gone".to_owned()));
        }
        if sent {
            Ok(())
        } else {
            Err(busy("are sent long replies"))
        }
    }

    fn delete(&self, find: impl FnOnce(Emit) -> Result<(), Failure>) -> Next {
        let mut share = Share::of(self.budget);
        if !share.hold(LISTING) {
            return self.fail(&busy("delete pairs"));
        }
        match self.node.delete_found(find) {
            Ok(count) => self.reply(&format!("OK {count}\n")),
            Err(failure) => return self.fail(&failure),
        }
        Next::Serve
    }
}

fn busy(doing: &str) -> Failure {
    Failure::Busy(format!("too many clients {doing} at once; try again later"))
}
