//! A bound on the memory that many connections take together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many bytes each [`Share`] may hold beside the budget. So a connection that needs little works
/// however much others need.
pub const FREE: usize = 128 << 10;

/// A number of bytes that all its shares together may hold.
pub struct Budget {
    limit: usize,
    taken: AtomicUsize,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Budget> {
        let taken = AtomicUsize::new(0);
        Arc::new(Budget { limit, taken })
    }

    /// Whether no more than half of it is taken.
    pub fn is_plentiful(&self) -> bool {
        self.taken.load(Ordering::Relaxed) <= self.limit / 2
    }
}

/// The part of a budget that one connection holds. Dropping it gives the bytes back.
pub struct Share {
    budget: Arc<Budget>,
    taken: usize,
}

impl Share {
    pub fn of(budget: &Arc<Budget>) -> Share {
        let budget = budget.clone();
        Share { budget, taken: 0 }
    }

    /// Holds so many bytes in place of those so far. Returns false, and changes nothing, if too few are
    /// left.
    pub fn hold(&mut self, bytes: usize) -> bool {
        let needed = bytes.saturating_sub(FREE);
        let total = &self.budget.taken;
        if needed > self.taken {
            let more = needed - self.taken;
            if total.fetch_add(more, Ordering::Relaxed) + more > self.budget.limit {
                total.fetch_sub(more, Ordering::Relaxed);
                return false;
            }
        } else if needed < self.taken {
            total.fetch_sub(self.taken - needed, Ordering::Relaxed);
        }
        self.taken = needed;
        true
    }

    /// Whether it holds any bytes of the budget.
    pub fn holds_much(&self) -> bool {
        self.taken > 0
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_holds_the_others_cannot_have_and_a_little_is_always_free() {
        let budget = Budget::new(1000);
        let (mut one, mut other) = (Share::of(&budget), Share::of(&budget));
        assert!(one.hold(FREE + 900) && other.hold(FREE + 100));
        assert!(!other.hold(FREE + 101) && other.hold(FREE));
        assert!(one.hold(FREE + 1000) && !other.hold(FREE + 1) && other.hold(FREE));
        drop(one);
        assert!(other.hold(FREE + 1000) && other.holds_much());
        assert!(other.hold(0) && !other.holds_much());
        assert!(other.hold(FREE + 500) && budget.is_plentiful());
        assert!(other.hold(FREE + 501) && !budget.is_plentiful());
    }
}
