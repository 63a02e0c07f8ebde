//! A client of one group. It says and shows each message once, whatever happens to the nodes that it talks to.
//! [`conversation`] is the rule that it follows.

mod conversation;
mod outbox;
mod pushed;
mod route;

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, at, bounded, never, select_biased};

use super::Client;
use crate::protocol::group::{GroupName, Message};
use conversation::{Action, Conversation, PATIENCE};

/// How many texts, lines or news may wait to be taken.
const QUEUE: usize = 64;

/// Who talks, where, and through which nodes.
pub struct Talk {
    pub group: GroupName,
    /// See [`check_nick`](crate::protocol::group::check_nick).
    pub nick: String,
    /// How many messages from before are shown first.
    pub last: u64,
    /// The addresses of the nodes, each `host:port`, in the order in which they are tried.
    pub nodes: Vec<String>,
    /// The place of the node that is tried first.
    pub first: usize,
    /// Gives up after so long without progress, while it is not in the group or something that was said is not
    /// acknowledged.
    pub patience: Duration,
    /// Whether it gives up only after the end of what is said.
    pub tries_on: bool,
}

/// Something to tell a person. Nodes are named by their place in [`Talk::nodes`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// It is in the group, through this node.
    Joined {
        node: usize,
        /// Which node it left before, and why, such as "does not answer".
        left: Option<(usize, String)>,
    },
    Message(Message),
    /// The messages with these numbers, both included, are not kept any more.
    Missed {
        from: u64,
        to: u64,
    },
    /// Each node was tried in vain, this one last, and why. This is told once, until a node is found.
    Unreachable((usize, String)),
    /// This is in the group or not, and is not sent again.
    PerhapsSent(String),
    /// This cannot be a message.
    NotSent {
        text: String,
        why: String,
    },
    /// It has ended, and not all is acknowledged. Nothing follows.
    GaveUp {
        /// The node that it left, and why.
        left: Option<(usize, String)>,
        /// What is not known to be in the group, in order.
        unacknowledged: Vec<String>,
    },
}

/// Says things in a group. Once it is dropped, the client ends as soon as all that was said is acknowledged and
/// shown.
pub struct Voice {
    say: Sender<String>,
    /// Nothing is sent here. The talker notices when it is dropped, even while texts wait.
    _lives: Sender<()>,
}

impl Voice {
    /// Says something, and waits while too much is unacknowledged. Returns false if the client has ended.
    pub fn say(&self, text: String) -> bool {
        self.say.send(text).is_ok()
    }

    /// Says something if not too much is unacknowledged.
    ///
    /// # Errors
    /// Too much is, or the client has ended.
    pub fn try_say(&self, text: String) -> Result<(), TrySendError<String>> {
        self.say.try_send(text)
    }
}

/// Joins a group. The channel tells the news, and is disconnected when the client has ended. When the channel is
/// dropped, the client ends with the next news.
pub fn join(talk: Talk) -> (Voice, Receiver<News>) {
    let (say, said) = bounded(QUEUE);
    let (_lives, life) = bounded(0);
    let (tell, news) = bounded(QUEUE);
    let (arrive, arrived) = bounded(QUEUE);
    let (group, nick) = (talk.group.clone(), talk.nick.clone());
    let place = (talk.first, talk.nodes.len());
    let talker = Talker {
        conversation: Conversation::new(group, nick, talk.last, place, Instant::now()),
        talk,
        connection: 0,
        stream: None,
        arrive,
        arrived,
        tell,
    };
    thread::spawn(move || talker.run(said, life));
    (Voice { say, _lives }, news)
}

/// What the thread of a connection tells.
enum Arrival {
    Connected(TcpStream),
    Line(String),
    Lost(&'static str),
}

/// The thread that talks.
struct Talker {
    talk: Talk,
    conversation: Conversation,
    /// The number of the present connection. What earlier ones bring is dropped.
    connection: u64,
    stream: Option<TcpStream>,
    arrive: Sender<(u64, Arrival)>,
    arrived: Receiver<(u64, Arrival)>,
    tell: Sender<News>,
}

impl Talker {
    fn run(mut self, mut said: Receiver<String>, mut life: Receiver<()>) {
        let mut has_ended = false;
        while self.carry_out() {
            if has_ended && said.is_empty() && self.has_no_more_to_do() {
                return;
            }
            let is_stuck = self.conversation.stuck_since().elapsed() >= self.talk.patience;
            let may_give_up = has_ended || !self.talk.tries_on;
            if self.conversation.has_failed() || is_stuck && may_give_up {
                return self.give_up(&said);
            }
            let none = never();
            let more = if self.conversation.has_room() {
                &said
            } else {
                &none
            };
            // What has arrived goes before the clock: a reply that waits here is no silence.
            select_biased! {
                recv(self.arrived) -> arrival => arrival.into_iter().for_each(|it| self.take(it)),
                recv(at(self.conversation.wakes_at())) -> _ => self.conversation.tick(Instant::now()),
                recv(more) -> text => match text {
                    Ok(text) => self.conversation.say(text, Instant::now()),
                    Err(_) => said = never(),
                },
                recv(life) -> _ => (has_ended, life) = (true, never()),
            }
        }
    }

    /// Whether nothing is left to be done, after the end of what is said. Who has tried on does not wait for a
    /// node in order to leave.
    fn has_no_more_to_do(&self) -> bool {
        let may_leave = self.talk.tries_on && !self.conversation.is_joined();
        self.conversation.is_settled() || may_leave && self.conversation.unacknowledged().is_empty()
    }

    /// Does what the conversation wants. Returns false if nobody takes the news any more.
    fn carry_out(&mut self) -> bool {
        for action in self.conversation.take_actions() {
            match action {
                Action::Connect(node) => self.connect(node),
                Action::Close => self.close(),
                Action::Send(line) => self.send(&line),
                Action::Show(news) => {
                    if self.tell.send(news).is_err() {
                        return false;
                    }
                }
            }
        }
        true
    }

    fn connect(&mut self, node: usize) {
        self.connection += 1;
        let (connection, arrive) = (self.connection, self.arrive.clone());
        let address = self.talk.nodes[node].clone();
        thread::spawn(move || {
            let tell = |arrival| arrive.send((connection, arrival)).is_ok();
            let why = serve(&address, tell);
            tell(Arrival::Lost(why));
        });
    }

    fn close(&mut self) {
        self.connection += 1;
        if let Some(stream) = self.stream.take() {
            // An error says that the connection is closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn send(&mut self, line: &str) {
        if let Some(stream) = &mut self.stream {
            // After an error the connection's thread tells that it is lost.
            let _ = stream.write_all(format!("{line}\n").as_bytes());
        }
    }

    fn take(&mut self, (connection, arrival): (u64, Arrival)) {
        if connection != self.connection {
            if let Arrival::Connected(stream) = arrival {
                let _ = stream.shutdown(Shutdown::Both);
            }
            return;
        }
        let now = Instant::now();
        match arrival {
            Arrival::Connected(stream) => {
                self.stream = Some(stream);
                self.conversation.connected(now);
            }
            Arrival::Line(line) => self.conversation.line(&line, now),
            Arrival::Lost(why) => self.conversation.lost(why, now),
        }
    }

    fn give_up(&self, said: &Receiver<String>) {
        let mut unacknowledged = self.conversation.unacknowledged();
        unacknowledged.extend(said.try_iter());
        let left = self.conversation.left();
        // Nobody may be there to be told.
        let _ = self.tell.send(News::GaveUp {
            left,
            unacknowledged,
        });
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.close();
    }
}

/// The thread of a connection: tells each line that comes. Returns why the connection is lost.
fn serve(address: &str, tell: impl Fn(Arrival) -> bool) -> &'static str {
    let connected = Client::connect(address, PATIENCE).and_then(|client| {
        client.wait_for(None)?;
        Ok((client.stream()?, client))
    });
    let Ok((stream, mut client)) = connected else {
        return "cannot be reached";
    };
    let mut is_heard = tell(Arrival::Connected(stream));
    while is_heard {
        match client.receive() {
            Ok(line) => is_heard = tell(Arrival::Line(line)),
            Err(error) if error.kind() == ErrorKind::InvalidData => return "does not send text",
            Err(_) => break,
        }
    }
    "has closed the connection"
}
