//! The socket below a connection.

use std::io;
pub use std::net::TcpStream;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

/// Sends what fits the socket's buffer at this moment, and returns how many bytes that were.
pub fn send_without_waiting(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match send(
            stream,
            &bytes[sent..],
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        ) {
            Ok(count) => sent += count,
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(sent)
}
