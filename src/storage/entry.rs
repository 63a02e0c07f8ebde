//! The entries of logs and snapshots.

use serde::{Deserialize, Serialize};

use crate::bytes::Key;
use crate::protocol::chain::epoch::Adopted;
use crate::protocol::{Ballot, Fence, Record, Update};

/// One entry, which is a line of JSON in a log or in a snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogEntry {
    /// In a log: this replica promised a ballot or accepted a state.
    Vote { key: Key, update: Update },
    /// In a snapshot: the whole record of a key.
    Record { key: Key, record: Record },
    /// In a log: the record of a key was dropped. It held a tombstone that was accepted at this
    /// ballot and that every replica of the key holds or is past, or, at [`Ballot::ZERO`], a promise alone.
    Dropped { key: Key, ballot: Ballot },
    /// In both: what replaces the records of the dropped keys of a range. A folder of an earlier release has one
    /// for all ranges together.
    Fence {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        range: Option<usize>,
        #[serde(flatten)]
        fence: Fence,
    },
    /// In both: this replica has adopted an epoch for a range.
    Adopted { range: usize, adopted: Adopted },
    /// In both: this node may number its writes up to here.
    Sequences(u64),
    /// The last line of a snapshot, with the number of its records: a shorter one is not whole.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_of_an_earlier_release_is_that_of_every_range() {
        let line = r#"{"fence":{"promised":[4,5554,0],"floor":[[5554,7]]}}"#;
        let Ok(LogEntry::Fence { range: None, fence }) = serde_json::from_str(line) else {
            panic!("not understood: {line}")
        };
        let (range, mut written) = (Some(3), Vec::new());
        LogEntry::Fence { range, fence }.encode(&mut written);
        let expected = r#"{"fence":{"range":3,"promised":[4,5554,0],"floor":[[5554,7]]}}"#;
        assert_eq!(String::from_utf8(written).unwrap().trim_end(), expected);
    }
}
