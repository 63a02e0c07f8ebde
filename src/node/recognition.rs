//! What a node makes of what its peers say of themselves: which process of a peer counts, and whether
//! it has forgotten votes.
//!
//! A peer that hears of a new storage id ends all that it coordinates at the moment: votes of the
//! forgotten life may have been counted in it.
//!
//! Of two processes of one node only one may vote. A process that says that it began later is believed
//! only if the one before it does not answer any more; then the connections of that one are closed, and
//! it gets no new ones.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use log::{error, warn};

use super::Node;
use super::drive::Event;
use crate::lock;
use crate::protocol::ring::NodeId;
use crate::storage::{Start, StorageId};
use crate::testing::rules::{self, Rule};
use crate::transport;
use crate::transport::acquaintance::Acquaintance;
use crate::transport::link::Answer;
use crate::transport::message::{Introduction, Known, Recognition, Resumed, Welcome};
use crate::transport::{Reply, Request, Respond};

/// How many introductions may wait for the thread: each node makes one at a time.
const MOST_WAITING: usize = 1024;

/// What peers have said of themselves since this process began.
pub struct Introductions {
    /// To the thread that answers them.
    joining: Sender<Joining>,
    /// The storage id that each peer announced last.
    announced: Mutex<BTreeMap<NodeId, StorageId>>,
    /// How often a peer has announced a folder that this node did not know.
    lost_folders: AtomicU64,
}

impl Introductions {
    /// None yet, and what [`run`] receives them from.
    pub fn new() -> (Introductions, Receiver<Joining>) {
        let (joining, receiver) = bounded(MOST_WAITING);
        let introductions = Introductions {
            joining,
            announced: Mutex::default(),
            lost_folders: AtomicU64::new(0),
        };
        (introductions, receiver)
    }

    /// Leaves one to the thread. Where too many wait it is dropped: who asks does so again.
    pub fn queue(&self, joining: Joining) {
        drop(self.joining.try_send(joining));
    }

    /// How often a peer has announced a folder that this node did not know: what was asked before such a
    /// moment and what was answered after it are of two lives of that peer.
    pub fn lost_folders(&self) -> u64 {
        self.lost_folders.load(Ordering::SeqCst)
    }
}

/// A [`Request::Join`] that waits for its answer.
pub struct Joining {
    pub peer: NodeId,
    pub storage: StorageId,
    pub start: Start,
    pub votes: bool,
    pub resumed: Option<Resumed>,
    pub respond: Respond,
}

/// The thread: what is noted waits for the disk, and whether another process answers for a peer. Ends
/// with the node.
pub fn run(node: &Arc<Node>, joining: &Receiver<Joining>) {
    loop {
        select! {
            recv(joining) -> next => match next {
                Ok(next) => node.joined(next),
                Err(_) => return,
            },
            recv(node.ending) -> _ => return,
        }
    }
}

impl Acquaintance for Node {
    fn introduction(&self) -> Introduction {
        let identity = self.store.identity();
        Introduction {
            start: identity.start.clone(),
            cluster_id: identity.cluster_id.clone(),
        }
    }

    fn meet(&self, peer: NodeId, introduction: &Introduction) -> Result<(), Welcome> {
        let own = self.store.identity();
        if let (Some(ours), Some(theirs)) = (&own.cluster_id, &introduction.cluster_id)
            && ours != theirs
        {
            return Err(Welcome::Refused(format!(
                "node {peer} belongs to cluster {theirs}, and node {} to {ours}, which has the same name \
                 and ids: is a port or host wrong in a cluster file?",
                self.id
            )));
        }
        let noted = own.starts.get(&peer);
        match noted.filter(|noted| introduction.start.is_outdated(noted)) {
            Some(noted) if rules::holds(Rule::OldFolderDiscarded) => {
                Err(Welcome::Outdated(format!(
                    "node {} knows of start {} of node {peer}, and this is another process, of start {}",
                    self.id, noted.number, introduction.start.number
                )))
            }
            _ => Ok(()),
        }
    }

    fn outdated(&self, _peer: NodeId, why: &str) {
        if self.standing.note_outdated(why) {
            self.end_outdated(why);
        }
    }

    fn returned(&self, peer: NodeId) {
        // Comparisons with it may not have come to their end.
        self.anti_entropy.doubt_peer(&self.ring, peer);
        self.announce_storage(peer);
        self.capacity.returned(peer);
    }
}

impl Node {
    /// Tells a peer under which storage id this node votes, so that it notices a loss, and that it
    /// may have missed what this node sent until now.
    pub(super) fn announce_storage(&self, peer: NodeId) {
        if !self.votes() {
            return;
        }
        let me = self.me.clone();
        let heed = move |answer| {
            if let (Some(node), Answer::Reply(Reply::Known(known))) = (me.upgrade(), answer) {
                node.heed(peer, known);
            }
        };
        transport::batch(|| self.peers[peer].ask(self.join(true), heed));
    }

    /// What a peer makes of this process, which votes.
    fn heed(&self, peer: NodeId, known: Known) {
        self.agree_on_cluster(known.cluster_id, false);
        match known.recognition {
            Recognition::Accepted => {}
            Recognition::Outdated => self.outdated(peer, &self.why_outdated(peer)),
            Recognition::Doubled => error!(
                "{}: another process of this node is running, and answers node {peer}: end one of them",
                self.id
            ),
        }
    }

    /// A peer tells which process of it this is, and is told what is known of it.
    fn joined(self: &Arc<Node>, joining: Joining) {
        let Joining {
            peer,
            storage,
            start,
            votes,
            resumed,
            respond,
        } = joining;
        let recognition = self.recognize(peer, &start, resumed.as_ref());
        let before = self.store.identity().clone();
        if recognition == Recognition::Accepted {
            self.accept_process(peer, storage, start, votes);
        }
        respond.reply(Reply::Known(Known {
            recognition,
            storage: before.peers.get(&peer).cloned(),
            start_number: before.starts.get(&peer).map_or(0, |start| start.number),
            highest_number: self.store.highest_number(peer),
            cluster_id: before.cluster_id,
            standing: before.standing,
        }));
    }

    /// Whether a process may be this peer. Another process to which this node is connected, and that
    /// answers once this one has asked, runs at the same time.
    fn recognize(&self, peer: NodeId, start: &Start, resumed: Option<&Resumed>) -> Recognition {
        let noted = self.store.identity().starts.get(&peer).cloned();
        if noted
            .as_ref()
            .is_some_and(|noted| noted.is_of_same_process(start))
            || !rules::holds(Rule::OldFolderDiscarded)
        {
            return Recognition::Accepted;
        }
        let last_reported = self.peers[peer].position();
        let is_behind = |resumed: &Resumed| {
            let same = last_reported.filter(|last| last.start.is_of_same_process(&resumed.start));
            same.is_some_and(|last| resumed.position < last.position)
        };
        if noted.is_some_and(|noted| start.is_outdated(&noted)) || resumed.is_some_and(is_behind) {
            error!(
                "{}: node {peer} was started on an old copy of its data folder: its votes do not count",
                self.id
            );
            return Recognition::Outdated;
        }
        let other = || {
            let process = self.peers[peer].process();
            process.filter(|process| !process.is_of_same_process(start))
        };
        if other().is_none() || self.peers.ask_and_wait(peer, Request::Ping).is_none() {
            return Recognition::Accepted;
        }
        match other() {
            Some(other) => {
                error!(
                    "{}: two processes of node {peer} are running: the later one, of start {}, is refused, \
                     since that of start {} answers. Its data folder may be a copy",
                    self.id, start.number, other.number
                );
                Recognition::Doubled
            }
            None => Recognition::Accepted,
        }
    }

    /// Lets a process be this peer from now on, and notes that.
    fn accept_process(
        self: &Arc<Node>,
        peer: NodeId,
        storage: StorageId,
        start: Start,
        votes: bool,
    ) {
        let known = self.store.identity().peers.get(&peer).cloned();
        let changed = known.as_ref().is_some_and(|known| *known != storage);
        // It asks again and again until it has copied everything, and has not voted meanwhile.
        let is_news = lock(&self.introductions.announced).get(&peer) != Some(&storage);
        if changed && is_news {
            warn!(
                "{}: {peer} has lost its data folder; its old votes do not count any more",
                self.id
            );
        }
        // Also for the first that is heard of it: what was counted may be of a life before.
        if known.as_ref() != Some(&storage) && is_news {
            self.introductions
                .lost_folders
                .fetch_add(1, Ordering::SeqCst);
            self.run(Event::VotesLost);
        }
        // Only now: whoever finds it here relies on what was counted being ended.
        lock(&self.introductions.announced).insert(peer, storage.clone());
        let noted = self.store.change_identity(|identity| {
            if votes {
                identity.peers.insert(peer, storage);
            }
            if start.number > 0 {
                identity.starts.insert(peer, start.clone());
            }
        });
        self.or_stop(noted);
        self.peers[peer].accept_only(&start);
        if let Some((inbound, _)) = self.inbound.get() {
            inbound.accept_only(peer, &start);
        }
        if votes {
            self.anti_entropy.doubt_peer(&self.ring, peer);
        }
    }
}
