//! Which node is tried, and which next.

use std::time::{Duration, Instant};

/// How long to wait after each node was tried in vain.
const REST: Duration = Duration::from_millis(500);

/// The nodes of the list, by their places.
pub struct Route {
    nodes: usize,
    node: usize,
    /// Which node was left first since one was joined, and why.
    left: Option<(usize, String)>,
    /// How many nodes were tried in vain since one was joined.
    failures: usize,
}

impl Route {
    pub fn new(first: usize, nodes: usize) -> Route {
        Route {
            nodes,
            node: first,
            left: None,
            failures: 0,
        }
    }

    /// The node that is talked to, or is to be tried.
    pub fn node(&self) -> usize {
        self.node
    }

    /// Which node was left first since one was joined, and why.
    pub fn left(&self) -> Option<(usize, String)> {
        self.left.clone()
    }

    /// The node is joined. Returns what [`Route::left`] did until now.
    pub fn joined(&mut self) -> Option<(usize, String)> {
        self.failures = 0;
        self.left.take()
    }

    /// Leaves the node. Returns when to try the next one.
    pub fn leave(&mut self, why: String, now: Instant) -> Instant {
        self.failures += 1;
        self.left.get_or_insert((self.node, why));
        self.node = (self.node + 1) % self.nodes;
        if self.failures.is_multiple_of(self.nodes) {
            now + REST
        } else {
            now
        }
    }

    /// No node is tried any more, for this reason of the present one.
    pub fn end(&mut self, why: String) {
        self.left = Some((self.node, why));
    }

    /// Whether each node has been tried once in vain, just now.
    pub fn is_exhausted(&self) -> bool {
        self.failures == self.nodes
    }
}
