//! One client's connection: requests for different keys run at the same time, others alone, and the
//! replies come in the order of the requests.

mod groups;
mod listing;

use std::collections::BTreeSet;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use memchr::memrchr;

use super::command::{Command, HELP, MAX_VERSION, Request, begins_http, no_web_server};
use super::group_text;
use super::pipeline::{self, Pipeline, Until};
use super::telnet::{MARK, Telnet, VOID};
use super::text::{self, busy};
use crate::bytes::{Key, LARGE, MAX_KEY, MAX_VALUE};
use crate::error::Failure;
use crate::node::Node;
use crate::node::groups::{Participant, Receipt};
use crate::protocol::group::GroupName;
use crate::protocol::ring::Position;
use crate::protocol::{Change, Outcome};
use crate::transport::socket::{notice_vanished, part};
use crate::transport::{self, Budget, Lines, Outgoing, Received, Share};

/// The longest line: key and value with every byte escaped as `\u0000`, a version, and what
/// surrounds them.
const MAX_LINE: usize = 6 * (MAX_KEY + MAX_VALUE) + MAX_VERSION + 1024;
/// Bytes that each byte of a line takes until its request has ended: twice for the buffer, which
/// grows by doubling, once for the text and once for the value.
const PER_BYTE: usize = 4;
/// With so many requests under way at a node, each connection has one at a time. More would only wait longer,
/// and five nodes with so many together stay below what one coordinator takes.
const ENOUGH: usize = 512;
/// Bytes of replies that may wait for a client to take them, as long as there is plenty for others, before it is
/// served no further: so one that sends a long pipeline before it reads anything is not stuck.
const MOST_WAITING: usize = 4 << 20;
/// What a client sends after the end of its session is thrown away for so long at the most.
const PARTING: Duration = Duration::from_secs(1);
/// The same, in bytes.
const MOST_AFTER_THE_END: usize = 64 << 20;

/// Serves one client until it leaves, or [`Pipeline::end`].
pub fn run(
    node: &Arc<Node>,
    budget: &Arc<Budget>,
    pipeline: &Arc<Pipeline>,
    stream: &TcpStream,
    connection: u64,
) -> io::Result<()> {
    let line_timeout = Duration::from_millis(node.config.line_timeout_ms);
    stream.set_read_timeout(Some(line_timeout))?;
    notice_vanished(stream)?;
    let replies = pipeline.replies();
    let nick = format!("guest-{}-{connection}", node.id);
    let mut session = Session {
        participant: Participant::new(connection, nick, replies.clone(), group_text::news),
        joined: BTreeSet::new(),
        node,
        lines: Lines::new(Telnet::new(stream), MAX_LINE),
        pipeline,
        replies,
        first_line: true,
        line_began: Instant::now(),
        line_timeout,
        budget,
        share: Share::of(budget),
    };
    let ended = session.serve();
    session.leave_all();
    pipeline.wait(Until::ALL);
    // What its lines took is not kept while it is waited for.
    drop(session);
    pipeline.replies().drain(0);
    let parted = part(stream, PARTING, MOST_AFTER_THE_END);
    pipeline.replies().close();
    ended.and(parted)
}

struct Session<'a> {
    node: &'a Arc<Node>,
    lines: Lines<Telnet<&'a TcpStream>>,
    pipeline: &'a Arc<Pipeline>,
    replies: &'a Arc<Outgoing>,
    participant: Arc<Participant>,
    /// The groups that it is a member of.
    joined: BTreeSet<GroupName>,
    /// Whether no whole line has come yet.
    first_line: bool,
    /// When the first byte of an unfinished line came.
    line_began: Instant,
    line_timeout: Duration,
    budget: &'a Arc<Budget>,
    /// What its lines take of the budget.
    share: Share,
}

/// A line, understood or not.
type Line = Result<Command, Failure>;

/// Whether to go on with a connection.
#[derive(PartialEq, Eq)]
enum Next {
    Serve,
    Close,
}

impl Session<'_> {
    fn serve(&mut self) -> io::Result<()> {
        while self.pipeline.listen() {
            let received = self.lines.receive();
            self.pipeline.heard();
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
                self.pipeline.wait(Until::ALL);
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
        self.pipeline.wait(Until::ALL);
        self.fail(failure);
    }

    /// Serves all whole lines that have come.
    fn serve_lines(&mut self) -> Next {
        loop {
            // Nothing waits in a batch: it may hold back the very messages that are waited for.
            match transport::batch(|| self.begin_requests()) {
                Ok(None) => return Next::Serve,
                Ok(Some(line)) => {
                    if self.serve_line(line) == Next::Close {
                        return Next::Close;
                    }
                }
                Err(too_long) => {
                    self.refuse(&too_long);
                    return Next::Close;
                }
            }
        }
    }

    /// Begins the requests that have come, up to a line that may have to wait, which is returned.
    ///
    /// # Errors
    /// A line is too long.
    fn begin_requests(&mut self) -> Result<Option<Line>, Failure> {
        while let Some(line) = self.next_line()? {
            let Ok(Command::Request(request)) = line else {
                return Ok(Some(line));
            };
            let may_begin = self.is_fluent() && request.length() <= LARGE;
            match may_begin.then(|| self.begin(&request).ok()).flatten() {
                Some(number) => self.submit(number, request),
                None => return Ok(Some(Ok(Command::Request(request)))),
            }
        }
        Ok(None)
    }

    /// Whether the client takes its replies, and there is no reason to run its requests one at a time.
    fn is_fluent(&self) -> bool {
        self.may_run_several() && self.replies.waiting() <= MOST_WAITING && !self.replies.closed()
    }

    fn next_line(&mut self) -> Result<Option<Line>, Failure> {
        let next = self.lines.next_line().map_err(|_| {
            let text = format!("the line has more than {MAX_LINE} bytes");
            Failure::TooLarge(text)
        })?;
        Ok(next.map(|line| {
            let void = memrchr(VOID, line).map_or(0, |mark| mark + 1);
            let line = &line[void..];
            // A web page can make a browser send one, whose lines might be commands.
            if std::mem::take(&mut self.first_line) && begins_http(line) {
                Err(no_web_server())
            } else {
                Command::parse(line)
            }
        }))
    }

    /// Serves one line, once it may be served.
    fn serve_line(&mut self, line: Line) -> Next {
        // What is not about one key sees all requests before it, and all after it see what it did.
        let one_key = matches!(line, Ok(Command::Request(_)));
        if !one_key && !self.wait(Until::ALL) {
            return Next::Close;
        }
        match line {
            Ok(command) => self.execute(command),
            Err(failure) => self.fail(&failure),
        }
    }

    /// Whether there is plenty of memory for more, and the node has not enough to do already.
    fn may_run_several(&self) -> bool {
        self.budget.is_plentiful() && self.node.in_flight() < ENOUGH
    }

    /// Waits; false if the client is served no further. A client that does not take its replies waits
    /// until it has, and so it does not fill the memory.
    fn wait(&self, until: Until) -> bool {
        let several = self.may_run_several();
        let more = self.pipeline.wait(if several { until } else { Until::ALL });
        let plenty = self.budget.is_plentiful();
        // Or messages of groups would keep it waiting for ever.
        let _quiet = (!plenty).then(|| self.participant.quiet());
        self.replies.drain(if plenty { MOST_WAITING } else { 0 });
        // Or nobody is there any more for what was sent ahead.
        more && !self.replies.closed()
    }

    /// Starts a request as soon as it may begin.
    fn request(&self, request: Request) -> Next {
        let mut until = Until::Left(pipeline::MOST);
        while self.wait(until) {
            match self.begin(&request) {
                Ok(number) => {
                    self.submit(number, request);
                    return Next::Serve;
                }
                Err(other) => until = other,
            }
        }
        Next::Close
    }

    fn begin(&self, request: &Request) -> Result<u64, Until> {
        let (key, length) = (request.key(), request.length());
        self.pipeline.begin(&key, length, request.is_say())
    }

    /// Starts a request that has begun; whichever thread ends it answers it.
    fn submit(&self, number: u64, request: Request) {
        self.node.stats.requests.add(1);
        let (node, pipeline) = (self.node.clone(), self.pipeline.clone());
        let answer = move |failed: bool, reply: String| {
            node.stats.failures.add(u64::from(failed));
            pipeline.answer(number, reply);
        };
        match request {
            Request::Key { key, change } => {
                let print = match change {
                    Some(Change::Delete) => text::deletion,
                    _ => text::outcome,
                };
                let ended =
                    move |result: Result<Outcome, Failure>| answer(result.is_err(), print(&result));
                self.node.submit(key, change, Box::new(ended));
            }
            Request::Say {
                group,
                sender,
                text,
            } => {
                let named = sender.clone();
                let ended = move |result: Result<Receipt, Failure>| {
                    let reply = group_text::receipt(&result, named.as_ref());
                    answer(result.is_err(), reply);
                };
                let nick = self.participant.nick();
                self.node.say(&group, sender, nick, text, Box::new(ended));
            }
        }
    }

    fn execute(&mut self, command: Command) -> Next {
        match command {
            Command::Request(request) => return self.request(request),
            Command::ListOwn => return self.list(|emit| self.node.list_own(emit)),
            Command::ListAll => return self.list(|emit| self.node.list_all(emit)),
            Command::DeleteOwn => return self.delete(|emit| self.node.list_own(emit)),
            Command::DeleteAll => return self.delete(|emit| self.node.list_all(emit)),
            Command::Where(key) => self.reply(&self.place(&key)),
            Command::Ring => self.reply(&text::listing(self.node.describe_ring())),
            Command::Stats => self.reply(&text::listing(self.node.describe_stats())),
            Command::Ping => self.reply("PONG\n"),
            Command::Help => self.reply(&text::listing(HELP.map(str::to_owned))),
            Command::Group(command) => return self.execute_group(command),
            Command::Quit => {
                self.reply("BYE\n");
                return Next::Close;
            }
        }
        Next::Serve
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
        let chain = self.node.chain_of(key);
        let chain = chain.map_or(String::new(), |chain| format!(" {chain}"));
        format!("WHERE {} {}{chain}\n", Position::of_key(key), ids.join(" "))
    }
}
