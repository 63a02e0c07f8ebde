//! The replica's part: answers the questions of other nodes, and never waits for any.

use std::sync::Arc;

use log::error;

use super::Node;
use crate::bytes::Key;
use crate::peer::{Reply, Request, Respond, Service};
use crate::register::{Operation, Outcome, VoteRequest, Why};
use crate::ring::NodeId;

/// A request that another node sent here to be coordinated.
pub struct Forwarded {
    pub key: Key,
    pub operation: Operation,
    pub respond: Respond,
}

impl Service for Node {
    fn serve(self: Arc<Self>, from: NodeId, request: Request, respond: Respond) {
        match request {
            Request::Ping => respond.reply(Reply::Pong),
            Request::Join { storage, votes } => self.joined(from, storage, votes, respond),
            // What this node holds may not be all that it once held: it has no say in anything.
            _ if !self.votes() => respond.reply(Reply::Abstain),
            Request::Vote { key, vote } => self.vote(from, &key, &vote, respond),
            Request::Coordinate { key, operation } => {
                self.take_up(Forwarded {
                    key,
                    operation,
                    respond,
                });
            }
            Request::Digests { arc } if arc < self.ring.members().len() => {
                respond.reply(Reply::Digests(self.store.digests(arc)));
            }
            Request::Digests { .. } => respond.reply(Reply::Abstain),
            Request::Scan(scan) => {
                self.store
                    .scan(&scan, move |page| respond.reply(Reply::Page(page)));
            }
        }
    }
}

impl Node {
    /// Votes, if this node holds the key: a vote from elsewhere breaks the overlap of quorums.
    fn vote(self: &Arc<Node>, from: NodeId, key: &Key, vote: &VoteRequest, respond: Respond) {
        if !self.ring.preference_list(key).contains(&self.id) {
            error!(
                "{}: {from} wants a vote on {key:?}, which is not held here",
                self.id
            );
            return respond.reply(Reply::Abstain);
        }
        self.store
            .vote(key, vote, move |reply| respond.reply(Reply::Vote(reply)));
    }

    /// Leaves a forwarded request to the pool: no other node waits for its threads' votes.
    fn take_up(&self, forwarded: Forwarded) {
        let refused = match self.pool.get() {
            Some(pool) => pool.take_up(forwarded).err(),
            None => Some(forwarded),
        };
        if let Some(forwarded) = refused {
            let outcome = Outcome::Failed {
                accept_sent: false,
                why: Why::Overloaded,
            };
            forwarded.respond.reply(Reply::Outcome(outcome));
        }
    }
}
