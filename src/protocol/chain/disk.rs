//! A replica looks after its own disk.
//!
//! A disk that hangs must not be in each new chain. Its node answers pings, and only itself can tell a disk that
//! hangs from one that is slow. So it says so, and its chains go on without it.

use std::time::Duration;

use super::member::Member;
use super::{Context, LogPlace, Replica};

/// A disk hangs once nothing has become durable for so many read time-outs, though something waits for it.
const HANGS: u32 = 4;

/// What a node sees of its disk.
#[derive(Debug, Default)]
pub(super) struct DiskWatch {
    durable: LogPlace,
    /// When it went on last, or had nothing to do.
    since: Duration,
    looked: Duration,
    pub(super) hangs: bool,
    time_out: Duration,
}

impl DiskWatch {
    pub(super) fn new(time_out: Duration) -> DiskWatch {
        DiskWatch {
            time_out,
            ..DiskWatch::default()
        }
    }

    /// Looks whether the disk hangs.
    pub(super) fn look(&mut self, replica: &dyn Replica, now: Duration) -> bool {
        let durable = replica.durable();
        let stood_still = now > self.looked + self.time_out;
        self.looked = now;
        // A process that has just begun or stood still knows nothing of its disk.
        if stood_still || durable != self.durable || durable >= replica.written() {
            (self.durable, self.since) = (durable, now);
        }
        self.hangs = now >= self.since + HANGS * self.time_out;
        self.hangs
    }
}

impl<H> Member<H> {
    /// The disk of this node hangs, so that no chain can go on with it. Requests may have better luck elsewhere.
    pub(super) fn step_aside(&mut self, context: &mut Context<'_, H>) {
        self.stop(context);
        self.drop_proposal();
        self.look.end();
        for request in std::mem::take(&mut self.waiting) {
            Self::fail(request, context.effects);
        }
        self.aside = true;
    }
}
