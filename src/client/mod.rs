//! A blocking client of the text protocol, for the command line, the benchmark and the tests: [`Client`]
//! talks to one node, and a [`routed`] one to the coordinator of each key.

pub mod routed;
pub mod speaker;

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A connection to one node.
pub struct Client {
    sending: TcpStream,
    receiving: BufReader<TcpStream>,
}

impl Client {
    /// Connects to the first address of `host:port` that answers; `patience` bounds each of these attempts, each
    /// send and each wait for a reply.
    ///
    /// # Errors
    /// That of the last address.
    pub fn connect(address: impl ToSocketAddrs, patience: Duration) -> io::Result<Client> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in address.to_socket_addrs()? {
            match Client::open(&address, patience) {
                Ok(client) => return Ok(client),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn open(address: &SocketAddr, patience: Duration) -> io::Result<Client> {
        let sending = TcpStream::connect_timeout(address, patience)?;
        // On a port that nobody listens on, and that the system has handed out to this very connection.
        if sending.local_addr()? == sending.peer_addr()? {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        sending.set_nodelay(true)?;
        sending.set_read_timeout(Some(patience))?;
        sending.set_write_timeout(Some(patience))?;
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
        self.receiving.read_line(&mut line)?;
        // A node may end in the middle of a reply: the half that came is none.
        if !line.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end_matches(['\r', '\n']).len());
        Ok(line)
    }

    /// Whether [`Client::receive`] would return at once, with a line that has come already.
    pub fn has_line(&self) -> bool {
        self.receiving.buffer().contains(&b'\n')
    }

    /// Sends one request and waits for its reply of one line.
    pub fn call(&mut self, request: &str) -> io::Result<String> {
        self.send(format!("{request}\n").as_bytes())?;
        self.receive()
    }

    /// Sends one request and waits for its reply, of one line or up to `END` or `ERROR`. What is told to a member
    /// of a group meanwhile stands before it.
    pub fn list(&mut self, request: &str) -> io::Result<Vec<String>> {
        let is_last: fn(&str) -> bool = match is_listing(request) {
            true => ends_listing,
            false => |line| !is_pushed(line),
        };
        let mut lines = vec![self.call(request)?];
        while !lines.last().is_some_and(|line| is_last(line)) {
            lines.push(self.receive()?);
        }
        Ok(lines)
    }
}

fn is_listing(request: &str) -> bool {
    let request = request.trim().to_ascii_uppercase();
    let words: Vec<_> = request.split_whitespace().collect();
    matches!(
        words[..],
        ["RING" | "STATS" | "HELP" | "GROUPS"]
            | ["GET", "@" | "*"]
            | ["HISTORY", _, ..]
            | ["WHO", _]
    )
}

/// Whether a line is told to a member of a group, and not the reply to a request.
pub fn is_pushed(line: &str) -> bool {
    ["MSG ", "MISSED ", "BEHIND "]
        .iter()
        .any(|start| line.starts_with(start))
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn of_several_addresses_of_a_node_the_first_that_answers_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listens = listener.local_addr().unwrap();
        let gone = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let patience = Duration::from_secs(9);
        assert!(Client::connect(&[gone, listens][..], patience).is_ok());
        let refused = Client::connect(&[gone, gone][..], patience).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let unknown = Client::connect(&[][..], patience).err().unwrap();
        assert_eq!(unknown.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn half_a_line_of_a_node_that_ends_is_no_reply() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = Client::connect(address, Duration::from_secs(9)).unwrap();
        let (mut node, _) = listener.accept().unwrap();
        node.write_all(b"OK 5554:11\nOK 5554:1").unwrap();
        drop(node);
        assert_eq!(client.receive().unwrap(), "OK 5554:11");
        let ended = client.receive().unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_client_of_a_port_that_nobody_listens_on_never_meets_itself() {
        // Linux hands even ports out to connections, one after the other.
        let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let port = (40_000..50_000).step_by(2).find(free).unwrap();
        let address = format!("127.0.0.1:{port}");
        for _ in 0..40_000 {
            assert!(Client::connect(&address, Duration::from_secs(9)).is_err());
        }
    }
}
