//! The digests that anti-entropy compares: two replicas hold the same accepted ballots where they are
//! equal.

use sha1::{Digest, Sha1};

use crate::bytes::Key;
use crate::protocol::Ballot;
use crate::protocol::ring::Position;

/// How many buckets the keys of a range are spread over.
pub const BUCKETS: usize = 1024;

/// Where anti-entropy looks for a key.
#[derive(Clone, Copy)]
pub struct Place {
    pub range: u16,
    pub bucket: u16,
}

impl Place {
    /// The place of a key at this position of a range.
    pub fn new(range: usize, position: Position) -> Place {
        Place {
            range: range as u16,
            bucket: position.low_bits() % BUCKETS as u16,
        }
    }
}

/// Per range and bucket the exclusive or of the digests of its keys.
#[derive(Clone)]
pub struct Digests(Vec<Vec<u64>>);

impl Digests {
    /// Those of so many ranges without any key.
    pub fn new(ranges: usize) -> Digests {
        Digests(vec![vec![0; BUCKETS]; ranges])
    }

    /// The digest of a key at this place changes; 0 stands for none.
    pub fn replace(&mut self, Place { range, bucket }: Place, old: u64, new: u64) {
        self.0[range as usize][bucket as usize] ^= old ^ new;
    }

    /// The digests of a range's buckets.
    pub fn of_range(&self, range: usize) -> &[u64] {
        &self.0[range]
    }
}

/// 64 bits that tell (key, ballot) from any other; 0 for a key without an accepted state.
pub fn digest(key: &Key, ballot: Ballot) -> u64 {
    if ballot == Ballot::ZERO {
        return 0;
    }
    let hash = Sha1::new()
        .chain_update(ballot.round.to_be_bytes())
        .chain_update(ballot.node.0.to_be_bytes())
        .chain_update(ballot.step.to_be_bytes())
        .chain_update(key.as_slice())
        .finalize();
    u64::from_be_bytes(*hash.first_chunk().expect("a SHA-1 hash has 20 bytes"))
}
