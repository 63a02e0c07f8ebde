//! The connection of a link: opens it, shakes hands, and receives the replies.

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use log::{debug, info};

use super::{Answer, Link};
use crate::lock;
use crate::storage::Start;
use crate::transport::handshake::{Hello, LocalNode, PROTOCOL, Welcome};
use crate::transport::message::{self, Ask, MAX_LINE, QUEUE_LIMIT, Reply, Request, Tell};
use crate::transport::socket::{self, TcpStream};
use crate::transport::suspicion::LOOKS;
use crate::transport::{self, Budget, Lines, Outgoing, Received};

/// How often the link looks for overdue questions while bytes come in.
const LOOK_EVERY: Duration = Duration::from_millis(25);

impl Link {
    /// Opens the connection, with the handshake. Returns its receiving side.
    pub(super) fn connect(&self) -> io::Result<Lines<TcpStream>> {
        let Some(owner) = self.settings.owner.upgrade() else {
            return Err(io::ErrorKind::Interrupted.into());
        };
        let time_out = self.settings.read_timeout;
        let address = self.next_address()?;
        lock(&self.state).opened = self.now();
        let mut stream = socket::connect(&address, time_out)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(time_out / LOOKS))?;
        stream.set_write_timeout(Some(time_out))?;
        let hello = Hello {
            protocol: PROTOCOL,
            cluster: self.settings.cluster.clone(),
            from: self.settings.node,
            to: self.settings.peer,
            introduction: owner.introduction(),
        };
        stream.write_all(&message::line(&hello))?;
        let sending = stream.try_clone()?;
        let mut lines = Lines::new(stream, MAX_LINE);
        let process = self.await_welcome(owner.as_ref(), &mut lines)?;
        let connection = Outgoing::new(sending, &Budget::new(QUEUE_LIMIT))?;
        self.connected(connection, process);
        Ok(lines)
    }

    /// Waits for the answer to the hello. Returns the process of the peer at the other end.
    fn await_welcome(
        &self,
        owner: &dyn LocalNode,
        lines: &mut Lines<TcpStream>,
    ) -> io::Result<Start> {
        let peer = self.settings.peer;
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        loop {
            match message::next(lines, "it did not greet as a node does")? {
                Some(Welcome::Welcome(introduction)) => {
                    let met = owner.meet(peer, &introduction);
                    let refused = |refusal: Welcome| invalid(refusal.text().to_owned());
                    return met.map(|()| introduction.start).map_err(refused);
                }
                Some(refusal) => {
                    let why = refusal.text();
                    if matches!(refusal, Welcome::Outdated(_)) {
                        owner.outdated(peer, why);
                    }
                    return Err(invalid(format!("refused: {why}")));
                }
                None => {}
            }
            match lines.receive()? {
                Received::Bytes(_) => {}
                Received::End => return Err(io::ErrorKind::UnexpectedEof.into()),
                Received::Nothing if self.ending.load(Ordering::Relaxed) => {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                // The operating system accepts connections for a paused process, too, so its silence is
                // watched already.
                Received::Nothing => {
                    self.watch();
                    self.renew_if_hopeless()?;
                }
            }
        }
    }

    fn connected(&self, connection: Arc<Outgoing>, process: Start) {
        transport::batch(|| self.ask_again(connection, process));
        let peer = self.settings.peer;
        if std::mem::replace(&mut lock(&self.state).connection_logged, true) {
            debug!("connected to {peer} again");
        } else {
            info!("connected to {peer}");
        }
        self.heard();
        self.returned();
    }

    /// Sends the outstanding questions on a new connection, because a reset proves no failure.
    fn ask_again(&self, connection: Arc<Outgoing>, process: Start) {
        let mut state = lock(&self.state);
        for (&id, question) in &mut state.outstanding {
            if question.sent && matches!(question.request, Request::Coordinate { .. }) {
                // Two answers to one forwarded request could contradict each other, so this one waits
                // for its time-out.
                question.orphaned = true;
                continue;
            }
            let ask = question.request.clone();
            question.sent |= message::send(&connection, &Ask { id, ask });
        }
        state.connection = Some(connection);
        state.process = Some(process);
        state.dropped = false;
    }

    /// Receives replies until the connection or the link ends.
    pub(super) fn receive(&self, mut lines: Lines<TcpStream>) -> io::Result<()> {
        let mut looked = self.now();
        loop {
            let received = lines.receive()?;
            match received {
                Received::Bytes(_) => {
                    if self.heard() {
                        self.returned();
                    }
                    transport::batch(|| self.take_replies(&mut lines))?;
                }
                Received::Nothing => {}
                Received::End => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            // Questions are also given up in time if other bytes come all the time.
            if received == Received::Nothing || self.now() >= looked + LOOK_EVERY {
                looked = self.now();
                let patience = self.watch();
                self.make_up_for_dropped();
                self.renew_if_hopeless()?;
                lines.reader().set_read_timeout(Some(patience))?;
            }
            if self.ending.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }

    fn take_replies(&self, lines: &mut Lines<TcpStream>) -> io::Result<()> {
        while let Some(reply) = message::next(lines, "a reply that is not understood")? {
            let Tell { id, tell } = reply;
            let mut state = lock(&self.state);
            if let Reply::Pong(position) = tell {
                state.note_position(position);
            }
            // A reply that comes too late finds no question, and is dropped.
            let question = state.outstanding.remove(&id);
            drop(state);
            if let Some(question) = question {
                (question.callback)(Answer::Reply(tell));
            }
        }
        Ok(())
    }

    pub(super) fn log_trouble(&self, trouble: &str) {
        let mut state = lock(&self.state);
        let peer = self.settings.peer;
        let passed = state.trouble.pass(self.now());
        let Some(others) = passed.filter(|_| !self.ending.load(Ordering::Relaxed)) else {
            return debug!("connection to {peer}: {trouble}");
        };
        info!(
            "connection to {peer} at {}: {trouble}{others}",
            self.settings.address
        );
        state.connection_logged = false;
    }

    /// An address of the peer. After a failed attempt this is the next one of its name.
    fn next_address(&self) -> io::Result<SocketAddr> {
        let addresses: Vec<_> = self.settings.address.to_socket_addrs()?.collect();
        let place = lock(&self.state).failures.checked_rem(addresses.len());
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        place.map(|place| addresses[place]).ok_or_else(unknown)
    }
}
