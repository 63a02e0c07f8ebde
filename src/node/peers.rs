//! The other nodes, with a link to each.
//!
//! Only a thread that no other node waits for may wait here for an answer. These are the threads of
//! clients in a listing or a group, and those of anti-entropy, of tombstones, of this node's standing and of
//! members that are fed. The thread that recognizes peers waits only for a [`Request::Ping`], which every node answers at once.

use std::collections::BTreeMap;
use std::ops::Index;
use std::sync::{Arc, Weak};

use crossbeam_channel::bounded;

use super::Node;
use crate::bytes::Key;
use crate::config::{Config, Member};
use crate::protocol::ring::NodeId;
use crate::transport::link::{self, Answer};
use crate::transport::{self, Link, Reply, Request};

/// The most keys in one batch.
const KEYS_AT_A_TIME: usize = 64;
/// A batch is full once its values have so many bytes. The answers then come soon, and do not hold up other
/// questions to the same peer for long.
const BYTES_AT_A_TIME: usize = 1 << 20;

/// Keys whose states are asked for together. They share messages and syncs of the disk.
#[derive(Default)]
pub(super) struct KeyBatch {
    keys: Vec<Key>,
    bytes: usize,
}

impl KeyBatch {
    /// Adds a key with a value of so many bytes. Returns whether the batch is full.
    pub(super) fn add(&mut self, key: Key, size: usize) -> bool {
        self.keys.push(key);
        self.bytes += size;
        self.keys.len() >= KEYS_AT_A_TIME || self.bytes >= BYTES_AT_A_TIME
    }

    /// Empties the batch and returns its keys.
    pub(super) fn take(&mut self) -> Vec<Key> {
        std::mem::take(self).keys
    }
}

/// A link to each other node of the ring.
pub struct Peers(BTreeMap<NodeId, Arc<Link>>);

impl Index<NodeId> for Peers {
    type Output = Arc<Link>;

    /// The link to another node of the ring.
    fn index(&self, peer: NodeId) -> &Arc<Link> {
        &self.0[&peer]
    }
}

impl Peers {
    /// Links to all nodes of the cluster but `id`, which is the `owner`.
    pub fn new(id: NodeId, config: &Config, owner: &Weak<Node>) -> Peers {
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
        Peers(others.map(link).collect())
    }

    /// The link to a node, or none to this node itself.
    pub fn get(&self, peer: NodeId) -> Option<&Arc<Link>> {
        self.0.get(&peer)
    }

    /// All other nodes.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.0.keys().copied()
    }

    /// The links to all other nodes.
    pub fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.0.values()
    }

    /// The nodes that are silent at this moment.
    pub fn suspects(&self) -> Vec<NodeId> {
        self.ids().filter(|peer| self[*peer].suspect()).collect()
    }

    /// Asks a peer and waits for its answer. Returns none if there is no answer in time.
    pub fn ask_and_wait(&self, peer: NodeId, request: Request) -> Option<Reply> {
        self.ask_together([(peer, request)]).pop()?
    }

    /// Asks several questions together and waits for the answers. Returns them in the order of the questions,
    /// with none for each question that is not answered in time.
    pub fn ask_together(
        &self,
        questions: impl IntoIterator<Item = (NodeId, Request)>,
    ) -> Vec<Option<Reply>> {
        let questions = Vec::from_iter(questions);
        let mut replies: Vec<Option<Reply>> = questions.iter().map(|_| None).collect();
        let (sender, answers) = bounded(questions.len());
        transport::batch(|| {
            for (place, (peer, request)) in questions.into_iter().enumerate() {
                let sender = sender.clone();
                self[peer].ask(request, move |answer| drop(sender.send((place, answer))));
            }
        });
        // The answers end when the last closure is gone.
        drop(sender);
        for (place, answer) in answers {
            if let Answer::Reply(reply) = answer {
                replies[place] = Some(reply);
            }
        }
        replies
    }
}
