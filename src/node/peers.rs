//! The other nodes: a link to each.
//!
//! Threads that no other node waits for may wait here for an answer: those of clients in a listing, and
//! those of anti-entropy, of tombstones and of this node's standing. The one that recognizes peers waits
//! for what every node answers at once.

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

/// How many keys' states are asked for at a time, at the most.
const KEYS_AT_A_TIME: usize = 64;
/// No more are asked for at a time once their values have so many bytes: the answers come soon, and
/// what else the same peer is asked does not wait for long behind them.
const BYTES_AT_A_TIME: usize = 1 << 20;

/// Keys whose states are asked for together: they share messages and the disk's syncs.
#[derive(Default)]
pub(super) struct Wanted {
    keys: Vec<Key>,
    bytes: usize,
}

impl Wanted {
    /// Adds a key with a value of so many bytes; returns whether it is time to ask.
    pub(super) fn add(&mut self, key: Key, size: usize) -> bool {
        self.keys.push(key);
        self.bytes += size;
        self.keys.len() >= KEYS_AT_A_TIME || self.bytes >= BYTES_AT_A_TIME
    }

    /// Takes the keys out that were added.
    pub(super) fn take(&mut self) -> Vec<Key> {
        std::mem::take(self).keys
    }
}

/// A link to each other node of the ring.
pub struct Peers(BTreeMap<NodeId, Arc<Link>>);

impl Index<NodeId> for Peers {
    type Output = Arc<Link>;

    /// The link to a node of the ring that is not this one.
    fn index(&self, peer: NodeId) -> &Arc<Link> {
        &self.0[&peer]
    }
}

impl Peers {
    /// A link to each other node.
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

    /// The link to a node; none to this one.
    pub fn get(&self, peer: NodeId) -> Option<&Arc<Link>> {
        self.0.get(&peer)
    }

    /// All other nodes.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.0.keys().copied()
    }

    /// The links to all of them.
    pub fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.0.values()
    }

    /// The nodes that are silent just now.
    pub fn suspects(&self) -> Vec<NodeId> {
        let suspects = self.links().filter(|link| link.suspect());
        suspects.map(|link| link.peer()).collect()
    }

    /// Asks a peer and waits for the answer.
    pub fn ask_and_wait(&self, peer: NodeId, request: Request) -> Option<Reply> {
        self.ask_each(peer, vec![request]).pop()?
    }

    /// Asks a peer several questions together and waits for all answers, in the same order.
    pub fn ask_each(&self, peer: NodeId, requests: Vec<Request>) -> Vec<Option<Reply>> {
        let mut replies: Vec<Option<Reply>> = requests.iter().map(|_| None).collect();
        let (sender, answers) = bounded(requests.len());
        if let Some(link) = self.get(peer) {
            transport::batch(|| {
                for (place, request) in requests.into_iter().enumerate() {
                    let sender = sender.clone();
                    link.ask(request, move |answer| drop(sender.send((place, answer))));
                }
            });
        }
        drop(sender);
        for (place, answer) in answers {
            if let Answer::Reply(reply) = answer {
                replies[place] = Some(reply);
            }
        }
        replies
    }

    /// Asks several peers the same and waits until all have answered or are given up. Returns the answers.
    pub fn ask_peers(&self, peers: &[NodeId], request: &Request) -> Vec<(NodeId, Reply)> {
        let (sender, answers) = bounded(peers.len());
        for &peer in peers {
            let sender = sender.clone();
            let send = move |answer| drop(sender.send((peer, answer)));
            transport::batch(|| self[peer].ask(request.clone(), send));
        }
        drop(sender);
        answers
            .into_iter()
            .filter_map(|(peer, answer)| match answer {
                Answer::Reply(reply) => Some((peer, reply)),
                Answer::Silent | Answer::Unreached => None,
            })
            .collect()
    }
}
