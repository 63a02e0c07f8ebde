//! What a connection carries, as whole lines.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::Duration;

use fastrand::Rng;
use simple_dynamo::transport::Request;
use simple_dynamo::transport::message::Ask;

/// How long lines are gathered before their order is reversed.
const GATHERED: Duration = Duration::from_millis(5);

/// The lines that come on one connection.
pub struct Lines<'a> {
    from: &'a TcpStream,
    /// A line whose end has not come yet.
    partial: Vec<u8>,
    /// Whether the greeting is still to come. No fault befalls it.
    greeting: bool,
}

/// Lines that came together.
pub struct Batch {
    lines: Vec<Vec<u8>>,
    greeting: bool,
    last: bool,
}

impl Lines<'_> {
    pub fn new(from: &TcpStream) -> Lines<'_> {
        Lines {
            from,
            partial: Vec::new(),
            greeting: true,
        }
    }

    /// Waits for at least one whole line, or for the end. With `more` it waits a little for
    /// others.
    pub fn receive(&mut self, more: bool) -> Batch {
        let mut batch = Batch {
            lines: Vec::new(),
            greeting: self.greeting,
            last: false,
        };
        while batch.lines.is_empty() && !batch.last {
            batch.last = !self.read(&mut batch.lines);
        }
        self.greeting = false;
        if more && !batch.last && !batch.greeting {
            self.from.set_read_timeout(Some(GATHERED)).unwrap();
            batch.last = !self.read(&mut batch.lines);
            self.from.set_read_timeout(None).unwrap();
        }
        batch
    }

    /// Reads once. Returns false at the end.
    fn read(&mut self, lines: &mut Vec<Vec<u8>>) -> bool {
        let mut bytes = [0; 16 << 10];
        let count = match self.from.read(&mut bytes) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) => {
                return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            }
        };
        for piece in bytes[..count].split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                lines.push(std::mem::take(&mut self.partial));
            }
        }
        true
    }
}

impl Batch {
    /// Whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        self.last
    }

    /// Doubles the lines, or reverses their order. Copies come after all other lines. Returns whether that changed
    /// anything.
    pub fn befall(&mut self, doubled: bool, disordered: bool) -> bool {
        if self.greeting {
            return false;
        }
        let before = self.lines.len();
        let disorders = disordered && before > 1;
        if disorders {
            self.lines.reverse();
        }
        if doubled {
            let repeatable = self.lines.iter().filter(|line| may_come_twice(line));
            let copies: Vec<Vec<u8>> = repeatable.cloned().collect();
            self.lines.extend(copies);
        }
        disorders || self.lines.len() > before
    }

    /// Takes out about half of the lines by chance. These come later.
    pub fn take_stragglers(&mut self, rng: &mut Rng) -> Vec<Vec<u8>> {
        if self.greeting {
            return Vec::new();
        }
        self.lines.extract_if(.., |_| rng.bool()).collect()
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.lines.concat()
    }
}

/// Whether a line may come twice. After a reset nodes send everything again except requests to a
/// coordinator, whose answer "nothing was done" holds for one copy alone.
fn may_come_twice(line: &[u8]) -> bool {
    !matches!(
        serde_json::from_slice(line),
        Ok(Ask {
            ask: Request::Coordinate { .. },
            ..
        })
    )
}
