//! A connection on which lines come at any time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long a client waits for an answer before it goes to the next node.
pub const ANSWER: Duration = Duration::from_secs(1);

pub struct Connection {
    stream: TcpStream,
    /// What has come and is no whole line yet, or has not been taken.
    received: Vec<u8>,
}

impl Connection {
    /// Connects, and takes a nick.
    ///
    /// # Errors
    /// There is no such node now, or it serves nobody. [`ErrorKind::TimedOut`] if it does not answer.
    pub fn open(address: &str, nick: &str) -> io::Result<Connection> {
        let address: SocketAddr = address.parse().expect("an address");
        let stream = TcpStream::connect_timeout(&address, ANSWER)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(ANSWER))?;
        let received = Vec::new();
        let mut connection = Connection { stream, received };
        connection.send(&format!("NICK {nick}"))?;
        match connection.answer(ANSWER)?.as_str() {
            "OK" => Ok(connection),
            refusal => Err(io::Error::other(refusal.to_owned())),
        }
    }

    pub fn send(&mut self, line: &str) -> io::Result<()> {
        self.stream.write_all(format!("{line}\n").as_bytes())
    }

    /// The next line, without its end, or `None` if none comes in this time. Half a line is kept until the rest
    /// comes.
    ///
    /// # Errors
    /// The node has closed the connection.
    pub fn line(&mut self, patience: Duration) -> io::Result<Option<String>> {
        let until = Instant::now() + patience;
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line = self.received.drain(..=end).take(end).collect();
                return Ok(Some(String::from_utf8(line).expect("replies are text")));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut bytes = [0; 16 << 10];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next line.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] if none comes in this time, or the node has closed the connection.
    pub fn answer(&mut self, patience: Duration) -> io::Result<String> {
        self.line(patience)?.ok_or(ErrorKind::TimedOut.into())
    }

    /// Sends a request whose reply ends with `END` or `ERROR`. Returns the lines and that last one.
    pub fn list(&mut self, request: &str, patience: Duration) -> io::Result<(Vec<String>, String)> {
        self.send(request)?;
        let mut lines = Vec::new();
        loop {
            let line = self.answer(patience)?;
            if line.starts_with("END ") || line.starts_with("ERROR ") {
                return Ok((lines, line));
            }
            lines.push(line);
        }
    }
}
