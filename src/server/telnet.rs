//! What telnet puts between the bytes that a person types (RFC 854, RFC 860).

use std::io::{self, Read};

const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WILL: u8 = 251;
const SB: u8 = 250;
const INTERRUPT: u8 = 244;
const SE: u8 = 240;
const TIMING_MARK: u8 = 6;

/// No client has so much to say of itself: what goes on for longer is none.
const LONGEST_SUBNEGOTIATION: usize = 512;

/// Stands where the person interrupted: all of the line before it is void. No UTF-8 contains it.
pub const VOID: u8 = 0xFF;
/// Stands for a byte 255 that is escaped, or begins no command. No UTF-8 contains it either.
const ESCAPED: u8 = 0xFE;

/// The answer to Ctrl-C, without which the client shows nothing more: "won't timing mark".
pub const MARK: [u8; 3] = [IAC, 252, TIMING_MARK];

/// Takes telnet's commands out of what is read.
pub struct Telnet<R> {
    reader: R,
    state: State,
    /// Bytes of the subnegotiation so far.
    subnegotiated: usize,
    marks: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Data,
    Command,
    /// The option of DO, DONT, WILL or WONT follows.
    Option(u8),
    Subnegotiation,
    SubnegotiationCommand,
}

impl<R> Telnet<R> {
    pub fn new(reader: R) -> Telnet<R> {
        Telnet {
            reader,
            state: State::Data,
            subnegotiated: 0,
            marks: 0,
        }
    }

    /// How many times [`MARK`] is to be sent.
    pub fn take_marks(&mut self) -> usize {
        std::mem::take(&mut self.marks)
    }

    /// What a byte leaves in the data, if anything.
    fn step(&mut self, byte: u8) -> Option<u8> {
        let (state, data) = match (self.state, byte) {
            (State::Data, IAC) => (State::Command, None),
            (State::Data, byte) => (State::Data, Some(byte)),
            (State::Command, IAC) => (State::Data, Some(ESCAPED)),
            (State::Command, INTERRUPT) => (State::Data, Some(VOID)),
            (State::Command, WILL..=DONT) => (State::Option(byte), None),
            (State::Command, SB) => (State::Subnegotiation, None),
            // No command: no telnet sent this, and the line is no text. Its end stays its end.
            (State::Command | State::Option(_), b'\n') => (State::Data, Some(byte)),
            (State::Command, ..SE) => (State::Data, Some(ESCAPED)),
            (State::Command, _) => (State::Data, None),
            (State::Option(DO), TIMING_MARK) => {
                self.marks += 1;
                (State::Data, None)
            }
            (State::Option(_), _) => (State::Data, None),
            (State::Subnegotiation, IAC) => (State::SubnegotiationCommand, None),
            (State::SubnegotiationCommand, SE) => (State::Data, None),
            (State::Subnegotiation | State::SubnegotiationCommand, _) => {
                (State::Subnegotiation, None)
            }
        };
        self.subnegotiated = match state {
            State::Subnegotiation | State::SubnegotiationCommand => self.subnegotiated + 1,
            _ => 0,
        };
        self.state = if self.subnegotiated > LONGEST_SUBNEGOTIATION {
            State::Data
        } else {
            state
        };
        data
    }
}

impl<R: Read> Read for Telnet<R> {
    /// Reads at least one byte of data, or reports the end or the error of the reader below;
    /// [`io::ErrorKind::Interrupted`] if all that came were commands.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if self.state == State::Data && !buffer[..count].contains(&IAC) {
            return Ok(count);
        }
        let mut kept = 0;
        for place in 0..count {
            if let Some(byte) = self.step(buffer[place]) {
                buffer[kept] = byte;
                kept += 1;
            }
        }
        if kept == 0 && count > 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(bytes: &[u8]) -> (Vec<u8>, usize) {
        // One byte at a time: a command may be cut anywhere.
        let mut data = Vec::new();
        let mut telnet = Telnet::new(bytes);
        let mut buffer = [0; 1];
        loop {
            match telnet.read(&mut buffer) {
                Ok(0) => return (data, telnet.take_marks()),
                Ok(_) => data.push(buffer[0]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::Interrupted),
            }
        }
    }

    #[test]
    fn negotiation_is_dropped_wherever_it_is_cut() {
        assert_eq!(
            filtered(b"GET\xff\xfd\x01 k\xff\xfb\x1f\n"),
            (b"GET k\n".to_vec(), 0)
        );
        assert_eq!(
            filtered(b"a\xff\xfa\x18\x00x\xff\xff\ny\xff\xf0b"),
            (b"ab".to_vec(), 0)
        );
        assert_eq!(filtered(b"a\xff\xf1b"), (b"ab".to_vec(), 0));
    }

    #[test]
    fn a_byte_that_begins_no_command_is_kept_and_takes_no_end_of_a_line_with_it() {
        assert_eq!(filtered(b"a\xffb\n"), (b"a\xfe\n".to_vec(), 0));
        assert_eq!(filtered(b"a\xff\nb\n"), (b"a\nb\n".to_vec(), 0));
        assert_eq!(filtered(b"a\xff\xfe\nb\n"), (b"a\nb\n".to_vec(), 0));
    }

    #[test]
    fn an_interrupt_voids_the_line_and_its_timing_mark_is_to_be_answered() {
        assert_eq!(
            filtered(b"abc\xff\xf4\xff\xfd\x06d\n"),
            (b"abc\xffd\n".to_vec(), 1)
        );
    }
}
