//! The receiving side of a connection: lines, with a bound on their length.

use std::io::{self, Read};

use memchr::memchr;

/// How many bytes are read at a time at least.
const CHUNK: usize = 16 << 10;
/// A buffer of more bytes than this is at most twice as long as the unfinished line in it.
const KEPT: usize = 8 * CHUNK;

/// Splits what a connection sends into lines.
pub struct Lines<R> {
    reader: R,
    longest: usize,
    buffer: Vec<u8>,
    /// Where the next line starts.
    start: usize,
    /// Between `start` and here there is no line end.
    searched: usize,
    /// Where the received bytes end.
    end: usize,
}

/// What one read of the connection brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    Bytes(usize),
    /// Nothing came within the read time-out.
    Nothing,
    /// The other side has closed.
    End,
}

/// The error for a line that is longer than allowed.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

impl<R: Read> Lines<R> {
    /// Reads lines of at most `longest` bytes, not counting the line end.
    pub fn new(reader: R, longest: usize) -> Lines<R> {
        Lines {
            reader,
            longest,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            end: 0,
        }
    }

    /// Reads once, waiting no longer than the read time-out of the socket.
    pub fn receive(&mut self) -> io::Result<Received> {
        self.make_room();
        match self.reader.read(&mut self.buffer[self.end..]) {
            Ok(0) => Ok(Received::End),
            Ok(count) => {
                self.end += count;
                Ok(Received::Bytes(count))
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut
                | io::ErrorKind::Interrupted => Ok(Received::Nothing),
                _ => Err(error),
            },
        }
    }

    /// The next whole line that was received, without `\n` or `\r\n`.
    ///
    /// # Errors
    /// If a line, whole or not, is too long.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, TooLong> {
        let unread = &self.buffer[self.searched..self.end];
        let Some(place) = memchr(b'\n', unread) else {
            self.searched = self.end;
            // An unfinished line may end with a `\r` that does not count.
            let is_too_long = self.partial() > self.longest + 1;
            return if is_too_long { Err(TooLong) } else { Ok(None) };
        };
        let line_end = self.searched + place;
        let line = &self.buffer[self.start..line_end];
        self.start = line_end + 1;
        self.searched = self.start;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let is_too_long = line.len() > self.longest;
        if is_too_long {
            Err(TooLong)
        } else {
            Ok(Some(line))
        }
    }

    /// How many bytes of an unfinished line were received.
    pub fn partial(&self) -> usize {
        self.end - self.start
    }

    /// Drops the unfinished line if it ends with this byte.
    pub fn forget_after(&mut self, mark: u8) {
        if self.buffer[self.start..self.end].last() == Some(&mark) {
            self.start = self.end;
            self.searched = self.end;
        }
    }

    /// Allows lines of up to `longest` bytes from now on.
    pub fn allow(&mut self, longest: usize) {
        self.longest = longest;
    }

    /// What the lines are read from.
    pub fn reader(&self) -> &R {
        &self.reader
    }

    /// What the lines are read from, so that it can be changed.
    pub fn reader_mut(&mut self) -> &mut R {
        &mut self.reader
    }

    /// Moves the unfinished line to the front of the buffer, and makes room for a read behind it.
    fn make_room(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.searched -= self.start;
            self.start = 0;
        }
        let room = (2 * self.end).max(self.end + CHUNK);
        if self.buffer.len() > KEPT && self.end < self.buffer.len() / 2 {
            // A long line is gone, and its memory is given back.
            self.buffer.truncate(self.end);
            self.buffer.shrink_to(room);
        }
        if self.buffer.len() < self.end + CHUNK {
            self.buffer.resize(room, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that hands out the pieces one by one.
    struct Pieces(Vec<&'static [u8]>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let piece = self.0.remove(0);
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    fn lines(pieces: Vec<&'static [u8]>, longest: usize) -> (Vec<String>, bool) {
        let mut lines = Lines::new(Pieces(pieces), longest);
        let mut found = Vec::new();
        loop {
            match lines.next_line() {
                Ok(Some(line)) => found.push(String::from_utf8_lossy(line).into_owned()),
                Err(TooLong) => return (found, true),
                Ok(None) => {
                    if lines.receive().unwrap() == Received::End {
                        return (found, false);
                    }
                }
            }
        }
    }

    #[test]
    fn lines_are_whole_however_their_bytes_arrive() {
        let pieces: Vec<&[u8]> = vec![b"on", b"e\ntwo\r", b"\n\nthr", b"ee\n", b"rest"];
        assert_eq!(
            lines(pieces, 10),
            (
                ["one", "two", "", "three"].map(String::from).to_vec(),
                false
            )
        );
    }

    #[test]
    fn a_line_over_the_limit_is_an_error_whether_it_ends_or_not() {
        assert_eq!(
            lines(vec![b"12345\r\n", b"123456\n"], 5),
            (vec!["12345".into()], true)
        );
        assert_eq!(lines(vec![b"1234", b"5678", b"9"], 5), (vec![], true));
    }

    #[test]
    fn the_memory_of_a_long_line_is_given_back_though_half_a_line_follows() {
        let text = "x".repeat(1 << 20) + "\nhalf";
        let mut lines = Lines::new(text.as_bytes(), 1 << 20);
        while lines.next_line().unwrap().is_none() {
            lines.receive().unwrap();
            assert!(lines.buffer.len() <= KEPT.max(2 * lines.partial()));
        }
        while lines.receive().unwrap() != Received::End {}
        assert!(lines.buffer.len() <= KEPT);
        assert_eq!(lines.partial(), 4);
    }
}
