//! How a node recognizes its peers: which process may be a peer, and whether that peer has forgotten votes.
//!
//! A node that hears of a new storage id of a peer abandons all requests that it coordinates at that moment.
//! It may have counted votes in them that the peer has forgotten.
//!
//! Only one of two processes of one node may vote. A process that says that it started later is accepted only
//! if the earlier one does not answer any more. The connections of the earlier one are then closed, and
//! new ones are refused.
//!
//! Two clusters can have files with the same name and ids. So all nodes of a cluster agree on a random id for it
//! when they first meet, and a peer with another id is refused.
//!
//! [`standing`](super::standing) is the other side: how a node asks its peers to recognize it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use log::{error, info, warn};

use super::Node;
use super::drive::Event;
use crate::lock;
use crate::protocol::ring::NodeId;
use crate::storage::{ClusterId, Start, StorageId};
use crate::testing::rules::{self, Rule};
use crate::transport;
use crate::transport::handshake::{Introduction, LocalNode, Welcome};
use crate::transport::link::Answer;
use crate::transport::message::{Join, Known, Recognition, Resumed};
use crate::transport::{Reply, Request, Respond};

/// How many join requests may wait for the thread. Each peer sends one at a time.
const MOST_WAITING: usize = 1024;

/// A [`Request::Join`] of a peer that waits for its answer.
type JoinRequest = (NodeId, Join, Respond);

/// What peers have said of themselves since this process began.
pub struct Introductions {
    /// Lead to the thread that answers join requests.
    requests: (Sender<JoinRequest>, Receiver<JoinRequest>),
    /// The storage id that each peer announced last.
    announced: Mutex<BTreeMap<NodeId, StorageId>>,
    lost_folders: AtomicU64,
}

impl Introductions {
    /// Nothing has been said yet.
    pub fn new() -> Introductions {
        Introductions {
            requests: bounded(MOST_WAITING),
            announced: Mutex::default(),
            lost_folders: AtomicU64::new(0),
        }
    }

    /// Leaves a join request to the thread. If too many wait it is dropped, and the peer asks again.
    pub fn queue(&self, peer: NodeId, join: Join, respond: Respond) {
        drop(self.requests.0.try_send((peer, join, respond)));
    }

    /// How often a peer has announced a folder that this node did not know. If this number changes during a
    /// question, the answer may come from a peer that has forgotten what it held before.
    pub fn lost_folders(&self) -> u64 {
        self.lost_folders.load(Ordering::SeqCst)
    }
}

/// Runs the thread that answers join requests, until the node ends. Only this thread waits for the disk and for
/// another process of a peer, so that no other request waits with it.
pub fn run(node: &Arc<Node>) {
    loop {
        select! {
            recv(node.introductions.requests.1) -> next => {
                let (peer, join, respond) = next.expect("this node keeps the sender");
                respond.reply(Reply::Known(node.answer_join(peer, join)));
            }
            recv(node.ending) -> _ => return,
        }
    }
}

impl LocalNode for Node {
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
        self.note_outdated(why);
    }

    fn returned(&self, peer: NodeId) {
        // Writes may have been missed on either side.
        self.anti_entropy.doubt_peer(peer);
        if let Some(chain) = self.strategy.chain() {
            lock(chain).look_soon();
        }
        self.announce_storage(peer);
        self.capacity.returned(peer);
    }
}

impl Node {
    /// The node that draws the cluster's id.
    pub(super) fn lowest(&self) -> NodeId {
        let ids = self.ring.members().iter().map(|(_, id)| *id);
        ids.min().unwrap_or(self.id)
    }

    /// Takes over the cluster's id from a peer. If no node has one yet, the node with the lowest id draws it,
    /// once it `may_draw`.
    pub(super) fn agree_on_cluster(&self, announced: Option<ClusterId>, may_draw: bool) {
        if self.store.identity().cluster_id.is_some() {
            return;
        }
        let drawn = || (may_draw && self.id == self.lowest()).then(ClusterId::draw);
        if let Some(id) = announced.or_else(drawn) {
            info!("belongs to the cluster {id}");
            self.change_identity(|identity| identity.cluster_id = Some(id));
        }
    }

    /// Announces to a peer under which storage id this node votes. The peer notices then if this node has
    /// lost a folder, and that it may have missed what this node sent until now.
    pub(super) fn announce_storage(&self, peer: NodeId) {
        if !self.votes() {
            return;
        }
        let me = self.me.clone();
        let announced = move |answer| {
            if let (Some(node), Answer::Reply(Reply::Known(known))) = (me.upgrade(), answer) {
                node.announced(peer, known);
            }
        };
        transport::batch(|| self.peers[peer].ask(self.join(true), announced));
    }

    /// A peer has answered the announcement of this process, which votes.
    fn announced(&self, peer: NodeId, known: Known) {
        self.agree_on_cluster(known.cluster_id, false);
        match known.recognition {
            Recognition::Accepted => {}
            Recognition::Outdated => self.note_outdated(&self.why_outdated(peer)),
            Recognition::Doubled => error!(
                "another process of this node is running, and answers node {peer}: end one of them"
            ),
        }
    }

    /// Answers a peer that says which of its processes it is: whether this node accepts that process, and what
    /// this node knew of the peer before.
    fn answer_join(self: &Arc<Node>, peer: NodeId, join: Join) -> Known {
        let recognition = self.recognize(peer, &join.start, join.resumed.as_ref());
        let before = self.store.identity().clone();
        if recognition == Recognition::Accepted {
            self.accept_process(peer, join);
        }
        Known {
            recognition,
            storage: before.peers.get(&peer).cloned(),
            start_number: before.starts.get(&peer).map_or(0, |start| start.number),
            highest_number: self.store.highest_number(peer),
            cluster_id: before.cluster_id,
            standing: before.standing,
        }
    }

    /// Whether a process may be this peer. If this node is connected to another process of the peer, and that
    /// one still answers, then both are running.
    fn recognize(&self, peer: NodeId, start: &Start, resumed: Option<&Resumed>) -> Recognition {
        let noted = self.store.identity().starts.get(&peer).cloned();
        let is_known = |noted: &Start| noted.is_of_same_process(start);
        if noted.as_ref().is_some_and(is_known) || !rules::holds(Rule::OldFolderDiscarded) {
            return Recognition::Accepted;
        }
        let last_reported = self.peers[peer].position();
        let is_behind = |resumed: &Resumed| {
            let same = last_reported.filter(|last| last.start.is_of_same_process(&resumed.start));
            same.is_some_and(|last| resumed.position < last.position)
        };
        if noted.is_some_and(|noted| start.is_outdated(&noted)) || resumed.is_some_and(is_behind) {
            error!(
                "node {peer} was started on an old copy of its data folder: its votes do not count"
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
        let Some(other) = other() else {
            return Recognition::Accepted;
        };
        error!(
            "two processes of node {peer} are running: the later one, of start {}, is refused, \
             since that of start {} answers. Its data folder may be a copy",
            start.number, other.number
        );
        Recognition::Doubled
    }

    /// Accepts a process as this peer from now on, and makes a durable note of it.
    fn accept_process(self: &Arc<Node>, peer: NodeId, join: Join) {
        let (storage, start, votes) = (join.storage, join.start, join.votes);
        let known = self.store.identity().peers.get(&peer).cloned();
        // A peer that has lost its folder asks again and again until it has copied everything.
        let is_news = lock(&self.introductions.announced).get(&peer) != Some(&storage);
        // A peer that was not known at all may have lost a folder, too.
        if is_news && known.as_ref() != Some(&storage) {
            if known.is_some() {
                warn!("{peer} has lost its data folder; its old votes do not count any more");
            }
            self.introductions
                .lost_folders
                .fetch_add(1, Ordering::SeqCst);
            self.run(Event::VotesLost);
        }
        // This comes last: it means that no forgotten vote is counted any more.
        lock(&self.introductions.announced).insert(peer, storage.clone());
        self.change_identity(|identity| {
            if votes {
                identity.peers.insert(peer, storage);
            }
            if start.number > 0 {
                identity.starts.insert(peer, start.clone());
            }
        });
        self.peers[peer].accept_only(&start);
        if let Some(inbound) = self.inbound.get() {
            inbound.accept_only(peer, &start);
        }
        if votes {
            self.anti_entropy.doubt_peer(peer);
        }
    }
}
