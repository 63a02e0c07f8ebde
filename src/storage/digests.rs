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

    /// The digest of this bucket among those of all ranges.
    pub fn of(self, ranges: &mut [BucketDigests]) -> &mut u64 {
        &mut ranges[self.range as usize][self.number as usize]
    }
}

/// For each bucket of a range the exclusive or of the digests of its keys.
pub type BucketDigests = [u64; BUCKETS];

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
