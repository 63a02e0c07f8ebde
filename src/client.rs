//! A blocking client of the text protocol, for the command line, the benchmark and the tests.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A connection to one node.
pub struct Client {
    sending: TcpStream,
    receiving: BufReader<TcpStream>,
}

impl Client {
    /// Connects to `host:port`; `patience` bounds the connecting and each wait for a reply.
    pub fn connect(address: &str, patience: Duration) -> io::Result<Client> {
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let address = address.to_socket_addrs()?.next().ok_or_else(unknown)?;
        let sending = TcpStream::connect_timeout(&address, patience)?;
        sending.set_nodelay(true)?;
        sending.set_read_timeout(Some(patience))?;
        let receiving = BufReader::new(sending.try_clone()?);
        Ok(Client { sending, receiving })
    }

    /// Bounds each wait for a reply from now on, or lets it take as long as it takes.
    pub fn wait_for(&self, patience: Option<Duration>) -> io::Result<()> {
        self.sending.set_read_timeout(patience)
    }

    /// Sends bytes as they are: several lines, or half a line.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sending.write_all(bytes)
    }

    /// The next line, without its end.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the node has closed the connection.
    pub fn receive(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.receiving.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end_matches(['\r', '\n']).len());
        Ok(line)
    }

    /// Sends one request and waits for its reply of one line.
    pub fn call(&mut self, request: &str) -> io::Result<String> {
        self.send(format!("{request}\n").as_bytes())?;
        self.receive()
    }

    /// Sends one request and waits for its reply, of one line or up to `END` or `ERROR`.
    pub fn list(&mut self, request: &str) -> io::Result<Vec<String>> {
        self.send(format!("{request}\n").as_bytes())?;
        let mut lines = vec![self.receive()?];
        if is_listing(request) {
            while !lines.last().is_some_and(|line| ends_listing(line)) {
                lines.push(self.receive()?);
            }
        }
        Ok(lines)
    }
}

fn is_listing(request: &str) -> bool {
    let request = request.trim().to_ascii_uppercase();
    let words: Vec<_> = request.split_whitespace().collect();
    matches!(words[..], ["RING" | "STATS" | "HELP"] | ["GET", "@" | "*"])
}

/// Whether a request is about all pairs, of a node or of the store: then how long it takes depends
/// on how many there are.
pub fn is_about_all(request: &str) -> bool {
    let words: Vec<_> = request.split_whitespace().collect();
    matches!(words[..], [_, "@" | "*"])
}

fn ends_listing(line: &str) -> bool {
    line.starts_with("END ") || line.starts_with("ERROR ")
}
