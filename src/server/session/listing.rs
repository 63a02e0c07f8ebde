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
        let mut share = Share::of(self.budget);
        if !share.hold(LISTING) {
            return self.fail(&busy("list pairs"));
        }
        let mut part = String::new();
        let mut count = 0;
        let found = find(&mut |pair: Pair| {
            part += &text::pair(&pair);
            count += 1;
            if part.len() < PART {
                return Ok(());
            }
            self.send_part(&std::mem::take(&mut part))
        });
        match found.and_then(|()| self.send_part(&part)) {
            Ok(()) => self.reply(&text::end(count)),
            Err(failure) => return self.fail(&failure),
        }
        Next::Serve
    }

    fn send_part(&self, lines: &str) -> Result<(), Failure> {
        let sent = self.replies.send(lines.as_bytes());
        self.replies.drain(0);
        if self.replies.closed() {
            return Err(Failure::Unavailable("the client has gone".to_owned()));
        }
        if sent {
            Ok(())
        } else {
            Err(busy("are sent long replies"))
        }
    }

    pub(super) fn delete(&self, find: impl FnOnce(Emit) -> Result<(), Failure>) -> Next {
        let mut share = Share::of(self.budget);
        if !share.hold(LISTING) {
            return self.fail(&busy("delete pairs"));
        }
        match self.node.delete_found(find) {
            Ok(count) => self.reply(&format!("OK {count}\n")),
            Err(failure) => return self.fail(&failure),
        }
        Next::Serve
    }
}
