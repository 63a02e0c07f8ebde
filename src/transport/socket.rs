//! Sockets: what the standard library lacks or leaves open.

use std::io::{self, Read};
pub use std::net::TcpStream;
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, send, sockopt};

/// After so long without a byte the operating system sends a keepalive probe.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// How long it waits for an answer before it sends another one.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// After so many probes without an answer the connection fails.
const KEEPALIVE_PROBES: u32 = 4;

/// Makes a connection to a machine that has vanished fail within two minutes, even if nothing is sent
/// on it.
pub fn notice_vanished(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    Ok(sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?)
}

/// Connects, within `time_out`.
///
/// # Errors
/// [`io::ErrorKind::ConnectionRefused`] also if the connection has met itself. That happens if nobody
/// listens on the port and the operating system picks the same port for this end.
pub fn connect(address: &SocketAddr, time_out: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(address, time_out)?;
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

/// Ends a connection so that all that was written on it arrives. A close with bytes unread would reset
/// it, and the other side could lose what it has not read yet. So this reads on, and throws away what
/// comes, until the other side closes, `within` has passed, or `most` bytes have come.
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

/// Sends as many bytes as fit the socket's buffer at this moment, and returns how many.
pub fn send_without_waiting(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let mut sent = 0;
    while sent < bytes.len() {
        match send(stream, &bytes[sent..], flags) {
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
        // Linux gives even ports to connections, one after the other, so one of them would meet itself.
        let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let port = (50_000..60_000).step_by(2).find(free).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        for _ in 0..40_000 {
            assert!(connect(&address, Duration::from_secs(9)).is_err());
        }
    }
}
