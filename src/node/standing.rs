//! Whether this node may vote.
//!
//! A replica that has forgotten a vote must not vote. What it promised or accepted may be just what made a
//! state chosen.
//!
//! **A lost folder.** Each data folder has a random storage id, which peers note. A node with an empty
//! folder asks all other nodes whether they know it under another id. If none does, the node is new, and it
//! votes once all of them have noted its id. If one does, the node first copies every key of its ranges from
//! all other replicas ([`rebuild`](super::rebuild)).
//!
//! **An old copy of a folder.** It lacks votes as well, but has the right id. So each [`Start`] of a node
//! takes a number, which peers note, too. A node with a whole folder asks all nodes that it can reach. If one
//! of them knows of a later start, the node discards its folder and goes on as if it had lost it. If another
//! process of this node is still running, this process ends.
//!
//! **Numbers of writes.** A node must not use the number of a write again. Replicas would take the new write
//! for a retry of the old one, and answer it without doing it. So a node that has lost its folder continues
//! above the highest number that any node has seen, and numbers no write before all have answered.
//!
//! [`recognition`](super::recognition) is the other side: how a node recognizes its peers.
//!
//! [`Start`]: crate::storage::Start

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use log::{error, info, warn};

use super::Node;
use super::rebuild::{ASK_AGAIN, LOG_AFTER, copy_range, insist};
use crate::lock;
use crate::logging;
use crate::protocol::ring::NodeId;
use crate::storage::{ClusterId, Identity, Standing, Start, StorageId};
use crate::testing::rules::{self, Rule};
use crate::transport::message::{Join, Known, Recognition, Resumed};
use crate::transport::{Reply, Request};

/// How many numbers a folder may have used in writes that left no trace: a full cluster answers `BUSY` to
/// every write, for as long as clients try. At a million writes a second these numbers last for twelve days.
const UNSEEN_NUMBERS: u64 = 1 << 40;

/// What this process knows of its own standing, beyond what its folder says.
pub struct OwnStanding {
    /// Whether this node votes. Its storage then holds every vote that it ever gave.
    votes: AtomicBool,
    /// Why this process must not vote, if a peer knows of a later one.
    outdated: Mutex<Option<String>>,
    /// Nodes whose folders are lost for good, so that a copy does not wait for them.
    pub(super) given_up: Vec<NodeId>,
    /// The process that had the data folder before this one.
    last_start: Start,
}

impl OwnStanding {
    /// A process that does not vote yet.
    pub fn new(given_up: Vec<NodeId>, last_start: Start) -> OwnStanding {
        OwnStanding {
            votes: AtomicBool::new(false),
            outdated: Mutex::default(),
            given_up,
            last_start,
        }
    }

    fn take_outdated(&self) -> Option<String> {
        lock(&self.outdated).take()
    }
}

/// Runs the thread that makes sure that this node may vote. It ends once the node votes.
pub fn run(node: &Arc<Node>) {
    if rules::holds(Rule::LostFolderCopied) && make_whole(node).is_none() {
        return;
    }
    if let Some(chain) = node.strategy.chain() {
        lock(chain).start(&&node.store);
    }
    node.standing.votes.store(true, Ordering::SeqCst);
    node.end_if_outdated();
    node.number_writes(0);
    for peer in node.peers.ids() {
        node.announce_storage(peer);
    }
    info!("votes");
}

/// Makes sure that the storage holds every vote that this node ever gave. Returns none if the node ends before.
fn make_whole(node: &Arc<Node>) -> Option<()> {
    let standing = node.store.identity().standing;
    match standing {
        Standing::Whole => check_folder(node)?,
        Standing::New => introduce(node)?,
        Standing::Lost | Standing::Outdated => {}
    }
    if node.store.identity().standing == Standing::Lost {
        warn!("an older data folder was lost: copying everything before voting");
        copy_everything(node)?;
        node.set_standing(Standing::Whole);
        info!(
            "copied from all other replicas, holds {} records",
            node.store.count()
        );
    }
    Some(())
}

/// Asks all nodes that can be reached whether they know of a later start of this node, whose folder is whole. If
/// one does, the folder is an old copy, and is discarded. At least one node has to answer: this node's vote
/// is of no use without any other.
fn check_folder(node: &Arc<Node>) -> Option<()> {
    let mut unmet: Vec<NodeId> = node.peers.ids().collect();
    let mut log_at = Instant::now() + LOG_AFTER;
    while !node.ending() {
        let known = node.ask_for_recognition(&unmet, false);
        unmet.retain(|peer| !known.contains_key(peer));
        node.agree_on_cluster(cluster_id_in(&known), true);
        let outdated = node.standing.take_outdated();
        if let Some(why) = outdated.filter(|_| rules::holds(Rule::OldFolderDiscarded)) {
            error!(
                "this data folder is a copy, or was put back from an older copy, and lacks votes: \
                 {why}. Discarding what it holds"
            );
            assert!(!node.votes(), "peers have counted on these votes");
            node.or_stop(node.store.discard(node.ring.clone()));
            return Some(());
        }
        let is_alone = unmet.len() == node.peers.ids().count();
        if !is_alone && unmet.iter().all(|peer| node.peers[*peer].suspect()) {
            return Some(());
        }
        if Instant::now() >= log_at {
            log_at = Instant::now() + 10 * LOG_AFTER;
            warn!("does not vote yet: no other node answers");
        }
        node.pause(ASK_AGAIN);
    }
    None
}

/// Asks all other nodes whether they know this node under another storage id than that of its empty folder. If
/// none does, all of them note this one.
fn introduce(node: &Arc<Node>) -> Option<()> {
    info!("a new data folder: votes once all other nodes have answered");
    let known = insist(node, || ask_all(node, false))?;
    let own = node.store.identity().storage.clone();
    let is_other = |storage: &StorageId| *storage != own;
    if known
        .values()
        .any(|it| it.storage.as_ref().is_some_and(is_other))
    {
        node.set_standing(Standing::Lost);
        return Some(());
    }
    node.number_start(&known);
    // Peers must note this folder before it holds a vote that can be lost.
    insist(node, || ask_all(node, true))?;
    node.set_standing(Standing::Whole);
    Some(())
}

/// Copies all records that this node may have held. Returns none if the node ends before.
fn copy_everything(node: &Arc<Node>) -> Option<()> {
    assert!(
        !node.votes(),
        "a copy must not replace votes of this process"
    );
    // Peers abandon what they counted on the lost votes, and only then are copied.
    let known = insist(node, || ask_all(node, false))?;
    node.number_start(&known);
    // All peers note this start before it numbers a write, so no later folder can have its number.
    let known = insist(node, || ask_all(node, false))?;
    let start = node.store.identity().start.number;
    let highest = known.values().map(|known| known.highest_number).max();
    node.number_writes(last_used_number(highest.unwrap_or(0), start));
    let given_up = node.check_given_up(&known);
    for range in node.ring.ranges_of(node.id) {
        copy_range(node, range, given_up, start)?;
    }
    node.store.await_durable().ok()
}

/// The number up to which lost folders may have numbered writes, if `highest_seen` is the highest one that a
/// replica has seen. The start sets apart folders that were lost one after the other while no replica saw
/// a number of theirs: each begins [`UNSEEN_NUMBERS`] above the one before.
fn last_used_number(highest_seen: u64, start: u64) -> u64 {
    highest_seen + start * UNSEEN_NUMBERS
}

/// What other nodes know of this one.
type KnownBy = BTreeMap<NodeId, Known>;

/// Asks all other nodes what they know of this one. `votes` says whether they shall note its folder.
///
/// # Errors
/// A node that does not answer, or the node that has not drawn the cluster's id yet.
fn ask_all(node: &Arc<Node>, votes: bool) -> Result<KnownBy, NodeId> {
    let peers: Vec<NodeId> = node.peers.ids().collect();
    let known = node.ask_for_recognition(&peers, votes);
    let missing = peers.into_iter().find(|peer| !known.contains_key(peer));
    node.agree_on_cluster(cluster_id_in(&known), missing.is_none());
    // A node whose start has no number yet cannot be outdated.
    if node.store.identity().start.number > 0 {
        node.end_if_outdated();
    }
    match missing {
        Some(peer) => Err(peer),
        None if node.store.identity().cluster_id.is_none() => Err(node.lowest()),
        None => Ok(known),
    }
}

fn cluster_id_in(known: &KnownBy) -> Option<ClusterId> {
    known.values().find_map(|known| known.cluster_id.clone())
}

impl Node {
    /// Whether this node votes. It does not while it may have forgotten votes.
    pub fn votes(&self) -> bool {
        self.standing.votes.load(Ordering::Acquire)
    }

    /// Asks peers to recognize this process. Returns what each of those that answered knows of this node. If
    /// another process of this node is running, this one ends.
    fn ask_for_recognition(&self, peers: &[NodeId], votes: bool) -> KnownBy {
        let request = self.join(votes);
        let questions = peers.iter().map(|&peer| (peer, request.clone()));
        let replies = self.peers.ask_together(questions);
        let mut all = KnownBy::new();
        for (&peer, reply) in peers.iter().zip(replies) {
            let Some(Reply::Known(known)) = reply else {
                continue;
            };
            match known.recognition {
                Recognition::Accepted => {}
                Recognition::Outdated => self.note_outdated(&self.why_outdated(peer)),
                Recognition::Doubled => self.end_doubled(peer),
            }
            all.insert(peer, known);
        }
        all
    }

    /// What this node says of itself: which process it is, and whether it votes.
    pub(super) fn join(&self, votes: bool) -> Request {
        let identity = self.store.identity();
        // A log that was discarded does not continue.
        let is_whole = identity.standing == Standing::Whole;
        let resumed = is_whole.then(|| Resumed {
            start: self.standing.last_start.clone(),
            position: self.store.positions().0,
        });
        Request::Join(Join {
            storage: identity.storage.clone(),
            start: identity.start.clone(),
            votes,
            resumed,
        })
    }

    /// Gives this start a number above all that others know, if its folder is new.
    fn number_start(&self, known: &KnownBy) {
        // What peers said before concerned another number.
        self.standing.take_outdated();
        let highest = known.values().map(|known| known.start_number).max();
        let number = highest.unwrap_or(0) + 1;
        self.change_identity(|identity| identity.start.number = identity.start.number.max(number));
    }

    fn set_standing(&self, standing: Standing) {
        self.change_identity(|identity| identity.standing = standing);
    }

    pub(super) fn why_outdated(&self, by: NodeId) -> String {
        format!(
            "node {by} knows of later starts or later votes of node {}",
            self.id
        )
    }

    /// A peer knows of a later process of this node. If this process votes, it ends. Otherwise the thread that
    /// makes sure that this node may vote decides what to do.
    pub(super) fn note_outdated(&self, why: &str) {
        *lock(&self.standing.outdated) = Some(why.to_owned());
        if self.standing.votes.load(Ordering::SeqCst) {
            self.end_if_outdated();
        }
    }

    /// Ends the process if a peer knows of a later one.
    fn end_if_outdated(&self) {
        let Some(why) = self.standing.take_outdated() else {
            return;
        };
        self.change_identity(Identity::outdate);
        error!(
            "another process of this node was started after this one: {why}. This one ends. When it is \
             started again, it discards its data folder and copies everything before it votes"
        );
        logging::exit(1);
    }

    /// Ends the process because another one of this node is running.
    fn end_doubled(&self, seen_by: NodeId) -> ! {
        self.change_identity(|identity| {
            if identity.standing != Standing::New {
                identity.outdate();
            }
        });
        error!(
            "another process of node {} is running, and answers node {seen_by}: this one ends. Its \
             data folder may be a copy. Once the other process is ended and this one is started again, it \
             discards what is in the folder and copies everything before it votes",
            self.id
        );
        logging::exit(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_lost_one_after_the_other_share_no_number_even_if_none_was_seen() {
        let (first, second) = (last_used_number(0, 2), last_used_number(0, 3));
        assert!(first >= UNSEEN_NUMBERS && second >= first + UNSEEN_NUMBERS);
        // One that was seen is passed, too.
        assert!(last_used_number(second + 7, 4) > second + 7 + UNSEEN_NUMBERS);
    }
}
