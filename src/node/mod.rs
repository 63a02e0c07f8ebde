//! A node: everything wired together.
//!
//! The way of a request: a client's thread hands it to the [`origin`], which sends it to a
//! [`coordinator`], here or on another node, which asks the replicas ([`replica`]). Origin and
//! coordinator are state machines without I/O; [`drive`] carries their effects out. Whichever
//! thread brings an answer takes the request one step further: no thread waits for another node,
//! but for those of [`peers`], which no other node waits for.

pub mod admission;
pub mod anti_entropy;
pub mod capacity;
pub mod deletion;
pub mod drive;
pub mod listing;
pub mod peers;
mod rebuild;
mod recognition;
pub mod replica;
pub mod standing;
pub mod stats;
pub mod timer;
pub mod tombstones;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{error, info};

use crate::config::{Config, Member};
use crate::error::Failure;
use crate::lock;
use crate::logging;
use crate::protocol::Outcome;
use crate::protocol::origin::{self, Origin};
use crate::protocol::quorum::coordinator::Coordinator;
use crate::protocol::ring::{NodeId, Ring};
use crate::storage::disk::Disk;
use crate::storage::{Hooks, Identity, OpenError, Progress, Start, StorageId, Store, SyncMode};
use crate::transport;
use crate::transport::inbound::Inbound;
use crate::transport::{Link, Respond, link};
use admission::Admission;
use anti_entropy::AntiEntropy;
use capacity::Capacity;
use recognition::Joining;
use stats::Stats;
use timer::Timer;

/// Requests that a node coordinates at a time; one more is turned away.
const MOST_COORDINATED: usize = 8192;
/// How long all threads together may take to end.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(25);
/// Sequence numbers that are reserved at a time: one log entry for so many writes. Half as many are
/// left when more are reserved, enough for a minute in which the disk hangs.
const SEQUENCE_BLOCK: u64 = 1_000_000;

/// Where a coordinator's answer goes.
pub enum ReplyTo {
    /// A request that another node forwarded.
    Peer(Respond),
    /// A request of this node's own origin.
    Origin(origin::Ticket),
    /// Anti-entropy, which wants the state chosen again.
    AntiEntropy(Sender<()>),
}

/// What a client's request ends with.
pub type Ended = Box<dyn FnOnce(Result<Outcome, Failure>) + Send>;

/// One node of the cluster.
pub struct Node {
    pub id: NodeId,
    pub config: Config,
    pub ring: Arc<Ring>,
    pub stats: Stats,
    /// This node, for what outlives a call.
    me: Weak<Node>,
    store: Store,
    links: BTreeMap<NodeId, Arc<Link>>,
    coordinator: Mutex<Coordinator<ReplyTo>>,
    origin: Mutex<Origin<Ended>>,
    /// Of the large values that clients of this node write.
    admission: Arc<Admission>,
    /// Whether numbers for writes are being reserved: the first of them by [`standing`].
    reserving: AtomicBool,
    /// Whether this node votes: its storage holds all that it ever voted.
    votes: AtomicBool,
    /// How often a peer has told of a folder that this node did not know.
    lost_folders: AtomicU64,
    /// The storage id that was last announced to each peer, or by it.
    announced: Mutex<BTreeMap<NodeId, StorageId>>,
    /// Introductions of peers, for the thread that answers them.
    joining: Sender<Joining>,
    /// Why this process must not vote: a peer knows of a later one.
    outdated: Mutex<Option<String>>,
    /// Nodes whose folders are lost, and that are not waited for in a copy.
    given_up: Vec<NodeId>,
    /// Of the process that had the data folder before this one.
    last_start: Start,
    capacity: Capacity,
    anti_entropy: AntiEntropy,
    began: Instant,
    timer: OnceLock<Timer>,
    inbound: OnceLock<(Arc<Inbound>, Arc<TcpListener>)>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Dropped when the node ends.
    alive: Mutex<Option<Sender<Infallible>>>,
    /// Tells that it was dropped.
    ending: Receiver<Infallible>,
}

impl Node {
    /// Opens the storage, and `progress` tells how far that is; then starts every thread of the node
    /// but those that serve clients. Where its folder was lost, the nodes `given_up` are not waited
    /// for; see [`rebuild`].
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
            deliver: Box::new(|group| {
                transport::batch(|| group.into_iter().for_each(|callback| callback()))
            }),
            failed: Box::new(move |error| stop_at_once(id, &error)),
        };
        let cluster = config.fingerprint();
        let store = Store::open(disk, id, &cluster, ring.clone(), sync, hooks, progress)?;
        let last_start = store.identity().start.clone();
        store.change_identity(Identity::start_anew)?;
        info!("{id}: holds {} records", store.count());
        let (joining, joins) = bounded(recognition::MOST_WAITING);
        let node = Arc::new_cyclic(|me| {
            let node = Node::new(id, config, ring, store, me.clone(), joining);
            Node {
                given_up,
                last_start,
                ..node
            }
        });
        node.run(peer_listener, joins)?;
        Ok(node)
    }

    fn new(
        id: NodeId,
        config: Config,
        ring: Arc<Ring>,
        store: Store,
        me: Weak<Node>,
        joining: Sender<Joining>,
    ) -> Node {
        let first_sequence = store.sequences() + 1;
        let (alive, ending) = bounded(0);
        Node {
            id,
            stats: Stats::default(),
            links: links(id, &config, &me),
            me,
            coordinator: Mutex::new(Coordinator::new(
                id,
                ring.clone(),
                config.quorums(),
                MOST_COORDINATED,
            )),
            origin: Mutex::new(Origin::new(
                id,
                ring.clone(),
                config.request_deadline(),
                first_sequence,
            )),
            admission: Admission::new(admission::AT_A_TIME),
            reserving: AtomicBool::new(true),
            votes: AtomicBool::new(false),
            lost_folders: AtomicU64::new(0),
            announced: Mutex::default(),
            joining,
            outdated: Mutex::default(),
            given_up: Vec::new(),
            last_start: Start::numbered(0),
            capacity: Capacity::new(
                &ring,
                Duration::from_millis(config.anti_entropy_ms),
                config.data_memory(),
            ),
            anti_entropy: AntiEntropy::new(id, &ring, config.quorums()),
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

    fn run(
        self: &Arc<Node>,
        peer_listener: TcpListener,
        joins: Receiver<Joining>,
    ) -> io::Result<()> {
        let node = Arc::downgrade(self);
        let tick = move |now, last| {
            if let Some(node) = node.upgrade() {
                node.tick(now, last);
            }
        };
        let _ = self.timer.set(Timer::start(TICK, tick)?);
        let peers = self.links.keys().copied().collect();
        let inbound = Inbound::new(self.id, self.config.fingerprint(), peers, self.clone());
        let listener = Arc::new(peer_listener);
        let _ = self.inbound.set((inbound.clone(), listener.clone()));
        self.spawn("peers", move |_| inbound.run(&listener))?;
        for link in self.links.values().map(Arc::clone) {
            self.spawn("link", move |_| link.run())?;
        }
        self.spawn("recognition", move |node| recognition::run(node, &joins))?;
        self.spawn("join", standing::run)?;
        self.spawn("anti-entropy", anti_entropy::run)?;
        self.spawn("tombstones", tombstones::run)?;
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

    /// Ends all threads and closes the storage. What was acknowledged is durable already. A thread
    /// that hangs, such as a link in the look-up of a name, is left to the end of the process.
    pub fn stop(&self) {
        drop(lock(&self.alive).take());
        self.anti_entropy.wake();
        self.links.values().for_each(|link| link.end());
        if let Some((inbound, listener)) = self.inbound.get() {
            inbound.end();
            transport::stop_listening(listener);
        }
        let until = Instant::now() + PATIENCE;
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            if !ends_by(&thread, until) {
                let name = thread.thread().name().unwrap_or_default();
                info!("{}: does not wait for the thread {name}", self.id);
            }
        }
        self.store.close();
    }

    fn tick(self: &Arc<Node>, now: Instant, last: Instant) {
        let since_last = now - last;
        if since_last > self.config.read_timeout() {
            info!(
                "{}: this process did not run for {} ms",
                self.id,
                since_last.as_millis()
            );
        }
        self.expire_requests();
        self.check_capacity();
    }

    /// What could not be written ends the process.
    fn or_stop(&self, written: io::Result<()>) {
        if let Err(error) = written {
            stop_at_once(self.id, &error);
        }
    }

    fn take_snapshots(node: &Arc<Node>) {
        while !node.ending() {
            node.or_stop(node.store.snapshot_if_due());
            node.pause(Duration::from_secs(1));
        }
    }
}

/// A link to each other node.
fn links(id: NodeId, config: &Config, owner: &Weak<Node>) -> BTreeMap<NodeId, Arc<Link>> {
    let others = config.nodes.iter().filter(|member| member.id != id);
    let link = |member: &Member| {
        let settings = link::Settings {
            node: id,
            peer: member.id,
            address: member.peer_address(),
            cluster: config.fingerprint(),
            read_timeout: config.read_timeout(),
            patience: config.request_deadline(),
            owner: owner.clone(),
        };
        (member.id, Link::new(settings))
    };
    others.map(link).collect()
}

/// Waits for the end of a thread, until this moment at most. A panic of the thread has been reported by itself.
fn ends_by(thread: &JoinHandle<()>, until: Instant) -> bool {
    while !thread.is_finished() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    thread.is_finished()
}

/// After a failed write or fsync nobody knows what is on the disk, so nothing more is promised:
/// a restart reads what is really there.
fn stop_at_once(id: NodeId, error: &io::Error) {
    error!(
        "{id}: the data folder cannot be written to: {error}. The node ends; nothing that it \
         acknowledged is lost. Make room or mend the disk, and start it again"
    );
    logging::exit(74);
}
