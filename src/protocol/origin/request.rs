//! A client's request, and what the answers of coordinators make of it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Answer;
use super::failure::{self, Trouble};
use crate::bytes::Key;
use crate::error::Failure;
use crate::protocol::ring::NodeId;
use crate::protocol::version::Dot;
use crate::protocol::{Change, Outcome, Why};

pub(super) struct ClientRequest<H> {
    pub handle: H,
    pub key: Key,
    /// The range of the ring that the key falls into. It has the same replicas as the key.
    pub range: usize,
    /// What a write changes; `None` for a read.
    pub change: Option<Change>,
    /// The name of a write, from its first attempt on.
    pub dot: Option<Dot>,
    /// When its deadline passes.
    pub ends: Duration,
    /// Counts the attempts.
    pub attempt: u32,
    /// The replicas that were tried since it was submitted or woken.
    pub tried: Vec<NodeId>,
    /// The coordinator of the attempt that is under way, and when that began.
    pub waits_for: Option<(NodeId, Duration)>,
    /// The last attempt whose coordinator was too slow. If it decides late, that counts all the same.
    pub passed_over: Option<u32>,
    /// Whether any attempt that has ended may have sent an accept.
    pub doubtful: bool,
    /// How the last attempt at each replica failed, for people.
    pub troubles: BTreeMap<NodeId, Trouble>,
}

impl<H> ClientRequest<H> {
    pub fn new(handle: H, key: Key, range: usize, change: Option<Change>, ends: Duration) -> Self {
        ClientRequest {
            handle,
            key,
            range,
            change,
            dot: None,
            ends,
            attempt: 0,
            tried: Vec::new(),
            waits_for: None,
            passed_over: None,
            doubtful: false,
            troubles: BTreeMap::new(),
        }
    }

    /// Whether it has waited for one coordinator for at least this long.
    pub fn has_waited(&self, patience: Duration, now: Duration) -> bool {
        self.waits_for
            .is_some_and(|(_, began)| now >= began + patience)
    }

    /// Notes that an attempt has failed.
    pub fn fails_at(&mut self, coordinator: NodeId, trouble: Trouble) {
        self.waits_for = None;
        self.troubles.insert(coordinator, trouble);
    }

    /// Takes a coordinator's answer: what the client gets, or `None` if the request is to be tried at
    /// another replica.
    pub fn take(&mut self, from: NodeId, answer: Answer) -> Option<Result<Outcome, Failure>> {
        let trouble = match answer {
            Answer::Outcome(Outcome::Failed { accept_sent, why }) => {
                let full = matches!(why, Why::Congested | Why::Full(_));
                if full && !accept_sent && !self.doubtful {
                    // Another attempt would add to the load, and find no more capacity.
                    return Some(Err(failure::no_capacity(from, why)));
                }
                self.doubtful |= accept_sent;
                Trouble::Failed(why)
            }
            Answer::Outcome(Outcome::Superseded) => {
                // No later write of this origin can be the reason, since none is in flight beside this
                // one. But a tombstone may have absorbed an earlier attempt, and be dropped since.
                self.doubtful = true;
                Trouble::Superseded
            }
            Answer::Outcome(outcome) => return Some(Ok(outcome)),
            Answer::Silent => {
                self.doubtful = true;
                Trouble::Silent
            }
            Answer::Unreached => Trouble::Unreached,
        };
        self.fails_at(from, trouble);
        None
    }
}
