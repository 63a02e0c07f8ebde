//! Which of the two strategies a node runs. The origin, the server, clients and groups do not know.

use std::sync::Mutex;

use super::Node;
use super::drive::ReplyTo;
use crate::lock;
use crate::protocol::chain::{Chain, Status, Times};
use crate::protocol::quorum::coordinator::Coordinator;
use crate::{config::Config, protocol};

/// How many requests a node coordinates at a time, or takes for a range. One more is turned away.
const MOST_AT_A_TIME: usize = 8192;

/// What decides requests at this node.
pub(super) enum Strategy {
    Quorum(Box<Mutex<Coordinator<ReplyTo>>>),
    Chain(Box<Mutex<Chain<ReplyTo>>>),
}

impl Strategy {
    pub(super) fn new(
        id: protocol::ring::NodeId,
        config: &Config,
        ring: &std::sync::Arc<protocol::ring::Ring>,
    ) -> Strategy {
        let (quorums, ring) = (config.quorums(), ring.clone());
        let times = Times {
            time_out: config.read_timeout(),
            deadline: config.request_deadline(),
        };
        match config.strategy {
            protocol::Strategy::Quorum => {
                let coordinator = Coordinator::new(id, ring, quorums, MOST_AT_A_TIME);
                Strategy::Quorum(Box::new(Mutex::new(coordinator)))
            }
            protocol::Strategy::Chain => {
                let chain = Chain::new(id, ring, quorums, times, MOST_AT_A_TIME);
                Strategy::Chain(Box::new(Mutex::new(chain)))
            }
        }
    }

    /// The chains, if that is the strategy.
    pub(super) fn chain(&self) -> Option<&Mutex<Chain<ReplyTo>>> {
        match self {
            Strategy::Quorum(_) => None,
            Strategy::Chain(chain) => Some(chain),
        }
    }
}

impl Node {
    /// This node's part in the chain of a range, if it holds the range and runs chains.
    pub(super) fn chain_status(&self, range: usize) -> Option<Status> {
        lock(self.strategy.chain()?).status(range)
    }
}
