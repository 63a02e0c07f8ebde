//! Deleting many pairs: `DEL @` and `DEL *`.

use std::sync::Arc;

use super::Node;
use super::drive::await_outcome;
use super::listing::Emit;
use crate::bytes::Key;
use crate::error::Failure;
use crate::protocol::{Change, Outcome, Verdict};
use crate::transport;

/// How many keys are deleted at a time. They share messages and syncs of the disk.
const DELETES_AT_A_TIME: usize = 64;

impl Node {
    /// Deletes each key that `find` hands out. Returns how many of them still had a value.
    ///
    /// # Errors
    /// Those of `find`, as long as no key may have been deleted. After that `UNKNOWN`.
    pub fn delete_found(
        self: &Arc<Node>,
        find: impl FnOnce(Emit) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        let (mut batch, mut deleted) = (Vec::new(), 0);
        find(&mut |pair| {
            batch.push(pair.key);
            if batch.len() < DELETES_AT_A_TIME {
                return Ok(());
            }
            self.delete(std::mem::take(&mut batch), &mut deleted)
        })
        .and_then(|()| self.delete(batch, &mut deleted))
        .map_err(|failure| match failure {
            Failure::Unavailable(_) | Failure::Busy(_) if deleted == 0 => failure,
            _ => Failure::Unknown(format!(
                "{deleted} keys are deleted, and others may be; repeat the request to be sure. The cause: {}",
                failure.text()
            )),
        })?;
        Ok(deleted)
    }

    /// Deletes these keys together, and counts those that still had a value.
    fn delete(self: &Arc<Node>, keys: Vec<Key>, deleted: &mut u64) -> Result<(), Failure> {
        let delete = |key| self.begin(key, Some(Change::Delete));
        let begun: Vec<_> = transport::batch(|| keys.into_iter().map(delete).collect());
        let mut failed = None;
        for result in begun {
            match await_outcome(&result) {
                Ok(Outcome::Decided(Verdict::Applied(_))) => *deleted += 1,
                Ok(_) => {}
                Err(failure) => failed = Some(failure),
            }
        }
        match failed {
            // Others of these keys may have been deleted.
            Some(failure) => Err(Failure::Unknown(failure.text().to_owned())),
            None => Ok(()),
        }
    }
}
