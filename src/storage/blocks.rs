//! Writing in whole blocks, past the page cache.
//!
//! A sync of what is in the page cache looks for it there, writes it, and only then flushes the
//! disk's own cache. What was written past it needs the flush alone; and what the disk cannot write
//! fails the write itself. It takes whole blocks from aligned memory. So the last block is written
//! again with each append, as the page cache would do.

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

/// Opens a file for [`Blocks`]: past the page cache if the file system can do that.
pub fn open(options: &OpenOptions, path: &Path) -> io::Result<File> {
    match options.clone().custom_flags(DIRECT).open(path) {
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
            options.open(path)
        }
        opened => opened,
    }
}

/// The end of a file that grows by whole blocks.
pub struct Blocks {
    /// Zeros that are written behind the end at a time, in bytes.
    ahead: usize,
    /// Where the last block begins,
    start: u64,
    /// and what is in it.
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
