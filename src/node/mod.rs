//! The shell of one node around the protocol: its parts, and how they start and stop.
//!
//! [`drive`] is the loop that takes each request one step further: through the rules of the origin and
//! the coordinator, to the votes of the replicas, and back. The thread that receives an answer runs the loop,
//! and no thread waits in it for another node. [`peers`] names the threads that may wait.

pub mod admission;
pub mod anti_entropy;
pub mod capacity;
mod chain_comparison;
mod chain_listing;
mod chaining;
pub mod deletion;
pub mod drive;
mod effects;
pub mod groups;
pub mod listing;
pub mod numbers;
pub mod peers;
mod rebuild;
mod recognition;
pub mod replica;
pub mod standing;
pub mod stats;
mod strategy;
pub mod timer;
pub mod tombstones;

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use log::{error, info};

use crate::config::Config;
use crate::protocol::origin::Origin;
use crate::protocol::ring::{NodeId, Ring};
use crate::storage::disk::Disk;
use crate::storage::{Hooks, Identity, OpenError, Progress, Store, SyncMode};
use crate::transport::inbound::Inbound;
use crate::{lock, logging, transport};
use admission::Admission;
use anti_entropy::AntiEntropy;
use capacity::Capacity;
use chaining::ChainEvent;
use drive::{Event, OnResult};
use groups::Groups;
use numbers::Numbers;
use peers::Peers;
use recognition::Introductions;
use standing::OwnStanding;
use stats::Stats;
use strategy::Strategy;
use timer::Timer;

/// How long all threads together may take to end.
const STOP_PATIENCE: Duration = Duration::from_millis(500);
/// How often deadlines are checked.
const TICK: Duration = Duration::from_millis(25);

/// One node of the cluster.
pub struct Node {
    pub id: NodeId,
    pub config: Config,
    pub ring: Arc<Ring>,
    pub stats: Stats,
    /// This node, for closures that outlive a call.
    me: Weak<Node>,
    store: Store,
    peers: Peers,
    strategy: Strategy,
    origin: Mutex<Origin<OnResult>>,
    /// Bounds the large values that clients of this node write.
    admission: Arc<Admission>,
    numbers: Numbers,
    standing: OwnStanding,
    introductions: Introductions,
    capacity: Capacity,
    anti_entropy: AntiEntropy,
    pub groups: Groups,
    began: Instant,
    timer: OnceLock<Timer>,
    inbound: OnceLock<Arc<Inbound>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Dropped when the node ends. Nothing is ever sent.
    alive: Mutex<Option<Sender<Infallible>>>,
    /// Disconnected once `alive` is dropped.
    ending: Receiver<Infallible>,
}

impl Node {
    /// Opens the storage and then starts all threads of the node but those that serve clients. `progress`
    /// shows how far the storage has been read. If this node has to copy a lost folder, it does not wait for
    /// the nodes `given_up`, see [`rebuild`].
    ///
    /// # Errors
    /// The storage cannot be opened or written, or a thread cannot be started.
    pub fn start(
        id: NodeId,
        config: Config,
        disk: Arc<dyn Disk>,
        sync: SyncMode,
        given_up: Vec<NodeId>,
        peer_listener: TcpListener,
        progress: &Progress,
    ) -> Result<Arc<Node>, OpenError> {
        let ring = Arc::new(config.ring());
        let hooks = Hooks {
            deliver: Box::new(|group| transport::batch(|| group.into_iter().for_each(|run| run()))),
            failed: Box::new(|error| stop_at_once(&error)),
        };
        let cluster = config.fingerprint();
        let store = Store::open(disk, id, &cluster, ring.clone(), sync, hooks, progress)?;
        let standing = OwnStanding::new(given_up, store.identity().start.clone());
        store.change_identity(Identity::start_anew)?;
        info!("holds {} records", store.count());
        let node = Arc::new_cyclic(|me| Node::new(id, config, ring, store, standing, me.clone()));
        node.start_threads(peer_listener)?;
        Ok(node)
    }

    fn new(
        id: NodeId,
        config: Config,
        ring: Arc<Ring>,
        store: Store,
        standing: OwnStanding,
        me: Weak<Node>,
    ) -> Node {
        let quorums = config.quorums();
        let first_sequence = store.sequences() + 1;
        let origin = Origin::new(
            id,
            ring.clone(),
            config.strategy,
            config.request_deadline(),
            first_sequence,
        );
        let period = Duration::from_millis(config.anti_entropy_ms);
        let (alive, ending) = bounded(0);
        Node {
            id,
            stats: Stats::default(),
            peers: Peers::new(id, &config, &me),
            me,
            strategy: Strategy::new(id, &config, &ring),
            origin: Mutex::new(origin),
            admission: Admission::new(admission::AT_A_TIME),
            numbers: Numbers::default(),
            standing,
            introductions: Introductions::new(),
            capacity: Capacity::new(&ring, period, config.data_memory()),
            anti_entropy: AntiEntropy::new(id, ring.clone(), quorums),
            groups: Groups::new(id),
            began: Instant::now(),
            timer: OnceLock::new(),
            inbound: OnceLock::new(),
            threads: Mutex::default(),
            alive: Mutex::new(Some(alive)),
            ending,
            store,
            ring,
            config,
        }
    }

    fn start_threads(self: &Arc<Node>, peer_listener: TcpListener) -> io::Result<()> {
        let node = Arc::downgrade(self);
        let tick = move |now, last| {
            if let Some(node) = node.upgrade() {
                node.tick(now, last);
            }
        };
        let _ = self.timer.set(Timer::start(TICK, tick)?);
        let peers = self.peers.ids().collect();
        let cluster = self.config.fingerprint();
        let inbound = Inbound::new(self.id, cluster, peers, peer_listener, self.clone());
        let _ = self.inbound.set(inbound.clone());
        self.spawn("peers", move |_| inbound.run())?;
        for link in self.peers.links() {
            let link = link.clone();
            self.spawn("link", move |_| link.run())?;
        }
        self.spawn("recognition", recognition::run)?;
        self.spawn("standing", standing::run)?;
        self.spawn("anti-entropy", anti_entropy::run)?;
        self.spawn("tombstones", tombstones::run)?;
        self.spawn("feeding", groups::run)?;
        self.spawn("snapshots", Node::take_snapshots)
    }

    fn spawn(
        self: &Arc<Node>,
        name: &str,
        work: impl FnOnce(&Arc<Node>) + Send + 'static,
    ) -> io::Result<()> {
        let node = self.clone();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&node))?;
        lock(&self.threads).push(thread);
        Ok(())
    }

    /// Ends all threads and closes the storage. What was acknowledged is durable already. A thread that
    /// hangs, such as a link that looks up a host name, ends with the process.
    pub fn stop(&self) {
        drop(lock(&self.alive).take());
        self.anti_entropy.wake();
        self.peers.links().for_each(|link| link.end());
        if let Some(inbound) = self.inbound.get() {
            inbound.end();
        }
        let until = Instant::now() + STOP_PATIENCE;
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            if !ends_by(&thread, until) {
                let name = thread.thread().name().unwrap_or_default();
                info!("ends without the thread {name}, which hangs");
            }
        }
        self.store.close();
    }

    fn tick(self: &Arc<Node>, now: Instant, last: Instant) {
        let since_last = now - last;
        if since_last > self.config.read_timeout() {
            let millis = since_last.as_millis();
            info!("this process did not run for {millis} ms");
        }
        self.run(Event::Ticked);
        if self.votes() {
            self.run(Event::Chain(ChainEvent::Ticked));
        }
        self.tick_groups();
        self.check_capacity();
    }

    /// Runs a job after a while, on the timer's thread.
    fn after(&self, delay: Duration, job: impl FnOnce() + Send + 'static) {
        let timer = self
            .timer
            .get()
            .expect("the timer is the first thread to start");
        timer.after(delay, Box::new(job));
    }

    /// How many requests of this node's clients are under way.
    pub fn in_flight(&self) -> usize {
        lock(&self.origin).in_flight()
    }

    /// Whether the node is ending. Whoever waits for something then gives up.
    fn ending(&self) -> bool {
        self.ending.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Waits for this time, or until the node ends.
    fn pause(&self, time: Duration) {
        // Nothing is ever sent, so an error is the only result.
        let _ = self.ending.recv_timeout(time);
    }

    /// Ends the process if the storage could not be written.
    fn or_stop(&self, written: io::Result<()>) {
        if let Err(error) = written {
            stop_at_once(&error);
        }
    }

    /// Changes what the folder says of this node, durably.
    fn change_identity(&self, change: impl FnOnce(&mut Identity)) {
        self.or_stop(self.store.change_identity(change));
    }

    fn take_snapshots(node: &Arc<Node>) {
        while !node.ending() {
            node.or_stop(node.store.snapshot_if_due());
            node.pause(Duration::from_secs(1));
        }
    }
}

/// Waits for the end of a thread, at most until this moment. Returns whether it has ended. If the thread
/// panicked, it has reported that itself.
fn ends_by(thread: &JoinHandle<()>, until: Instant) -> bool {
    while !thread.is_finished() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    thread.is_finished()
}

/// Ends the process after a failed write or fsync. Nobody knows then what is on the disk, so this process may
/// promise nothing more. A restart reads what is really there.
fn stop_at_once(error: &io::Error) {
    error!(
        "the data folder cannot be written to: {error}. The node ends; nothing that it \
         acknowledged is lost. Make room or mend the disk, and start it again"
    );
    logging::exit(74);
}
