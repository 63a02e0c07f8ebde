//! Where a key belongs, computed from the assignment and not by the store.

use sha1::{Digest, Sha1};

/// How many nodes hold each key.
const REPLICAS: usize = 3;

fn position(text: &str) -> [u8; 20] {
    Sha1::digest(text).into()
}

/// The nodes that hold a key, its coordinator first: the first node at or after the key's hash on
/// the ring, and the two after it.
pub fn replicas(nodes: &[u32], key: &str) -> Vec<u32> {
    let mut ring = nodes.to_vec();
    ring.sort_by_key(|node| position(&node.to_string()));
    let key = position(key);
    let successor = ring
        .iter()
        .position(|node| position(&node.to_string()) >= key);
    let from = ring.into_iter().cycle().skip(successor.unwrap_or(0));
    from.take(REPLICAS).collect()
}
