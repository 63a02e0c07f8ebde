//! The socket below a connection.

use std::io;
pub use std::net::TcpStream;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SendFlags, send, sockopt};

/// After so long without a byte the system asks whether the other machine is still there.
const QUIET: Duration = Duration::from_secs(60);
/// Without an answer it asks again after this time.
const PROBE_AGAIN: Duration = Duration::from_secs(15);
/// After so many questions in vain the connection has failed.
const QUESTIONS: u32 = 4;

/// Lets the connection of a machine that has vanished fail within two minutes, though nothing is
/// to be sent on it.
pub fn notice_vanished(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, QUIET)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_AGAIN)?;
    Ok(sockopt::set_tcp_keepcnt(stream, QUESTIONS)?)
}

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
