//! Writing in whole blocks, past the page cache.
//!
//! A sync of what is in the page cache looks for it there, writes it, and only then flushes the
//! disk's own cache. What was written past it needs the flush alone. It takes whole blocks from
//! aligned memory. So the last block is written again with each append, as the page cache would do.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::io::Errno;

/// A multiple of the block size of every usual disk, in bytes.
const BLOCK: usize = 4096;
/// A buffer larger than this is given back to the allocator after use, in bytes.
const KEPT_BUFFER: usize = 1 << 20;

#[cfg(target_os = "linux")]
const DIRECT: i32 = rustix::fs::OFlags::DIRECT.bits() as i32;
/// Through the page cache, where it has another name.
#[cfg(not(target_os = "linux"))]
const DIRECT: i32 = 0;

/// Opens an empty file for [`Blocks`]: past the page cache if the file system can do that. Some say
/// that they cannot only when something is written.
pub fn open(options: &OpenOptions, path: &Path) -> io::Result<File> {
    let direct = options.clone().custom_flags(DIRECT).open(path);
    let written = direct.and_then(|file| {
        Blocks::new(0).append(&file, &[0])?;
        Ok(file)
    });
    let cannot = |error: &io::Error| {
        let code = |errno: Errno| Some(errno.raw_os_error());
        [code(Errno::INVAL), code(Errno::OPNOTSUPP)].contains(&error.raw_os_error())
    };
    match written {
        Err(error) if cannot(&error) => options.open(path),
        opened => opened,
    }
}

/// The end of a file that grows by whole blocks.
pub struct Blocks {
    /// Zeros that are written behind the end at a time, in bytes.
    ahead: usize,
    /// Where the last block begins.
    start: u64,
    /// What is in the last block.
    last: Vec<u8>,
    /// Up to here the file is written, with zeros at its end.
    written: u64,
    buffer: Vec<u8>,
}

impl Blocks {
    pub fn new(ahead: usize) -> Blocks {
        Blocks {
            ahead: ahead.next_multiple_of(BLOCK),
            start: 0,
            last: Vec::new(),
            written: 0,
            buffer: Vec::new(),
        }
    }

    /// Writes bytes behind those written before.
    pub fn append(&mut self, file: &File, bytes: &[u8]) -> io::Result<()> {
        let filled = self.last.len() + bytes.len();
        let mut whole = filled.next_multiple_of(BLOCK);
        if self.start + whole as u64 > self.written {
            whole += self.ahead;
        }
        self.buffer.reserve(BLOCK + whole);
        let aligned = self.buffer.as_ptr().align_offset(BLOCK);
        self.buffer.resize(aligned, 0);
        self.buffer.extend_from_slice(&self.last);
        self.buffer.extend_from_slice(bytes);
        self.buffer.resize(aligned + whole, 0);
        let blocks = &self.buffer[aligned..];
        file.write_all_at(blocks, self.start)?;
        self.written = self.written.max(self.start + whole as u64);
        let last = filled - filled % BLOCK;
        self.last.clear();
        self.last.extend_from_slice(&blocks[last..filled]);
        self.start += last as u64;
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BUFFER);
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
    /// suffers from it, though its bytes were written again.
    #[test]
    fn a_write_that_was_interrupted_leaves_all_earlier_frames_whole() {
        let path = std::env::temp_dir().join(format!("dynamo-blocks-{}", std::process::id()));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let file = open(&options, &path).unwrap();
        let mut blocks = Blocks::new(BLOCK);
        let mut chance = fastrand::Rng::with_seed(1);
        let mut before = fs::read(&path).unwrap();
        for number in 0..200 {
            let payload = vec![b'a' + (number % 26) as u8; chance.usize(1..3000)];
            let mut frame = Vec::new();
            frame::encode(&payload, &mut frame);
            blocks.append(&file, &frame).unwrap();
            let after = fs::read(&path).unwrap();
            for _ in 0..20 {
                let mut torn = after.clone();
                for (sector, old) in torn.chunks_mut(SECTOR).zip(before.chunks(SECTOR)) {
                    if chance.bool() {
                        sector.copy_from_slice(old);
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
