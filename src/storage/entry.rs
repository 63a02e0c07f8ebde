//! What a line of the log or of a snapshot says.

use serde::{Deserialize, Serialize};

use crate::bytes::Key;
use crate::protocol::{Ballot, Fence, Record, Update};

/// One line of JSON in the log or in a snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogEntry {
    /// A vote: in the log.
    Vote { key: Key, update: Update },
    /// A whole record: in a snapshot.
    Record { key: Key, record: Record },
    /// A tombstone that every replica of its key holds or is past, or a promise alone, at
    /// [`Ballot::ZERO`]: in the log.
    Dropped { key: Key, ballot: Ballot },
    /// What stands for the keys that were dropped.
    Fence(Fence),
    /// This node may number its writes up to here.
    Sequences(u64),
    /// The last line of a snapshot, with the number of its records.
    End(u64),
}

impl LogEntry {
    /// Appends the entry to `out`, with its line feed.
    pub fn encode(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(&mut *out, self)
            .expect("maps have text keys, and a vector takes all");
        out.push(b'\n');
    }
}
