//! How large the parts of a group may become. Tests make them small, so that every limit is met.

/// The limits of one group. Pages and senders are part of the format: they cannot change.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// How many messages a page has.
    pub page: u64,
    /// How many pages are kept.
    pub pages: u64,
    /// How many senders are remembered.
    pub senders: usize,
    /// How many messages may be open.
    pub open: usize,
    /// How many messages may be appended at once. Their fates fit into an answer.
    pub batch: usize,
    /// How many messages may wait for earlier ones at a node. Beyond that the highest are dropped: they
    /// can be read.
    pub ahead: usize,
    /// How many bytes of recent messages a node keeps.
    pub recent: usize,
}

const SIZES: Sizes = Sizes {
    page: 32,
    pages: 1024,
    senders: 128,
    open: 128,
    batch: 32,
    ahead: 1024,
    recent: 256 << 10,
};

#[cfg(debug_assertions)]
pub use switch::{set_sizes, sizes};

#[cfg(debug_assertions)]
mod switch {
    use std::cell::Cell;

    use super::{SIZES, Sizes};

    thread_local! {
        static ON_THIS_THREAD: Cell<Sizes> = const { Cell::new(SIZES) };
    }

    /// Sets other sizes on this thread.
    pub fn set_sizes(sizes: Sizes) {
        ON_THIS_THREAD.set(sizes);
    }

    /// The sizes in force.
    pub fn sizes() -> Sizes {
        ON_THIS_THREAD.get()
    }
}

/// The sizes in force.
#[cfg(not(debug_assertions))]
pub const fn sizes() -> Sizes {
    SIZES
}
