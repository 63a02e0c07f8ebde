//! Zeros written ahead of the end of a file that is synced often.
//!
//! A sync of a file that has grown must also write its new length, in a second place of the disk. So
//! zeros are kept behind what was appended, and most appends lie within what is there already.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A buffer larger than this is given back to the allocator after use, in bytes.
const KEPT_BUFFER: usize = 1 << 20;

/// The end of such a file.
pub struct Ahead {
    /// How many zeros are written at a time, in bytes; 0 for none.
    ahead: usize,
    /// Where the next bytes go.
    end: u64,
    /// Up to here the file is written, with zeros behind its end.
    written: u64,
    buffer: Vec<u8>,
}

impl Ahead {
    pub fn new(ahead: usize) -> Ahead {
        Ahead {
            ahead,
            end: 0,
            written: 0,
            buffer: Vec::new(),
        }
    }

    /// Writes bytes behind those written before, and zeros behind them where none are left.
    pub fn append(&mut self, file: &File, bytes: &[u8]) -> io::Result<()> {
        let end = self.end + bytes.len() as u64;
        if end <= self.written || self.ahead == 0 {
            file.write_all_at(bytes, self.end)?;
        } else {
            self.buffer.extend_from_slice(bytes);
            self.buffer.resize(bytes.len() + self.ahead, 0);
            file.write_all_at(&self.buffer, self.end)?;
            self.written = end + self.ahead as u64;
            self.buffer.clear();
            self.buffer.shrink_to(KEPT_BUFFER);
        }
        self.end = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::storage::frame::{self, Broken, Frames};

    const SECTOR: usize = 512;

    /// A loss of power leaves any of the sectors of the last write as they were: no earlier frame
    /// suffers from it, though one of them may end in the sector where it begins.
    #[test]
    fn a_write_that_was_interrupted_leaves_all_earlier_frames_whole() {
        let path = std::env::temp_dir().join(format!("dynamo-ahead-of-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        let mut ahead = Ahead::new(4096);
        let mut chance = fastrand::Rng::with_seed(1);
        let mut before = Vec::new();
        for number in 0..200 {
            let payload = vec![b'a' + (number % 26) as u8; chance.usize(1..3000)];
            let mut frame = Vec::new();
            frame::encode(&payload, &mut frame);
            ahead.append(&file, &frame).unwrap();
            let after = fs::read(&path).unwrap();
            for _ in 0..20 {
                let mut torn = after.clone();
                for (sector, old) in torn.chunks_mut(SECTOR).zip(before.chunks(SECTOR)) {
                    if chance.bool() {
                        // Behind the end of a file there are zeros.
                        sector[..old.len()].copy_from_slice(old);
                        sector[old.len()..].fill(0);
                    }
                }
                let read: Vec<_> = Frames::new(&torn).collect();
                let whole = read.iter().filter(|frame| frame.is_ok()).count();
                let damaged = |frame: &Result<_, _>| matches!(frame, Err(Broken::Damaged { .. }));
                assert!(whole >= number && !read.iter().any(damaged), "{read:?}");
            }
            before = after;
        }
        fs::remove_file(&path).unwrap();
    }
}
