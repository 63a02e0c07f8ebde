//! Connections between nodes, and what connections with clients share with them.
//!
//! Between two nodes there is one connection in each direction. A node asks on the one that it opened
//! ([`link`]), and answers on the one that the other node opened ([`inbound`]). Each begins with a
//! [`handshake`], and then carries [`message`]s. [`suspicion`] decides when a peer counts as silent.
//!
//! Each connection has a receiving side ([`lines`]) and a sending side ([`outgoing`]), both bounded.

pub mod budget;
pub mod handshake;
pub mod inbound;
pub mod lines;
pub mod link;
pub mod message;
pub mod outgoing;
pub mod socket;
pub mod suspicion;

pub use budget::{Budget, Share};
pub use inbound::{Respond, Service};
pub use lines::{Lines, Received};
pub use link::{Answer, Link};
pub use message::{Reply, Request};
pub use outgoing::{Outgoing, batch};

use std::net::TcpListener;

/// Ends a listener, so that the thread that accepts from it gets errors from now on. A connection to the
/// own address would wake that thread, too, but may find no free descriptor or no route.
pub fn stop_listening(listener: &TcpListener) {
    // An error means that it has ended already.
    let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, mpsc};
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn connect() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (stream, listener.accept().unwrap().0)
    }

    fn pair(limit: usize) -> (Arc<Outgoing>, TcpStream) {
        let (stream, receiver) = connect();
        let sending = Outgoing::new(stream, &Budget::new(limit)).unwrap();
        (sending, receiver)
    }

    #[test]
    fn a_listener_that_is_stopped_wakes_its_thread_and_accepts_nobody() {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        let (sender, accepted) = mpsc::channel();
        let accepting = listener.clone();
        let accept = move || sender.send(accepting.accept().map(drop));
        let thread = thread::spawn(accept);
        stop_listening(&listener);
        let accepted = accepted.recv_timeout(Duration::from_secs(60));
        accepted.expect("it is woken").unwrap_err();
        thread.join().unwrap().unwrap();
        listener.accept().unwrap_err();
        TcpStream::connect(address).unwrap_err();
    }

    #[test]
    fn the_messages_of_a_batch_arrive_in_order_when_it_ends() {
        let (out, mut receiver) = pair(1000);
        receiver.set_nonblocking(true).unwrap();
        let mut bytes = [0; 10];
        batch(|| {
            // A batch in a batch is part of it.
            assert!(batch(|| out.send(b"one ")) && out.send(b"two"));
            assert_eq!(
                receiver.read(&mut bytes).unwrap_err().kind(),
                io::ErrorKind::WouldBlock
            );
        });
        receiver.set_nonblocking(false).unwrap();
        receiver.read_exact(&mut bytes[..7]).unwrap();
        assert_eq!(&bytes[..7], b"one two");
    }

    #[test]
    fn a_batch_does_not_hold_much_back() {
        let (out, mut receiver) = pair(1 << 20);
        let surely = Duration::from_secs(10);
        receiver.set_read_timeout(Some(surely)).unwrap();
        let chunk = vec![7; 32 << 10];
        let mut received = vec![0; 2 * chunk.len()];
        batch(|| {
            assert!(out.send(&chunk) && out.waiting() > 0);
            assert!(out.send(&chunk));
            receiver.read_exact(&mut received).unwrap();
            assert!(out.send(b"the rest") && out.waiting() > 0);
        });
        receiver.read_exact(&mut received[..8]).unwrap();
        assert_eq!(&received[..8], b"the rest");
    }

    #[test]
    fn a_receiver_that_does_not_read_blocks_no_sender_and_loses_nothing() {
        let (out, mut receiver) = pair(64 << 20);
        let chunk = vec![7; 1 << 20];
        for _ in 0..32 {
            assert!(out.send(&chunk));
        }
        let mut received = vec![0; 32 << 20];
        receiver.read_exact(&mut received).unwrap();
        assert!(received.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn a_receiver_that_takes_nothing_loses_its_connection_unless_it_sends_something() {
        let (stream, mut receiver) = connect();
        let same = stream.try_clone().unwrap();
        let out = Outgoing::new(stream, &Budget::new(64 << 20)).unwrap();
        let time_out = Duration::from_millis(50);
        same.set_write_timeout(Some(time_out)).unwrap();
        let stop = AtomicBool::new(false);
        let received = thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    out.heard();
                    thread::sleep(time_out / 10);
                }
            });
            let sent = out.send(&vec![7; 32 << 20]);
            thread::sleep(5 * time_out);
            let received = receiver.read_exact(&mut vec![0; 32 << 20]);
            stop.store(true, Ordering::Relaxed);
            received.map(|()| sent)
        });
        assert!(received.unwrap());
        assert!(out.send(&vec![7; 32 << 20]));
        out.drain(0);
        assert!(out.closed());
    }

    #[test]
    fn no_more_than_the_limit_waits() {
        let (out, _receiver) = pair(1 << 20);
        let chunk = vec![7; 1 << 20];
        let taken = (0..64).take_while(|_| out.send(&chunk)).count();
        assert!(taken < 64);
    }
}
