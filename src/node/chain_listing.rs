//! What the listings ask of chains: whether this node holds all of a range, and pages of a range from its tail.
//!
//! Both are confirmed like a read: one more member says, after the listing began, that it serves the same epoch.
//! Then no later epoch had begun when the listing began, and all that was chosen before is here, or at that tail.

use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::Node;
use super::chain_comparison::Comparison;
use crate::bytes::Key;
use crate::error::Failure;
use crate::lock;
use crate::protocol::chain::epoch::Adopted;
use crate::protocol::chain::{Answer, Question};
use crate::protocol::ring::NodeId;
use crate::storage::{Page, Scan, Within};
use crate::transport::{Reply, Request};

/// How long to wait before a range is tried again whose chain is changing.
const TRY_AGAIN: Duration = Duration::from_millis(20);

impl Node {
    /// The ranges of this node that it may hold only a part of, though it has tried for this time.
    pub(super) fn ranges_not_current(&self, time: Duration) -> Vec<usize> {
        let until = Instant::now() + time;
        let mut missing = self.ring.ranges_of(self.id);
        loop {
            missing.retain(|range| !self.is_current(*range));
            if missing.is_empty() || Instant::now() >= until || self.ending() {
                return missing;
            }
            self.pause(TRY_AGAIN);
        }
    }

    /// Whether this node holds all that was chosen of a range before the call. If it is left out, it catches up.
    fn is_current(&self, range: usize) -> bool {
        let Some(own) = self.chain_status(range) else {
            return false;
        };
        if own.serves {
            let confirmed = self.is_confirmed(range, &own.adopted, self.id);
            if let Some(chain) = self.strategy.chain().filter(|_| !confirmed) {
                lock(chain).missed(range);
            }
            return confirmed;
        }
        self.ring.other_replicas(range, self.id).any(|other| {
            let question = Question::Status;
            let Some(Reply::Chain(Answer::Status(theirs))) = self
                .peers
                .ask_and_wait(other, Request::Chain { range, question })
            else {
                return false;
            };
            theirs.serves
                && theirs.adopted.epoch > own.adopted.epoch
                && self.is_confirmed(range, &theirs.adopted, other)
                && self
                    .compare_with(
                        &Comparison::to_catch_up(range, own.adopted.epoch, other),
                        other,
                    )
                    .is_some()
        })
    }

    /// Whether a member beside this one serves this epoch.
    fn is_confirmed(&self, range: usize, adopted: &Adopted, except: NodeId) -> bool {
        let confirms = |member: NodeId| {
            let question = Question::Confirm(adopted.epoch);
            let reply = if member == self.id {
                let own = self.chain_status(range);
                let same = own.filter(|own| own.serves && own.adopted.epoch == adopted.epoch);
                same.map(|_| Reply::Chain(Answer::Done))
            } else {
                self.peers
                    .ask_and_wait(member, Request::Chain { range, question })
            };
            matches!(reply, Some(Reply::Chain(Answer::Done)))
        };
        let mut others = adopted.members.clone();
        others.retain(|member| *member != except);
        others.into_iter().any(confirms)
    }

    /// A page of a range from the tail of its chain, as fresh as a read of each of its keys.
    ///
    /// # Errors
    /// `UNAVAILABLE` if no chain serves the range within the request deadline.
    pub(super) fn page_of_tail(&self, range: usize, after: Option<&Key>) -> Result<Page, Failure> {
        let until = Instant::now() + self.config.request_deadline();
        let scan = Scan {
            range,
            after: after.cloned(),
            states: true,
            within: Some(Within::Serving),
            ..Scan::default()
        };
        let replicas = self.ring.replicas_of_range(range);
        loop {
            let mut tried = replicas.to_vec();
            tried.reverse();
            tried.sort_by_key(|replica| self.peers.suspects().contains(replica));
            for replica in tried {
                let page = self.page_of(replica, &scan, until);
                if let Some(page) = page.filter(|page| page.adopted.tail() == Some(replica))
                    && self.is_confirmed(range, &page.adopted, replica)
                {
                    return Ok(page);
                }
            }
            self.miss_tail(range);
            if Instant::now() >= until || self.ending() {
                let ids: Vec<_> = replicas.iter().map(NodeId::to_string).collect();
                return Err(Failure::Unavailable(format!(
                    "no chain serves {}'s range; its replicas are {}",
                    replicas[0],
                    ids.join(", ")
                )));
            }
            self.pause(TRY_AGAIN);
        }
    }

    /// Has the members of a chain look whether its tail is still there.
    fn miss_tail(&self, range: usize) {
        let replicas = self.ring.replicas_of_range(range);
        if let Some(chain) = self
            .strategy
            .chain()
            .filter(|_| replicas.contains(&self.id))
        {
            lock(chain).missed(range);
        }
        for other in self.ring.other_replicas(range, self.id) {
            let question = Question::Missed;
            self.peers[other].tell(Request::Chain { range, question });
        }
    }

    fn page_of(&self, replica: NodeId, scan: &Scan, until: Instant) -> Option<Page> {
        if replica != self.id {
            return match self
                .peers
                .ask_and_wait(replica, Request::Scan(scan.clone()))
            {
                Some(Reply::Page(page)) => Some(page),
                _ => None,
            };
        }
        let (sender, page) = bounded(1);
        let chain = lock(self.strategy.chain()?);
        if !chain.status(scan.range)?.serves {
            return None;
        }
        // The chain cannot change while the page is read: the page must not name an epoch that has not begun.
        self.store.scan(scan, move |page| drop(sender.send(page)));
        drop(chain);
        page.recv_deadline(until).ok()
    }
}
