//! Empties a group, so that its space can be had back.

use std::sync::Arc;

use super::super::Node;
use super::super::drive::await_outcome;
use super::healing::no_group;
use crate::error::Failure;
use crate::protocol::group::{GroupName, page_of, sizes};
use crate::protocol::{Change, Outcome, Verdict};
use crate::transport;

/// How many pages are emptied at a time.
const PAGES_AT_A_TIME: usize = 32;

impl Node {
    /// Empties a group, and returns the number of its last message.
    ///
    /// # Errors
    /// Those of a write. `UNKNOWN` if the group is empty now and some of its pages are not.
    pub fn trim(self: &Arc<Node>, name: &GroupName) -> Result<u64, Failure> {
        let outcome = await_outcome(&self.begin(name.key(), Some(Change::Trim)))?;
        let Outcome::Decided(Verdict::Answered(answer)) = outcome else {
            let text = "it was done, but the number is not known any more";
            return Err(Failure::Unknown(text.to_owned()));
        };
        let last: u64 = answer.parse().map_err(|_| no_group(name))?;
        // A page that goes on after the last message is not stored yet.
        let end = page_of(last + 1);
        let pages: Vec<u64> = (end.saturating_sub(sizes().pages)..end).collect();
        for pages in pages.chunks(PAGES_AT_A_TIME) {
            self.empty_pages(name, pages).map_err(|failure| {
                let text = failure.text();
                Failure::Unknown(format!(
                    "#{name} is empty, but some of its pages take space yet; repeat the request. The cause: {text}"
                ))
            })?;
        }
        Ok(last)
    }

    /// Empties these pages where they are. A page that has taken the place of one meanwhile stays.
    fn empty_pages(self: &Arc<Node>, name: &GroupName, pages: &[u64]) -> Result<(), Failure> {
        let empty = |page: &u64| {
            let change = Change::TrimPage(*page);
            self.begin(name.page_key(*page), Some(change))
        };
        let begun: Vec<_> = transport::batch(|| pages.iter().map(empty).collect());
        begun
            .iter()
            .try_for_each(|result| await_outcome(result).map(drop))
    }
}
