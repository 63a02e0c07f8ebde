//! Whether this node may vote.
//!
//! A replica that forgot a vote must not vote: what it promised or accepted and forgot may be
//! just what made a state chosen. So each data folder has a random storage id, which peers note.
//! A node with an empty folder asks all other nodes. If none of them knew it to vote with an older
//! one it is new, and votes once all of them have noted that. If one did, it first copies every key
//! of its ranges from all other replicas ([`rebuild`](super::rebuild)).
//!
//! A folder may also be a copy, or have been put back from an older copy: it has forgotten votes just
//! so, and has the right name. So each [`Start`] takes a number, and peers note that as well. A node
//! with a whole folder asks all nodes that are there. If one of them knows of a later start it discards
//! what the folder holds, and goes on as with a lost one. If another process of this node answers
//! while this one asks, this one ends.
//!
//! Nor may a node number a write as it did before: the replicas would take that for a retry of the
//! old one, and answer it without doing it. So it goes on above the highest number that any node
//! has seen, and numbers none before all have told.
//!
//! [`recognition`](super::recognition) is the other side: what a node makes of what its peers say.
//!
//! [`Start`]: crate::storage::Start

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use log::{error, info, warn};

use super::Node;
use super::rebuild::{ASK_AGAIN, TELL_AFTER, copy_range, insist};
use crate::lock;
use crate::logging;
use crate::protocol::ring::NodeId;
use crate::storage::{ClusterId, Standing, Start};
use crate::testing::rules::{self, Rule};
use crate::transport::message::{Known, Recognition, Resumed};
use crate::transport::{Reply, Request};

/// More writes than can have been numbered in a lost life, one after the other, and not be seen by any
/// replica. Whatever is turned away as certainly not done leaves no trace: a full cluster tells every
/// write `BUSY`, for as long as clients try. At a million a second these numbers last for twelve days
/// without a single write that is voted on; and there are numbers for 2^24 lost folders.
const STILL_ON_THEIR_WAY: u64 = 1 << 40;

/// What this process knows of its own standing, beside what its folder says.
pub struct OwnStanding {
    /// Whether this node votes: its storage holds all that it ever voted.
    votes: AtomicBool,
    /// Why this process must not vote: a peer knows of a later one.
    outdated: Mutex<Option<String>>,
    /// Nodes whose folders are lost, and that are not waited for in a copy.
    pub(super) given_up: Vec<NodeId>,
    /// Of the process that had the data folder before this one.
    last_start: Start,
}

impl OwnStanding {
    /// That of a process which does not vote yet.
    pub fn new(given_up: Vec<NodeId>, last_start: Start) -> OwnStanding {
        OwnStanding {
            votes: AtomicBool::new(false),
            outdated: Mutex::default(),
            given_up,
            last_start,
        }
    }

    /// A peer knows of a later process. Returns whether this one votes already, and has to end: before
    /// that the thread that makes sure of it looks at [`OwnStanding::take_outdated`].
    pub(super) fn note_outdated(&self, why: &str) -> bool {
        *lock(&self.outdated) = Some(why.to_owned());
        self.votes.load(Ordering::SeqCst) && self.take_outdated().is_some()
    }

    fn take_outdated(&self) -> Option<String> {
        lock(&self.outdated).take()
    }
}

/// The thread: ends once this node votes.
pub fn run(node: &Arc<Node>) {
    if rules::holds(Rule::LostFolderCopied) && make_whole(node).is_none() {
        return;
    }
    node.standing.votes.store(true, Ordering::SeqCst);
    if let Some(why) = node.standing.take_outdated() {
        node.end_outdated(&why);
    }
    node.number_writes(0);
    for peer in node.peers.ids() {
        node.announce_storage(peer);
    }
    info!("{}: votes", node.id);
}

/// Makes sure that nothing is forgotten that this node ever voted; none if the node ends before.
fn make_whole(node: &Arc<Node>) -> Option<()> {
    let standing = node.store.identity().standing;
    match standing {
        Standing::Whole => meet_who_is_there(node)?,
        Standing::New => be_noted(node)?,
        Standing::Lost | Standing::Outdated => {}
    }
    if node.store.identity().standing == Standing::Lost {
        warn!(
            "{}: an older data folder was lost: copying everything before voting",
            node.id
        );
        copy_everything(node)?;
        node.set_standing(Standing::Whole);
        info!(
            "{}: copied from all other replicas, holds {} records",
            node.id,
            node.store.count()
        );
    }
    Some(())
}

/// A whole folder: asks every node that answers whether it knows of a later start of this one. There
/// must be one at least; without any other node a vote is of no use.
fn meet_who_is_there(node: &Arc<Node>) -> Option<()> {
    let mut unmet: Vec<NodeId> = node.peers.ids().collect();
    let mut tell_at = Instant::now() + TELL_AFTER;
    while !node.ending() {
        let replies = node.peers.ask_peers(&unmet, &node.join(false));
        let mut outdated = node.standing.take_outdated();
        let mut cluster_id = None;
        for (peer, known) in replies.into_iter().filter_map(known_by) {
            match known.recognition {
                Recognition::Accepted => {}
                Recognition::Outdated => outdated = Some(node.why_outdated(peer)),
                Recognition::Doubled => node.end_doubled(peer),
            }
            cluster_id = cluster_id.or(known.cluster_id);
            unmet.retain(|it| *it != peer);
        }
        node.agree_on_cluster(cluster_id, true);
        if let Some(why) = outdated.filter(|_| rules::holds(Rule::OldFolderDiscarded)) {
            error!(
                "{}: this data folder is a copy, or was put back from an older copy, and lacks votes: \
                 {why}. Discarding what it holds",
                node.id
            );
            node.or_stop(node.store.discard(node.ring.clone()));
            return Some(());
        }
        let away = unmet.iter().filter(|peer| node.peers[**peer].suspect());
        if unmet.len() < node.peers.ids().count() && away.count() == unmet.len() {
            return Some(());
        }
        if Instant::now() >= tell_at {
            tell_at = Instant::now() + 10 * TELL_AFTER;
            warn!("{}: does not vote yet: no other node answers", node.id);
        }
        node.pause(ASK_AGAIN);
    }
    None
}

/// An empty folder: asks all other nodes whether they knew an older one, and has them note this one.
fn be_noted(node: &Arc<Node>) -> Option<()> {
    info!(
        "{}: a new data folder: votes once all other nodes have answered",
        node.id
    );
    let known = insist(node, || ask_all(node, false))?;
    if known.another {
        node.set_standing(Standing::Lost);
        return Some(());
    }
    node.number_start(&known);
    // They must know of this folder before it has a vote that can be lost.
    insist(node, || ask_all(node, true))?;
    node.set_standing(Standing::Whole);
    Some(())
}

/// Copies all that this node may have held; none if the node ends before.
fn copy_everything(node: &Arc<Node>) -> Option<()> {
    // The others must have ended what they counted on the lost votes before they are copied.
    let known = insist(node, || ask_all(node, false))?;
    node.number_writes(known.highest_number + STILL_ON_THEIR_WAY);
    node.number_start(&known);
    let known = insist(node, || ask_all(node, false))?;
    let given_up = node.check_given_up(&known.standings);
    for range in node.ring.ranges_of(node.id) {
        copy_range(node, range, given_up)?;
    }
    node.store.await_durable().ok()
}

/// What the other nodes know of this one.
#[derive(Default)]
struct KnownByAll {
    /// Whether any of them knew it to vote under another storage id.
    another: bool,
    /// The highest number of its starts that any of them knows.
    start_number: u64,
    /// The highest number of its writes that any of them has seen.
    highest_number: u64,
    /// How each of them stands itself.
    standings: Vec<(NodeId, Standing)>,
}

/// What all other nodes know of this one, which tells them whether it votes with this folder.
///
/// # Errors
/// One of those that do not answer, or that have not agreed on the cluster yet.
fn ask_all(node: &Arc<Node>, votes: bool) -> Result<KnownByAll, NodeId> {
    let (own, number) = {
        let identity = node.store.identity();
        (identity.storage.clone(), identity.start.number)
    };
    if let Some(why) = node.standing.take_outdated().filter(|_| number > 0) {
        node.end_outdated(&why);
    }
    let peers: Vec<NodeId> = node.peers.ids().collect();
    let replies = node.peers.ask_peers(&peers, &node.join(votes)).into_iter();
    let replies: BTreeMap<NodeId, Known> = replies.filter_map(known_by).collect();
    let answered = |peer: &&NodeId| replies.iter().any(|(from, _)| from == *peer);
    let missing = peers.iter().find(|peer| !answered(peer)).copied();
    let mut all = KnownByAll::default();
    let cluster_id = replies
        .iter()
        .find_map(|(_, known)| known.cluster_id.clone());
    node.agree_on_cluster(cluster_id, missing.is_none());
    for (peer, known) in replies {
        match known.recognition {
            Recognition::Accepted => {}
            Recognition::Outdated => node.end_outdated(&node.why_outdated(peer)),
            Recognition::Doubled => node.end_doubled(peer),
        }
        all.another |= known.storage.is_some_and(|storage| storage != own);
        all.start_number = all.start_number.max(known.start_number);
        all.highest_number = all.highest_number.max(known.highest_number);
        all.standings.push((peer, known.standing));
    }
    match missing {
        Some(peer) => Err(peer),
        None if node.store.identity().cluster_id.is_none() => Err(node.lowest()),
        None => Ok(all),
    }
}

fn known_by((peer, reply): (NodeId, Reply)) -> Option<(NodeId, Known)> {
    match reply {
        Reply::Known(known) => Some((peer, known)),
        _ => None,
    }
}

impl Node {
    /// Whether this node votes, or still has to make sure that it has forgotten nothing.
    pub fn votes(&self) -> bool {
        self.standing.votes.load(Ordering::Acquire)
    }

    /// What this node tells of itself: which process it is, and whether it votes.
    pub(super) fn join(&self, votes: bool) -> Request {
        let identity = self.store.identity();
        // What was discarded does not go on.
        let is_whole = identity.standing == Standing::Whole;
        let resumed = is_whole.then(|| Resumed {
            start: self.standing.last_start.clone(),
            position: self.store.positions().0,
        });
        Request::Join {
            storage: identity.storage.clone(),
            start: identity.start.clone(),
            votes,
            resumed,
        }
    }

    /// Takes a number for this start where the folder is new, above all that others know.
    fn number_start(&self, known: &KnownByAll) {
        // What was said of the number before concerns this one no more.
        self.standing.take_outdated();
        let number = known.start_number + 1;
        self.or_stop(self.store.change_identity(|identity| {
            if identity.start.number < number {
                identity.start.number = number;
            }
        }));
    }

    /// The node that draws the cluster's id.
    fn lowest(&self) -> NodeId {
        let ids = self.ring.members().iter().map(|(_, id)| *id);
        ids.min().unwrap_or(self.id)
    }

    /// Takes over the cluster's id that another node has told. If nobody has one yet the node with the
    /// lowest id draws it, once it has `met` those that it has to.
    pub(super) fn agree_on_cluster(&self, announced: Option<ClusterId>, met: bool) {
        if self.store.identity().cluster_id.is_some() {
            return;
        }
        let drawn = || (met && self.id == self.lowest()).then(ClusterId::random);
        if let Some(id) = announced.or_else(drawn) {
            info!("{}: belongs to the cluster {id}", self.id);
            let agreed = |identity: &mut crate::storage::Identity| identity.cluster_id = Some(id);
            self.or_stop(self.store.change_identity(agreed));
        }
    }

    fn set_standing(&self, standing: Standing) {
        let noted = self
            .store
            .change_identity(|identity| identity.standing = standing);
        self.or_stop(noted);
    }

    pub(super) fn why_outdated(&self, by: NodeId) -> String {
        format!(
            "node {by} knows of later starts or later votes of node {}",
            self.id
        )
    }

    /// Ends the process: it has voted, and a later one of this node has been started.
    pub(super) fn end_outdated(&self, why: &str) -> ! {
        self.or_stop(self.store.change_identity(|identity| identity.outdate()));
        error!(
            "{}: another process of this node was started after this one: {why}. This one ends. When it is \
             started again, it discards its data folder and copies everything before it votes",
            self.id
        );
        logging::exit(1);
    }

    /// Ends the process: another one of this node is running.
    fn end_doubled(&self, seen_by: NodeId) -> ! {
        self.or_stop(self.store.change_identity(|identity| {
            if identity.standing != Standing::New {
                identity.outdate();
            }
        }));
        error!(
            "{}: another process of node {} is running, and answers node {seen_by}: this one ends. Its \
             data folder may be a copy. Once the other process is ended and this one is started again, it \
             discards what is in the folder and copies everything before it votes",
            self.id, self.id
        );
        logging::exit(1);
    }
}
