//! The digests that anti-entropy compares. Where they are equal, two replicas hold the same accepted
//! ballots.

use sha1::{Digest, Sha1};

use crate::bytes::Key;
use crate::protocol::Ballot;
use crate::protocol::ring::Position;

/// How many buckets the keys of a range are spread over.
pub const BUCKETS: usize = 1024;

/// The bucket of a key, which has one digest.
#[derive(Clone, Copy)]
pub struct Bucket {
    pub range: u16,
    /// Below [`BUCKETS`].
    pub number: u16,
}

impl Bucket {
    /// The bucket of a key at this position of a range.
    pub fn new(range: usize, position: Position) -> Bucket {
        Bucket {
            range: range as u16,
            number: position.low_bits() % BUCKETS as u16,
        }
    }
}

/// For each range and bucket the exclusive or of the digests of its keys.
#[derive(Clone)]
pub struct Digests(Vec<Vec<u64>>);

impl Digests {
    /// The digests of so many ranges without keys.
    pub fn new(ranges: usize) -> Digests {
        Digests(vec![vec![0; BUCKETS]; ranges])
    }

    /// Replaces the digest of a key in its bucket; 0 stands for none.
    pub fn replace(&mut self, Bucket { range, number }: Bucket, old: u64, new: u64) {
        self.0[range as usize][number as usize] ^= old ^ new;
    }

    /// The digests of a range's buckets.
    pub fn of_range(&self, range: usize) -> &[u64] {
        &self.0[range]
    }
}

/// A hash of a key and its accepted ballot; 0 for a key without an accepted state.
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
