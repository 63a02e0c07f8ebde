//! Zeros that are written in advance behind the end of a file that is synced often.
//!
//! A sync of a file that has grown must also write the new length, at a second place of the disk. So
//! zeros are kept behind the appended bytes, and most appends only overwrite some of them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A buffer that is larger than this after use shrinks to it, in bytes.
const KEPT_BUFFER: usize = 1 << 20;

/// A file that grows at its end, with zeros behind that.
pub struct PreallocatedFile {
    pub file: File,
    /// How many zeros are written at a time, in bytes; 0 for none.
    zeros: usize,
    /// Where the next bytes go.
    end: u64,
    /// The length of the file, with the zeros behind its end.
    allocated: u64,
    buffer: Vec<u8>,
}

impl PreallocatedFile {
    /// An empty file that gets `zeros` bytes of zeros at a time.
    pub fn new(file: File, zeros: usize) -> PreallocatedFile {
        PreallocatedFile {
            file,
            zeros,
            end: 0,
            allocated: 0,
            buffer: Vec::new(),
        }
    }

    /// Writes bytes at the end, and new zeros behind them if too few are left.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.end + bytes.len() as u64;
        if end <= self.allocated || self.zeros == 0 {
            self.file.write_all_at(bytes, self.end)?;
        } else {
            self.buffer.extend_from_slice(bytes);
            self.buffer.resize(bytes.len() + self.zeros, 0);
            self.file.write_all_at(&self.buffer, self.end)?;
            self.allocated = end + self.zeros as u64;
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
    use crate::storage::frame::{self, FrameError, Frames};

    const SECTOR: usize = 512;

    /// A loss of power may leave any sectors of the last write as they were before. That must not
    /// damage an earlier frame, though one may end in the sector where the last write begins.
    #[test]
    fn a_write_that_was_interrupted_leaves_all_earlier_frames_whole() {
        let path = std::env::temp_dir().join(format!("dynamo-preallocated-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        let mut file = PreallocatedFile::new(file, 4096);
        let mut chance = fastrand::Rng::with_seed(1);
        let mut before = Vec::new();
        for number in 0..200 {
            let payload = vec![b'a' + (number % 26) as u8; chance.usize(1..3000)];
            let mut frame = Vec::new();
            frame::encode(&payload, &mut frame);
            file.write(&frame).unwrap();
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
                let damaged =
                    |frame: &Result<_, _>| matches!(frame, Err(FrameError::Damaged { .. }));
                assert!(whole >= number && !read.iter().any(damaged), "{read:?}");
            }
            before = after;
        }
        fs::remove_file(&path).unwrap();
    }
}
