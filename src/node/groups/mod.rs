//! The groups at one node.
//!
//! What this node's clients say is [gathered](saying) and appended to the group's key. The messages then go to
//! all nodes as hints, and each node tells its members ([`audience`]). What hints did not bring is
//! [read](healing). A member that does not keep up is [fed](feeding) at its own pace.

mod audience;
mod feeding;
mod healing;
mod membership;
mod participant;
mod saying;
mod trimming;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::error::Failure;
use crate::lock;
use crate::protocol::group::{Gather, GroupName};
use crate::protocol::ring::NodeId;
use audience::Audience;
use feeding::PageCache;

pub(super) use feeding::run;
pub use membership::{Joined, Presence, Since};
pub use participant::{News, Participant};
pub use saying::{OnReceipt, Receipt};

/// The most bytes of all groups together that are gathered, or kept for members.
const MOST_BYTES: usize = 64 << 20;
/// The most groups that have members at this node.
const MOST_GROUPS: usize = 256;

/// The groups in which clients of this node speak, and those that have members here.
pub struct Groups {
    node: NodeId,
    gathers: Mutex<BTreeMap<GroupName, Gather<OnReceipt>>>,
    audiences: Mutex<BTreeMap<GroupName, Audience>>,
    pages: Mutex<PageCache>,
    /// About how many bytes are gathered, or kept for members.
    bytes: AtomicUsize,
    /// Something is sent when a member has to be fed.
    wake: Sender<()>,
    woken: Receiver<()>,
}

impl Groups {
    pub fn new(node: NodeId) -> Groups {
        let (wake, woken) = bounded(1);
        Groups {
            node,
            gathers: Mutex::default(),
            audiences: Mutex::default(),
            pages: Mutex::default(),
            bytes: AtomicUsize::new(0),
            wake,
            woken,
        }
    }

    /// How many groups have members here, and how many members they have together.
    pub fn counts(&self) -> (usize, usize) {
        let audiences = lock(&self.audiences);
        let members = audiences.values().map(Audience::count).sum();
        (audiences.len(), members)
    }

    /// What a client is told while the groups take too much memory, if they do.
    fn check_room(&self) -> Result<(), Failure> {
        if self.bytes.load(Ordering::Relaxed) <= MOST_BYTES {
            return Ok(());
        }
        Err(Failure::Busy(format!(
            "the groups of node {} take as much memory as they may; try again later",
            self.node
        )))
    }

    /// Works on what is gathered for a group.
    fn with_gather<T>(
        &self,
        group: &GroupName,
        work: impl FnOnce(&mut Gather<OnReceipt>) -> T,
    ) -> T {
        let mut gathers = lock(&self.gathers);
        let gather = gathers.entry(group.clone()).or_default();
        let before = gather.bytes();
        let result = work(gather);
        self.account(before, gather.bytes());
        if gather.is_idle() {
            gathers.remove(group);
        }
        result
    }

    /// Works on the members of a group, if it has any here.
    fn with_audience<T>(
        &self,
        group: &GroupName,
        work: impl FnOnce(&mut Audience) -> T,
    ) -> Option<T> {
        self.work_on(&mut lock(&self.audiences), group, work)
    }

    fn work_on<T>(
        &self,
        audiences: &mut BTreeMap<GroupName, Audience>,
        group: &GroupName,
        work: impl FnOnce(&mut Audience) -> T,
    ) -> Option<T> {
        let audience = audiences.get_mut(group)?;
        let before = audience.bytes();
        let result = work(audience);
        if self.check_room().is_err() {
            audience.forget();
        }
        self.account(before, audience.bytes());
        if audience.take_to_feed() {
            // One message wakes the thread, however often it is to be woken.
            let _ = self.wake.try_send(());
        }
        if audience.count() == 0 {
            self.account(audience.bytes(), 0);
            audiences.remove(group);
        }
        Some(result)
    }

    fn account(&self, before: usize, after: usize) {
        if after > before {
            self.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
    }
}
