//! What is about many pairs: listings, at the pace of the client, and deletions.

use super::{Next, Session};
use crate::error::Failure;
use crate::node::listing::{Emit, Pair};
use crate::server::text::{self, busy};
use crate::transport::Share;

/// Bytes that a listing takes: a page of each replica, and the part that waits for the client.
const LISTING: usize = 8 << 20;
/// A part of a listing that is sent at a time.
const PART: usize = 64 << 10;

impl Session<'_> {
    /// Prints pairs as they are found, at the pace of the client.
    pub(super) fn list(&self, find: impl FnOnce(Emit) -> Result<(), Failure>) -> Next {
        self.serve_many("list pairs", || {
            let mut part = String::new();
            let mut count = 0;
            find(&mut |pair: Pair| {
                part += &text::pair(&pair);
                count += 1;
                if part.len() < PART {
                    return Ok(());
                }
                self.send_part(&std::mem::take(&mut part))
            })?;
            self.send_part(&part)?;
            Ok(text::end(count))
        })
    }

    pub(super) fn delete(&self, find: impl FnOnce(Emit) -> Result<(), Failure>) -> Next {
        self.serve_many("delete pairs", || {
            let count = self.node.delete_found(find)?;
            Ok(format!("OK {count}\n"))
        })
    }

    /// Replies with what `work` returns, if there is memory for it.
    pub(super) fn serve_many(
        &self,
        doing: &str,
        work: impl FnOnce() -> Result<String, Failure>,
    ) -> Next {
        let _quiet = self.participant.quiet();
        let mut share = Share::of(self.budget);
        if !share.hold(LISTING) {
            return self.fail(&busy(doing));
        }
        match work() {
            Ok(reply) => self.reply(&reply),
            Err(failure) => return self.fail(&failure),
        }
        Next::Serve
    }

    pub(super) fn send_part(&self, lines: &str) -> Result<(), Failure> {
        let sent = self.replies.send(lines.as_bytes());
        self.replies.drain(0);
        if self.replies.closed() {
            return Err(Failure::Unavailable("the client has gone".to_owned()));
        }
        sent.then_some(())
            .ok_or_else(|| busy("are sent long replies"))
    }
}
