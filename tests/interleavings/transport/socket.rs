//! A socket whose other end is in the same model.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use shuttle::sync::{Condvar, Mutex};

use crate::draw;
use crate::sync::{Instant, lock, thread};

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    closed: bool,
    /// Whether the receiver may stop taking bytes for longer than the sender waits.
    stalls: bool,
}

impl Pipe {
    fn write(&self, bytes: &[u8], least: usize) -> io::Result<usize> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let count = match draw(3) {
            0 => (least + draw(bytes.len())).min(bytes.len()),
            _ => bytes.len(),
        };
        state.bytes.extend_from_slice(&bytes[..count]);
        self.changed.notify_all();
        Ok(count)
    }

    fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }

    fn stalls(&self) -> bool {
        lock(&self.state).stalls && draw(2) == 0
    }
}

/// One end, which closes when its last holder lets go of it.
struct End {
    sending: Arc<Pipe>,
    receiving: Arc<Pipe>,
    read_timeout: Mutex<Option<Duration>>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.sending.close();
        self.receiving.close();
    }
}

pub struct TcpStream(Arc<End>);

/// Two ends of a new connection.
pub fn pair() -> (TcpStream, TcpStream) {
    let pipes = [Arc::<Pipe>::default(), Arc::default()];
    let end = |sending: usize| {
        TcpStream(Arc::new(End {
            sending: pipes[sending].clone(),
            receiving: pipes[1 - sending].clone(),
            read_timeout: Mutex::new(None),
        }))
    };
    (end(0), end(1))
}

type Accept = Arc<dyn Fn(TcpStream) + Send + Sync>;

shuttle::lazy_static! {
    static ref LISTENER: Mutex<Option<Accept>> = Mutex::new(None);
}

/// Takes the connections that are opened from now on.
pub fn listen(accept: impl Fn(TcpStream) + Send + Sync + 'static) {
    *lock(&LISTENER) = Some(Arc::new(accept));
}

/// Connects to whoever listens, if it is not refused.
pub fn connect(_: &SocketAddr, _: Duration) -> io::Result<TcpStream> {
    let accept = lock(&LISTENER).clone();
    let accept = accept.filter(|_| draw(4) > 0);
    let (client, server) = pair();
    accept.ok_or(ErrorKind::ConnectionRefused)?(server);
    Ok(client)
}

impl TcpStream {
    pub fn try_clone(&self) -> io::Result<TcpStream> {
        Ok(TcpStream(self.0.clone()))
    }

    pub fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        self.0.sending.close();
        self.0.receiving.close();
        Ok(())
    }

    pub fn set_nodelay(&self, _: bool) -> io::Result<()> {
        Ok(())
    }

    pub fn set_write_timeout(&self, _: Option<Duration>) -> io::Result<()> {
        Ok(())
    }

    pub fn set_read_timeout(&self, time_out: Option<Duration>) -> io::Result<()> {
        *lock(&self.0.read_timeout) = time_out;
        Ok(())
    }

    /// From now on the other side may stop to read for longer than a write waits.
    pub fn let_receiver_stall(&self) {
        lock(&self.0.sending.state).stalls = true;
    }

    /// All bytes that the other end has sent and this one has not read.
    pub fn received(&self) -> Vec<u8> {
        lock(&self.0.receiving.state).bytes.clone()
    }
}

/// Sends any part of the bytes, as if the buffer had space for so many.
pub fn send_without_waiting(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    stream.0.sending.write(bytes, 0)
}

impl Write for &TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.sending.stalls() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.0.sending.write(bytes, 1)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&mut &*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for TcpStream {
    /// If there is a time-out, and nothing to read after a moment, the time-out passes at once.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let time_out = *lock(&self.0.read_timeout);
        if time_out.is_some() {
            thread::yield_now();
        }
        let pipe = &self.0.receiving;
        let mut state = lock(&pipe.state);
        while state.bytes.is_empty() && !state.closed {
            if let Some(time_out) = time_out {
                Instant::pass(time_out);
                return Err(ErrorKind::WouldBlock.into());
            }
            state = pipe.changed.wait(state).expect("nobody panicked");
        }
        let count = state.bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&state.bytes[..count]);
        state.bytes.drain(..count);
        Ok(count)
    }
}
