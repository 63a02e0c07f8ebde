//! A link's connection: opens it, greets, and takes the replies that come.

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use log::{debug, info};

use super::{Answer, Link};
use crate::lock;
use crate::storage::Start;
use crate::transport::acquaintance::Acquaintance;
use crate::transport::message::{
    self, Ask, Hello, MAX_LINE, QUEUE_LIMIT, Reply, Request, Tell, Welcome,
};
use crate::transport::socket::{self, TcpStream};
use crate::transport::suspicion::LOOKS;
use crate::transport::{self, Budget, Lines, Outgoing, Received};

/// How often overdue questions are looked for while bytes come in.
const LOOK_EVERY: Duration = Duration::from_millis(25);

impl Link {
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
            protocol: message::PROTOCOL,
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

    /// Returns which process of the peer this is.
    fn await_welcome(
        &self,
        owner: &dyn Acquaintance,
        lines: &mut Lines<TcpStream>,
    ) -> io::Result<Start> {
        let peer = self.settings.peer;
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        loop {
            if let Some(line) = lines
                .next_line()
                .map_err(|_| invalid("an endless line".into()))?
            {
                return match serde_json::from_slice(line) {
                    Ok(Welcome::Welcome(introduction)) => match owner.meet(peer, &introduction) {
                        Ok(()) => Ok(introduction.start),
                        Err(refusal) => Err(invalid(refusal.text().to_owned())),
                    },
                    Ok(Welcome::Refused(why)) => Err(invalid(format!("refused: {why}"))),
                    Ok(Welcome::Outdated(why)) => {
                        owner.outdated(peer, &why);
                        Err(invalid(format!("refused: {why}")))
                    }
                    Err(error) => Err(invalid(format!("it did not greet as a node does: {error}"))),
                };
            }
            match lines.receive()? {
                Received::Bytes(_) => {}
                Received::End => return Err(io::ErrorKind::UnexpectedEof.into()),
                Received::Nothing if self.ending.load(Ordering::Relaxed) => {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                // A paused process still accepts connections: its silence is watched meanwhile.
                Received::Nothing => {
                    self.watch();
                    self.renew_if_hopeless()?;
                }
            }
        }
    }

    fn connected(&self, connection: Arc<Outgoing>, process: Start) {
        transport::batch(|| self.ask_again(connection, process));
        let (node, peer) = (self.settings.node, self.settings.peer);
        if std::mem::replace(&mut lock(&self.state).connected_told, true) {
            debug!("{node}: connected to {peer} again");
        } else {
            info!("{node}: connected to {peer}");
        }
        self.heard();
        self.returned();
    }

    /// Sends again what is still outstanding: a reset is no evidence of failure.
    fn ask_again(&self, connection: Arc<Outgoing>, process: Start) {
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
        state.process = Some(process);
        state.dropped = false;
    }

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
            // Questions are given up in time also where other bytes come all the while.
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
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        while let Some(line) = lines
            .next_line()
            .map_err(|_| invalid("an endless line".into()))?
        {
            let tell: Tell = serde_json::from_slice(line)
                .map_err(|error| invalid(format!("a reply that is not understood: {error}")))?;
            let mut state = lock(&self.state);
            if let Reply::Pong(position) = tell.tell {
                state.heard_position(position);
            }
            // A late reply finds no question any more and is dropped.
            let question = state.outstanding.remove(&tell.id);
            drop(state);
            if let Some(question) = question {
                (question.callback)(Answer::Reply(tell.tell));
            }
        }
        Ok(())
    }

    pub(super) fn note_trouble(&self, trouble: &str) {
        let mut state = lock(&self.state);
        let (node, peer) = (self.settings.node, self.settings.peer);
        let passed = state.trouble.pass(self.now());
        let Some(others) = passed.filter(|_| !self.ending.load(Ordering::Relaxed)) else {
            return debug!("{node}: connection to {peer}: {trouble}");
        };
        info!(
            "{node}: connection to {peer} at {}: {trouble}{others}",
            self.settings.address
        );
        state.connected_told = false;
    }

    /// An address of the peer, after a failure the next one.
    fn next_address(&self) -> io::Result<SocketAddr> {
        let addresses: Vec<_> = self.settings.address.to_socket_addrs()?.collect();
        let place = lock(&self.state).failures.checked_rem(addresses.len());
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        place.map(|place| addresses[place]).ok_or_else(unknown)
    }
}
