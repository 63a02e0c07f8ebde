//! The network between the nodes, as a test wants it: a proxy on the way from each node to each
//! other.
//!
//! Each node asks on connections that it opened itself. So A's questions travel to B on the connection from
//! A to B, and A's answers on the connection from B to A. A cut holds both up and keeps the connections
//! open, so neither node notices it at once. What was sent meanwhile arrives late, after the healing, as it
//! would after a real cut.
//!
//! Messages are lines, and pass as whole lines. [`Network::befallen`] counts those that a fault met, so
//! that a test can check that its faults did anything.

mod lines;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use lines::Lines;

/// From one node to another.
pub type Way = (u32, u32);

/// All proxies of a cluster.
pub struct Network {
    shared: Arc<Shared>,
    /// Where the proxy from one node to another listens.
    ports: BTreeMap<Way, SocketAddr>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    ending: AtomicBool,
    /// How many bytes were passed on, on all ways.
    carried: AtomicU64,
}

#[derive(Default)]
struct State {
    weather: BTreeMap<Way, Weather>,
    /// How many batches of lines were held up, delayed, doubled or disordered.
    befallen: BTreeMap<Way, usize>,
    /// The connections that are open, by who opened them and to whom.
    open: Vec<(Way, Arc<Connection>)>,
}

/// What befalls the messages on one way.
#[derive(Clone, Copy, Default)]
struct Weather {
    cut: bool,
    delay: Option<Duration>,
    doubled: bool,
    disordered: bool,
    /// The longest time by which a message comes late.
    straggling: Option<Duration>,
}

/// A connection from one node to another, through the proxy.
struct Connection {
    /// To the node that opened it.
    near: TcpStream,
    far: TcpStream,
    /// One side has closed, and the other does not learn of it: its bytes go nowhere.
    half_open: AtomicBool,
}

impl Network {
    /// Proxies between all nodes, in front of these ports.
    pub fn new(peer_ports: &BTreeMap<u32, u16>) -> Network {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            ending: AtomicBool::new(false),
            carried: AtomicU64::new(0),
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

    /// Holds up all messages from `from` to `to`.
    pub fn cut(&self, from: u32, to: u32) {
        self.change(|state| state.weather(from, to).cut = true);
    }

    /// Cuts a node off from all others, in both directions.
    pub fn isolate(&self, node: u32) {
        self.change(|state| {
            for &(from, to) in self.ports.keys() {
                state.weather(from, to).cut |= from == node || to == node;
            }
        });
    }

    /// Delays each message from `from` to `to` by this time.
    pub fn delay(&self, from: u32, to: u32, by: Duration) {
        self.change(|state| state.weather(from, to).delay = Some(by));
    }

    /// Delivers each message to `to` twice, except those that the protocol never repeats.
    pub fn double(&self, from: u32, to: u32) {
        self.change(|state| state.weather(from, to).doubled = true);
    }

    /// Lets messages overtake each other on the way.
    pub fn disorder(&self, from: u32, to: u32) {
        self.change(|state| state.weather(from, to).disordered = true);
    }

    /// Delays about half of the messages, each by a time of its own, up to this one.
    pub fn straggle(&self, from: u32, to: u32, by: Duration) {
        self.change(|state| state.weather(from, to).straggling = Some(by));
    }

    /// Ends all cuts and delays, and whatever else befalls messages. Connections that are half
    /// open stay so until their nodes give them up.
    pub fn heal(&self) {
        self.change(|state| state.weather.clear());
    }

    /// Ends whatever befalls messages on one way.
    pub fn heal_way(&self, from: u32, to: u32) {
        self.change(|state| state.weather.remove(&(from, to)));
    }

    /// How many batches of messages on a way were held up, delayed, doubled or disordered so far.
    pub fn befallen(&self, from: u32, to: u32) -> usize {
        let state = self.shared.state.lock().unwrap();
        state.befallen.get(&(from, to)).copied().unwrap_or(0)
    }

    /// How many bytes all nodes together have sent to each other so far.
    pub fn carried(&self) -> u64 {
        self.shared.carried.load(Ordering::Relaxed)
    }

    /// Closes the connections between two nodes. The nodes may open new ones.
    pub fn reset(&self, one: u32, other: u32) {
        self.change(|state| {
            let between = [(one, other), (other, one)];
            let open = state.open.iter();
            open.filter(|(way, _)| between.contains(way))
                .for_each(|(_, connection)| connection.close());
        });
    }

    /// Closes the connection that `opener` opened to `to`, but only one of the two notices: to the
    /// other it looks open, and what it sends goes nowhere. Returns whether there was a connection.
    pub fn half_open(&self, opener: u32, to: u32, opener_notices: bool) -> bool {
        self.change(|state| {
            let mut found = false;
            for (_, connection) in state.open.iter().filter(|(way, _)| *way == (opener, to)) {
                found |= !connection.half_open.swap(true, Ordering::SeqCst);
                close(if opener_notices {
                    &connection.near
                } else {
                    &connection.far
                });
            }
            found
        })
    }

    /// Whether `opener` has a connection to `to` that is open on both sides.
    pub fn is_open(&self, opener: u32, to: u32) -> bool {
        let state = self.shared.state.lock().unwrap();
        let whole = |connection: &Connection| !connection.half_open.load(Ordering::SeqCst);
        let mut open = state.open.iter();
        open.any(|(way, connection)| *way == (opener, to) && whole(connection))
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.shared.state.lock().unwrap());
        self.shared.changed.notify_all();
        result
    }
}

impl State {
    fn weather(&mut self, from: u32, to: u32) -> &mut Weather {
        self.weather.entry((from, to)).or_default()
    }

    fn count(&mut self, way: Way) {
        *self.befallen.entry(way).or_default() += 1;
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        self.change(|state| state.open.iter().for_each(|(_, open)| open.close()));
        for address in self.ports.values() {
            // Wakes the thread that accepts.
            drop(TcpStream::connect(address));
        }
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener, link: Way, port: u16) {
        for stream in listener.incoming() {
            if self.ending.load(Ordering::Relaxed) {
                return;
            }
            let (Ok(near), Ok(far)) = (stream, TcpStream::connect(("127.0.0.1", port))) else {
                // The node behind is down: dropping the connection says so.
                continue;
            };
            self.connect(link, near, far);
        }
    }

    fn connect(self: &Arc<Self>, link: Way, near: TcpStream, far: TcpStream) {
        near.set_nodelay(true).unwrap();
        far.set_nodelay(true).unwrap();
        let connection = Arc::new(Connection {
            near,
            far,
            half_open: AtomicBool::new(false),
        });
        let mut state = self.state.lock().unwrap();
        state.open.push((link, connection.clone()));
        drop(state);
        for way in [link, (link.1, link.0)] {
            let (shared, connection) = (self.clone(), connection.clone());
            thread::spawn(move || {
                let (from, to) = if way == link {
                    (&connection.near, &connection.far)
                } else {
                    (&connection.far, &connection.near)
                };
                shared.carry(way, &connection, from, to);
                if !connection.half_open.load(Ordering::SeqCst) {
                    connection.close();
                }
                shared.forget(connection);
            });
        }
    }

    /// Carries messages one way until either side closes.
    fn carry(&self, way: Way, connection: &Connection, from: &TcpStream, to: &TcpStream) {
        let mut lines = Lines::new(from);
        let to = Mutex::new(to);
        let send = |bytes: &[u8]| {
            let count = bytes.len() as u64;
            self.carried.fetch_add(count, Ordering::Relaxed);
            let swallowed = connection.half_open.load(Ordering::SeqCst);
            swallowed || to.lock().unwrap().write_all(bytes).is_ok()
        };
        let mut rng = Rng::with_seed(u64::from(way.0) << 32 | u64::from(way.1));
        thread::scope(|scope| {
            loop {
                let Weather { disordered, .. } = self.weather(way);
                // The end of a connection is a message, too: a cut holds it up.
                let mut batch = lines.receive(disordered);
                self.pass(way);
                let Weather {
                    doubled,
                    straggling,
                    ..
                } = self.weather(way);
                if batch.befall(doubled, disordered) {
                    self.state.lock().unwrap().count(way);
                }
                for line in straggling.map_or(Vec::new(), |_| batch.take_stragglers(&mut rng)) {
                    self.state.lock().unwrap().count(way);
                    let late = straggling.unwrap_or_default().mul_f64(rng.f64());
                    scope.spawn(move || {
                        thread::sleep(late);
                        send(&line);
                    });
                }
                if !send(&batch.bytes()) || batch.is_last() {
                    return;
                }
            }
        });
    }

    fn weather(&self, way: Way) -> Weather {
        let state = self.state.lock().unwrap();
        state.weather.get(&way).copied().unwrap_or_default()
    }

    /// Waits as long as the way is cut, and for its delay.
    fn pass(&self, way: Way) {
        let mut state = self.state.lock().unwrap();
        let Weather { cut, delay, .. } = state.weather.get(&way).copied().unwrap_or_default();
        if cut || delay.is_some() {
            state.count(way);
        }
        let cut = |state: &mut State| {
            state.weather.get(&way).is_some_and(|weather| weather.cut)
                && !self.ending.load(Ordering::Relaxed)
        };
        drop(self.changed.wait_while(state, cut).unwrap());
        thread::sleep(delay.unwrap_or_default());
    }

    /// Takes a connection off the list once it has ended in both directions.
    fn forget(&self, connection: Arc<Connection>) {
        let mut state = self.state.lock().unwrap();
        // The list holds one reference, and this thread holds one.
        if Arc::strong_count(&connection) == 2 {
            let other = |(_, open): &(Way, Arc<Connection>)| !Arc::ptr_eq(open, &connection);
            state.open.retain(other);
        }
        // The reference must go before the lock does: the thread of the other direction counts, too.
        drop(connection);
    }
}

impl Connection {
    fn close(&self) {
        close(&self.near);
        close(&self.far);
    }
}

fn close(stream: &TcpStream) {
    // An error says that it is closed already.
    let _ = stream.shutdown(Shutdown::Both);
}
