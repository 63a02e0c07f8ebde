//! Whether this node may vote.
//!
//! A replica that forgot a vote must not vote: what it promised or accepted and forgot may be
//! just what made a state chosen. So each data folder has a random storage id, which peers note.
//! A node with an empty folder asks all other nodes. If none of them knew it to vote with an older
//! one it is new, and votes once all of them have noted that. If one did, it first copies every key
//! of its ranges from all other replicas ([`copying`](super::copying)).
//!
//! Nor may it number a write as it did before: the replicas would take that for a retry of the
//! old one, and answer it without doing it. So it goes on above the highest number that any node
//! has seen, and numbers none before all have told.
//!
//! A peer that hears of a new storage id ends all that it coordinates at the moment: votes of the
//! forgotten life may have been counted in it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use log::{info, warn};

use super::copying::{copy_range, insist};
use super::{Node, SEQUENCE_BLOCK};
use crate::lock;
use crate::net;
use crate::peer::{Reply, Request, Respond};
use crate::ring::NodeId;
use crate::rules::{self, Rule};
use crate::storage::{Standing, StorageId};

/// More writes than can have been numbered in a lost life and not be seen by anybody yet.
const STILL_ON_THEIR_WAY: u64 = SEQUENCE_BLOCK;

/// The thread: ends once this node votes.
pub fn run(node: &Arc<Node>) {
    if rules::holds(Rule::LostFolderCopied) && make_whole(node).is_none() {
        return;
    }
    node.votes.store(true, Ordering::Release);
    node.number_writes(0);
    for &peer in node.links.keys() {
        node.announce_storage(peer);
    }
    info!("{}: votes", node.id);
}

/// Makes sure that nothing is forgotten that this node ever voted; none if the node ends before.
fn make_whole(node: &Arc<Node>) -> Option<()> {
    let standing = node.store.identity().standing;
    if standing == Standing::New {
        info!(
            "{}: a new data folder: votes once all other nodes have answered",
            node.id
        );
        let known = insist(node, || ask_all(node, false))?;
        if known.another {
            node.set_standing(Standing::Lost);
        } else {
            // They must know of this folder before it has a vote that can be lost.
            insist(node, || ask_all(node, true))?;
            node.set_standing(Standing::Whole);
        }
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

/// What the other nodes know of this one.
#[derive(Default)]
struct Known {
    /// Whether any of them knew it to vote under another storage id.
    another: bool,
    /// The highest number of its writes that any of them has seen.
    highest_number: u64,
}

/// What all other nodes know of this one, which tells them whether it votes with this folder.
///
/// # Errors
/// One of those that do not answer.
fn ask_all(node: &Arc<Node>, votes: bool) -> Result<Known, NodeId> {
    let own = node.store.identity().storage.clone();
    let mut known = Known::default();
    for &peer in node.links.keys() {
        let join = Request::Join {
            storage: own.clone(),
            votes,
        };
        let Some(Reply::Known {
            storage,
            highest_number,
        }) = node.ask_and_wait(peer, join)
        else {
            return Err(peer);
        };
        known.another |= storage.is_some_and(|storage| storage != own);
        known.highest_number = known.highest_number.max(highest_number);
    }
    Ok(known)
}

/// Copies all that this node may have held; none if the node ends before.
fn copy_everything(node: &Arc<Node>) -> Option<()> {
    // The others must have ended what they counted on the lost votes before they are copied.
    let known = insist(node, || ask_all(node, false))?;
    node.number_writes(known.highest_number + STILL_ON_THEIR_WAY);
    for range in node.ring.ranges_of(node.id) {
        copy_range(node, range)?;
    }
    node.store.await_durable().ok()
}

impl Node {
    /// Whether this node votes, or still has to make sure that it has forgotten nothing.
    pub fn votes(&self) -> bool {
        self.votes.load(Ordering::Acquire)
    }

    /// Tells a peer under which storage id this node votes, so that it notices a loss, and that it
    /// may have missed what this node sent until now.
    pub(super) fn announce_storage(&self, peer: NodeId) {
        if self.votes() {
            let storage = self.store.identity().storage.clone();
            net::batch(|| {
                self.links[&peer].tell(Request::Join {
                    storage,
                    votes: true,
                })
            });
        }
    }

    /// A peer tells its storage id, and is told the one that it was known by.
    pub(super) fn joined(
        self: &Arc<Node>,
        peer: NodeId,
        storage: StorageId,
        votes: bool,
        respond: Respond,
    ) {
        let known = self.store.identity().peers.get(&peer).cloned();
        let changed = known.as_ref().is_some_and(|known| *known != storage);
        // It asks again and again until it has copied everything, and has not voted meanwhile.
        let is_news = lock(&self.told).get(&peer) != Some(&storage);
        if changed && is_news {
            warn!(
                "{}: {peer} has lost its data folder; its old votes count no more",
                self.id
            );
        }
        // Also for the first that is heard of it: what was counted may be of a life before.
        if known.as_ref() != Some(&storage) && is_news {
            self.lost_folders.fetch_add(1, Ordering::SeqCst);
            self.abandon_coordinated();
        }
        // Only now: whoever finds it here relies on what was counted being ended.
        lock(&self.told).insert(peer, storage.clone());
        if votes && known.as_ref() != Some(&storage) {
            let noted = self.store.change_identity(|identity| {
                identity.peers.insert(peer, storage);
            });
            if let Err(error) = noted {
                super::stop_at_once(self.id, &error);
            }
        }
        if votes {
            self.anti_entropy.doubt_peer(&self.ring, peer);
        }
        respond.reply(Reply::Known {
            storage: known,
            highest_number: self.store.highest_number(peer),
        });
    }

    fn set_standing(&self, standing: Standing) {
        let noted = self
            .store
            .change_identity(|identity| identity.standing = standing);
        if let Err(error) = noted {
            super::stop_at_once(self.id, &error);
        }
    }
}
