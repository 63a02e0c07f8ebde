//! A connection on which a test writes and reads bytes as they are.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long a test waits for bytes before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection that sends and receives bytes as they are.
pub struct Raw(TcpStream);

impl Raw {
    pub fn connect(address: &str) -> Raw {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Raw(stream)
    }

    /// The same connection, for another thread.
    pub fn share(&self) -> Raw {
        Raw(self.0.try_clone().unwrap())
    }

    /// Sends bytes. An error means that the other side has closed, which the next read shows.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.write_all(bytes.as_ref());
    }

    /// How long sending and receiving may take from now on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.0.set_read_timeout(Some(patience)).unwrap();
        self.0.set_write_timeout(Some(patience)).unwrap();
    }

    /// Lets the operating system receive as little ahead of the reader as it can.
    pub fn take_little(&mut self) {
        rustix::net::sockopt::set_socket_recv_buffer_size(&self.0, 1).unwrap();
    }

    /// Sends bytes. Returns false if the other side has closed, or does not take them in time.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.write_all(bytes.as_ref()).is_ok()
    }

    /// Asserts that exactly these bytes come next.
    pub fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let expected = bytes.as_ref();
        let mut received = Vec::new();
        while received.len() < expected.len() {
            let mut byte = [0];
            match self.0.read(&mut byte) {
                Ok(1) => received.push(byte[0]),
                other => panic!(
                    "{other:?} after {:?}, not {:?}",
                    text(&received),
                    text(expected)
                ),
            }
        }
        assert_eq!(text(&received), text(expected));
    }

    /// The next line, with its end.
    pub fn line(&mut self) -> String {
        let mut received = Vec::new();
        while received.last() != Some(&b'\n') {
            let mut byte = [0];
            match self.0.read(&mut byte) {
                Ok(1) => received.push(byte[0]),
                other => panic!("{other:?} after {:?}", text(&received)),
            }
        }
        String::from_utf8(received).expect("replies are text")
    }

    /// Asserts that nothing more comes, and that the other side closes the connection.
    pub fn expect_end(&mut self) {
        assert_eq!(text(&self.rest()), "");
    }

    /// All that comes until the other side closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut received = Vec::new();
        match self.0.read_to_end(&mut received) {
            Ok(_) => {}
            // It closed while something that we sent was still unread.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("{error} after {:?}", text(&received)),
        }
        received
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
