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

use crate::lock;
use crate::protocol::group::{Gather, GroupName};
use crate::protocol::ring::NodeId;
use audience::Audience;
use feeding::PageCache;

pub(super) use feeding::run;
pub use membership::{Joined, Presence, Since};
pub use participant::{News, Participant};
pub use saying::{OnReceipt, Receipt};

/// The most bytes of all groups together that are gathered.
const MOST_GATHERED: usize = 32 << 20;
/// The most bytes of all groups together that are held back or kept for members.
const MOST_KEPT: usize = 32 << 20;
/// With so many groups no other one is remembered only because a page of it is stored.
const MOST_REMEMBERED: usize = 1024;
/// The most groups that have members at this node.
const MOST_GROUPS: usize = 256;

/// The groups in which clients of this node speak, and those that have members here.
pub struct Groups {
    node: NodeId,
    gathers: Mutex<BTreeMap<GroupName, Gather<OnReceipt>>>,
    audiences: Mutex<BTreeMap<GroupName, Audience>>,
    pages: Mutex<PageCache>,
    /// About how many bytes are gathered.
    gathered: AtomicUsize,
    /// About how many bytes are held back or kept for members.
    kept: AtomicUsize,
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
            gathered: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
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
        account(&self.gathered, before, gather.bytes());
        if gather.is_idle() && (!gather.remembers() || gathers.len() > MOST_REMEMBERED) {
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
        if self.kept.load(Ordering::Relaxed) > MOST_KEPT {
            audience.forget();
        }
        account(&self.kept, before, audience.bytes());
        if audience.take_to_feed() {
            // One message wakes the thread, however often it is to be woken.
            let _ = self.wake.try_send(());
        }
        if audience.count() == 0 {
            account(&self.kept, audience.bytes(), 0);
            audiences.remove(group);
        }
        Some(result)
    }
}

/// Replaces a part of a sum.
fn account(total: &AtomicUsize, before: usize, after: usize) {
    if after > before {
        total.fetch_add(after - before, Ordering::Relaxed);
    } else {
        total.fetch_sub(before - after, Ordering::Relaxed);
    }
}
