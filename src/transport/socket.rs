//! The socket below a connection.

use std::io::{self, Read};
pub use std::net::TcpStream;
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

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

/// Connects, within `time_out`.
///
/// # Errors
/// [`io::ErrorKind::ConnectionRefused`] also if the connection has met itself: where nobody listens, the port
/// may be the one that the system has handed out to this very connection.
pub fn connect(address: &SocketAddr, time_out: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(address, time_out)?;
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

/// Ends a connection so that what was written on it arrives: with bytes unread, a close would reset it,
/// and the other side might lose what it has not read yet. So what it still sends is thrown away,
/// until it closes too, or `within` has passed, or it has sent `most` bytes.
pub fn part(mut stream: &TcpStream, within: Duration, most: usize) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let until = Instant::now() + within;
    let mut thrown_away = 0;
    let mut bytes = [0; 16 << 10];
    while thrown_away < most {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut bytes)? {
            0 => break,
            count => thrown_away += count,
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_connection_to_a_port_that_nobody_listens_on_never_meets_itself() {
        // Linux hands even ports out to connections, one after the other.
        let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let port = (50_000..60_000).step_by(2).find(free).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        for _ in 0..40_000 {
            assert!(connect(&address, Duration::from_secs(9)).is_err());
        }
    }
}
