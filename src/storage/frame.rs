//! Frames: the format of logs and snapshots, whose checksums reveal damage.
//!
//! A frame is one group of the log, or a part of a snapshot. It has a header of 27 characters (the
//! payload's length, its CRC-32, and the CRC-32 of these two, in hexadecimal) and a payload, which is
//! lines of JSON. So any pager can show a log. Zeros may follow the last frame, since they are
//! written in advance. A log that is followed by another ends with a frame without a payload: without
//! it, nobody would notice that frames are missing from the end.
//!
//! A frame is *torn* if a crash interrupted its write: the file ends before the frame does, or some of
//! its sectors never reached the disk and read as zeros, which text does not contain. Nothing in it
//! was acknowledged, and nothing can follow it, since the next frame is written after this one is
//! synced. Anything else that does not fit is *damage*: a vote may have been forgotten.

use std::fmt;
use std::io::Write;

const HEADER: usize = 27;
/// A disk writes so many bytes whole or not at all.
const SECTOR: usize = 512;

/// The payload of the last frame of a log that is followed by another.
pub const END: &[u8] = &[];

/// Puts a header in front of a payload and appends both to `out`.
pub fn encode(payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&header(payload.len(), crc32fast::hash(payload)));
    out.extend_from_slice(payload);
}

fn header(length: usize, checksum: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let (fields, check) = header.split_at_mut(HEADER - 10);
    let fits = "three numbers of eight digits";
    write!(&mut *fields, "{length:08x} {checksum:08x}").expect(fits);
    writeln!(&mut *check, " {:08x}", crc32fast::hash(fields)).expect(fits);
    header
}

/// Why there is no whole frame where one should be. Offsets are in bytes from the start of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// A crash interrupted the write of the last frame.
    Torn { offset: u64 },
    /// The bytes are not those that were written.
    Damaged { offset: u64 },
    /// The file ends without the frame that marks its end, though another log follows.
    CutOff { offset: u64 },
    /// The whole file is missing.
    Missing,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Torn { offset } => write!(f, "torn frame at byte {offset}"),
            FrameError::Damaged { offset } => write!(f, "damaged frame at byte {offset}"),
            FrameError::CutOff { offset } => write!(f, "cut off at byte {offset}"),
            FrameError::Missing => f.write_str("the file is missing"),
        }
    }
}

/// Iterates over the payloads of a file's frames. It ends after the first error.
pub struct Frames<'a> {
    bytes: &'a [u8],
    offset: usize,
    ended: bool,
}

impl<'a> Frames<'a> {
    pub fn new(bytes: &'a [u8]) -> Frames<'a> {
        Frames {
            bytes,
            offset: 0,
            ended: false,
        }
    }

    /// Where the next frame starts.
    pub fn offset(&self) -> u64 {
        self.offset as u64
    }

    /// Tells a torn frame from a damaged one, and ends the iteration.
    fn error(&mut self) -> FrameError {
        self.ended = true;
        let offset = self.offset as u64;
        let rest = &self.bytes[self.offset..];
        // If its header cannot be read, the frame is taken to be the header alone.
        let length = HEADER + parse_header(rest).map_or(0, |(payload, _)| payload);
        let cut_short = rest.len() < length;
        let has_holes = has_hole(&rest[..rest.len().min(length)], self.offset);
        if (cut_short || has_holes) && !frame_follows(rest) {
            FrameError::Torn { offset }
        } else {
            FrameError::Damaged { offset }
        }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<&'a [u8], FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.offset..];
        if self.ended || all_zero(rest) {
            return None;
        }
        match parse_frame(rest) {
            Some(payload) => {
                self.offset += HEADER + payload.len();
                Some(Ok(payload))
            }
            None => Some(Err(self.error())),
        }
    }
}

fn all_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Whether a part of the frame never reached the disk: its last byte is zero, or all of its bytes in one
/// sector are. A single flipped bit causes neither, since a frame ends with a line feed.
fn has_hole(frame: &[u8], offset: usize) -> bool {
    let (first, others) = frame.split_at(frame.len().min(SECTOR - offset % SECTOR));
    let mut sectors = others.chunks(SECTOR);
    frame.last() == Some(&0) || all_zero(first) || sectors.any(all_zero)
}

fn frame_follows(rest: &[u8]) -> bool {
    (1..rest.len()).any(|start| parse_frame(&rest[start..]).is_some())
}

fn parse_frame(bytes: &[u8]) -> Option<&[u8]> {
    let (length, checksum) = parse_header(bytes)?;
    let payload = bytes.get(HEADER..HEADER + length)?;
    (crc32fast::hash(payload) == checksum).then_some(payload)
}

fn parse_header(bytes: &[u8]) -> Option<(usize, u32)> {
    let bytes: &[u8; HEADER] = bytes.first_chunk()?;
    if bytes[8] != b' ' || bytes[17] != b' ' {
        return None;
    }
    let number = |digits: &[u8]| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    let (length, checksum) = (number(&bytes[..8])? as usize, number(&bytes[9..17])?);
    (header(length, checksum) == *bytes).then_some((length, checksum))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOADS: [&[u8]; 3] = [b"{\"a\":1}\n", b"{\"b\":2}\n{\"c\":3}\n", b"{}\n"];

    fn file() -> Vec<u8> {
        let mut file = Vec::new();
        PAYLOADS
            .iter()
            .for_each(|payload| encode(payload, &mut file));
        file
    }

    fn read(file: &[u8]) -> (usize, Option<FrameError>) {
        let frames: Vec<_> = Frames::new(file).collect();
        let whole = frames.iter().filter(|frame| frame.is_ok()).count();
        for (frame, expected) in frames.iter().zip(PAYLOADS) {
            assert!(frame.is_err() || *frame == Ok(expected));
        }
        (whole, frames.last().and_then(|frame| frame.err()))
    }

    #[test]
    fn frames_are_read_back_with_or_without_zeros_behind_them() {
        let mut bytes = file();
        assert_eq!(read(&bytes), (3, None));
        bytes.resize(bytes.len() + 100, 0);
        assert_eq!(read(&bytes), (3, None));
        assert_eq!(read(&[]), (0, None));
    }

    #[test]
    fn a_file_cut_at_any_byte_of_its_last_frame_is_torn_there() {
        let bytes = file();
        let last = bytes.len() - HEADER - PAYLOADS[2].len();
        assert_eq!(read(&bytes[..last]), (2, None));
        for cut in last + 1..bytes.len() {
            let torn = Some(FrameError::Torn {
                offset: last as u64,
            });
            assert_eq!(read(&bytes[..cut]), (2, torn), "cut at {cut}");
            let mut padded = bytes[..cut].to_vec();
            padded.resize(bytes.len() + 50, 0);
            assert_eq!(read(&padded), (2, torn), "cut at {cut}, zeros behind");
        }
    }

    /// The frames have several sectors, and one flipped bit makes an `@` zero.
    #[test]
    fn a_lost_sector_of_the_last_frame_is_a_tear_and_a_flipped_bit_in_it_is_none() {
        let payload = [[b'@'; 2 * SECTOR + 100].as_slice(), b"\n"].concat();
        for before in 0..SECTOR {
            let mut bytes = Vec::new();
            encode(&vec![b'\n'; before], &mut bytes);
            let offset = bytes.len();
            encode(&payload, &mut bytes);
            let broken = |bytes: &[u8]| Frames::new(bytes).find_map(Result::err);
            let at = offset as u64;
            for start in (0..bytes.len()).step_by(SECTOR) {
                let end = bytes.len().min(start + SECTOR);
                let sector = start.max(offset)..end;
                if sector.is_empty() {
                    continue;
                }
                let mut flipped = bytes.clone();
                // This clears one bit, the only one of an `@`.
                flipped[end - 1] &= flipped[end - 1] - 1;
                let damaged = Some(FrameError::Damaged { offset: at });
                assert!(
                    end <= offset + HEADER || broken(&flipped) == damaged,
                    "{before} {start}"
                );
                let mut lost = bytes.clone();
                lost[sector].fill(0);
                let torn = Some(FrameError::Torn { offset: at });
                assert_eq!(broken(&lost), torn, "{before} {start}");
            }
        }
    }

    #[test]
    fn a_page_of_the_last_frame_that_never_reached_the_disk_is_a_tear() {
        let bytes = file();
        let last = bytes.len() - HEADER - PAYLOADS[2].len();
        for hole in last + 1..bytes.len() {
            let mut torn = bytes.clone();
            torn[hole..].fill(0);
            assert_eq!(
                read(&torn),
                (
                    2,
                    Some(FrameError::Torn {
                        offset: last as u64
                    })
                )
            );
        }
    }

    #[test]
    fn any_flipped_bit_is_damage() {
        let written = file().len();
        let mut bytes = file();
        bytes.resize(written + 50, 0);
        for byte in 0..written {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[byte] ^= 1 << bit;
                let (_, broken) = read(&flipped);
                assert!(
                    matches!(broken, Some(FrameError::Damaged { .. })),
                    "bit {bit} of {byte}"
                );
            }
        }
    }

    #[test]
    fn zeros_in_front_of_a_whole_frame_are_damage() {
        let mut bytes = file();
        bytes[..30].fill(0);
        assert_eq!(read(&bytes), (0, Some(FrameError::Damaged { offset: 0 })));
    }
}
