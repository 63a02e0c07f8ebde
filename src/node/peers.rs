//! Waiting for other nodes: only on threads that no other node waits for.
//!
//! These are the threads of clients in a listing, and those of anti-entropy, of tombstones, of
//! snapshots and of joining the cluster; and the one that answers those who join, which waits for
//! what every node answers at once.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError, bounded};

use super::Node;
use crate::bytes::Key;
use crate::error::Failure;
use crate::protocol::Outcome;
use crate::protocol::origin::Action;
use crate::protocol::ring::NodeId;
use crate::transport;
use crate::transport::link::Answer;
use crate::transport::{Reply, Request};

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

impl Node {
    /// Whether the node is ending: what waits gives up.
    pub(super) fn ending(&self) -> bool {
        self.ending.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Waits for so long; less when the node ends.
    pub(super) fn pause(&self, time: Duration) {
        // Nothing is ever sent: it ends with the time, or with the node.
        let _ = self.ending.recv_timeout(time);
    }

    /// Asks a peer and waits for the answer.
    pub(super) fn ask_and_wait(&self, peer: NodeId, request: Request) -> Option<Reply> {
        self.ask_each(peer, vec![request]).pop()?
    }

    /// Asks a peer several questions together and waits for all answers, in the same order.
    pub(super) fn ask_each(&self, peer: NodeId, requests: Vec<Request>) -> Vec<Option<Reply>> {
        let mut replies: Vec<Option<Reply>> = requests.iter().map(|_| None).collect();
        let (sender, answers) = bounded(requests.len());
        if let Some(link) = self.links.get(&peer) {
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
    pub(super) fn ask_peers(&self, peers: &[NodeId], request: &Request) -> Vec<(NodeId, Reply)> {
        let (sender, answers) = bounded(peers.len());
        for &peer in peers {
            let sender = sender.clone();
            let send = move |answer| drop(sender.send((peer, answer)));
            transport::batch(|| self.links[&peer].ask(request.clone(), send));
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

    /// Starts a request of this node itself.
    pub(super) fn begin(
        self: &Arc<Node>,
        key: Key,
        action: Action,
    ) -> Receiver<Result<Outcome, Failure>> {
        let (sender, result) = bounded(1);
        self.submit(
            key,
            action,
            Box::new(move |result| drop(sender.send(result))),
        );
        result
    }
}

/// How a request ends that was begun.
pub(super) fn outcome(result: &Receiver<Result<Outcome, Failure>>) -> Result<Outcome, Failure> {
    let ended = |_| Failure::Unavailable("the node is ending".to_owned());
    result.recv().map_err(ended)?
}
