//! The network between the nodes, as a test wants it: a proxy on the way from each node to each
//! other.
//!
//! Each node asks on connections that it opened itself, so what travels from A to B are A's
//! questions on the connection from A to B and A's answers on the one from B to A. A cut holds
//! both up, and keeps the connections open: nobody is told. What was sent meanwhile arrives
//! after the healing, late, as it would after a real cut.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// All proxies of a cluster.
pub struct Network {
    shared: Arc<Shared>,
    /// Where the proxy from one node to another listens.
    ports: BTreeMap<(u32, u32), SocketAddr>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    ending: AtomicBool,
}

#[derive(Default)]
struct State {
    cut: BTreeSet<(u32, u32)>,
    delays: BTreeMap<(u32, u32), Duration>,
    /// The connections that are open, by who opened them and to whom.
    open: Vec<((u32, u32), TcpStream)>,
}

impl Network {
    /// Proxies between all nodes, in front of these ports.
    pub fn new(peer_ports: &BTreeMap<u32, u16>) -> Network {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            ending: AtomicBool::new(false),
        });
        let mut ports = BTreeMap::new();
        for &from in peer_ports.keys() {
            for (&to, &port) in peer_ports.iter().filter(|(to, _)| **to != from) {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                ports.insert((from, to), listener.local_addr().unwrap());
                let shared = shared.clone();
                thread::spawn(move || shared.accept(&listener, (from, to), port));
            }
        }
        Network { shared, ports }
    }

    /// The port at which `from` finds `to`.
    pub fn port(&self, from: u32, to: u32) -> Option<u16> {
        self.ports.get(&(from, to)).map(SocketAddr::port)
    }

    /// Nothing of what `from` says reaches `to` any more.
    pub fn cut(&self, from: u32, to: u32) {
        self.change(|state| state.cut.insert((from, to)));
    }

    /// Cuts a node off from all others, in both directions.
    pub fn isolate(&self, node: u32) {
        let touching = self
            .ports
            .keys()
            .filter(|(from, to)| *from == node || *to == node);
        self.change(|state| state.cut.extend(touching));
    }

    /// Ends all cuts and delays.
    pub fn heal(&self) {
        self.change(|state| {
            state.cut.clear();
            state.delays.clear();
        });
    }

    /// What `from` says reaches `to` that much later.
    pub fn delay(&self, from: u32, to: u32, by: Duration) {
        self.change(|state| state.delays.insert((from, to), by));
    }

    /// Closes the connections between two nodes; they may open new ones.
    pub fn reset(&self, one: u32, other: u32) {
        self.change(|state| {
            let between = [(one, other), (other, one)];
            let closed = state
                .open
                .extract_if(.., |(link, _)| between.contains(link));
            closed.for_each(|(_, stream)| close(&stream));
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) {
        change(&mut self.shared.state.lock().unwrap());
        self.shared.changed.notify_all();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        self.change(|state| state.open.drain(..).for_each(|(_, stream)| close(&stream)));
        for address in self.ports.values() {
            // Wakes the thread that accepts.
            drop(TcpStream::connect(address));
        }
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener, link: (u32, u32), port: u16) {
        for stream in listener.incoming() {
            if self.ending.load(Ordering::Relaxed) {
                return;
            }
            let (Ok(near), Ok(far)) = (stream, TcpStream::connect(("127.0.0.1", port))) else {
                // The node behind is down: dropping the connection says so.
                continue;
            };
            self.connect(link, &near, &far);
        }
    }

    fn connect(self: &Arc<Self>, link: (u32, u32), near: &TcpStream, far: &TcpStream) {
        let mut state = self.state.lock().unwrap();
        state.open.push((link, near.try_clone().unwrap()));
        state.open.push((link, far.try_clone().unwrap()));
        drop(state);
        let back = (link.1, link.0);
        for (way, from, to) in [(link, near, far), (back, far, near)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            to.set_nodelay(true).unwrap();
            let shared = self.clone();
            thread::spawn(move || {
                shared.carry(way, &from, &to);
                close(&from);
                close(&to);
            });
        }
    }

    /// Carries bytes one way until either side closes.
    fn carry(&self, way: (u32, u32), mut from: &TcpStream, mut to: &TcpStream) {
        let mut bytes = [0; 16 << 10];
        loop {
            // The end of a connection is a message too: a cut holds it up.
            let count = from.read(&mut bytes).unwrap_or(0);
            self.pass(way);
            if count == 0 || to.write_all(&bytes[..count]).is_err() {
                return;
            }
        }
    }

    /// Waits as long as the way is cut, and for its delay.
    fn pass(&self, way: (u32, u32)) {
        let state = self.state.lock().unwrap();
        let held =
            |state: &mut State| state.cut.contains(&way) && !self.ending.load(Ordering::Relaxed);
        let state = self.changed.wait_while(state, held).unwrap();
        let delay = state.delays.get(&way).copied();
        drop(state);
        if let Some(delay) = delay {
            thread::sleep(delay);
        }
    }
}

fn close(stream: &TcpStream) {
    // An error says that it is closed already.
    let _ = stream.shutdown(Shutdown::Both);
}
