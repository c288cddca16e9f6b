//! Packets: `u32` length in network order, one letter, payload.
//!
//! The length counts the letter and the payload. Both directions use the same form.

use std::collections::TryReserveError;
use std::fmt;

use bytes::{Buf, BufMut};

use crate::stranger::Stranger;

/// Octets before the payload: four of length and the letter.
pub const HEADER_LEN: usize = 5;

/// Largest payload unless a session negotiated more (`MILTER_MAX_DATA_SIZE`).
pub const DEFAULT_LIMIT: usize = 65_535;

/// Largest payload whatever the limit: lengths are signed 32-bit numbers to the other implementations.
pub const LARGEST_LIMIT: usize = i32::MAX as usize - 1;

/// The start of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The command or reply letter.
    pub code: u8,
    /// Octets of payload that follow.
    pub payload_len: usize,
}

impl Header {
    /// Octets of the whole frame.
    pub fn frame_len(self) -> usize {
        HEADER_LEN + self.payload_len
    }
}

/// Why a frame cannot be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// A length of zero leaves no room for the letter.
    Empty,
    /// More payload than the session allows, or a peer that does not speak milter.
    TooLong {
        /// The announced length as received.
        length: u32,
        /// Largest payload allowed.
        limit: usize,
        /// The first five octets.
        start: [u8; HEADER_LEN],
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Empty => f.write_str("packet of length zero"),
            FrameError::TooLong { length, limit, start } => {
                write!(f, "packet length {length} is beyond the limit of {limit}")?;
                match Stranger::recognise(start) {
                    Some(stranger) => write!(f, ": {stranger}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Looks at the start of `input`.
///
/// `Ok(None)` asks for more input; the caller has the whole frame once [`Header::frame_len`] octets are there. `limit`
/// is the largest payload allowed, in octets, at most [`LARGEST_LIMIT`]; a longer one is refused before any of it is
/// read.
pub fn parse(input: &[u8], limit: usize) -> Result<Option<Header>, FrameError> {
    let limit = limit.min(LARGEST_LIMIT);
    if input.starts_with(&[0; 4]) {
        return Err(FrameError::Empty);
    }
    let Some(start) = input.first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let length = (&start[..]).get_u32();
    match (length as usize).checked_sub(1) {
        None => Err(FrameError::Empty),
        Some(payload_len) if payload_len > limit => Err(FrameError::TooLong { length, limit, start: *start }),
        Some(payload_len) => Ok(Some(Header { code: start[4], payload_len })),
    }
}

/// The header of a frame with `payload_len` bytes of payload.
///
/// # Panics
///
/// If the payload does not fit the 32-bit length.
pub fn header(code: u8, payload_len: usize) -> [u8; HEADER_LEN] {
    let length = u32::try_from(payload_len + 1).expect("payload fits a 32-bit length");
    let [a, b, c, d] = length.to_be_bytes();
    [a, b, c, d, code]
}

/// Appends the header of a frame with `payload_len` bytes of payload.
///
/// # Panics
///
/// If the payload does not fit the 32-bit length.
pub fn put_header(out: &mut Vec<u8>, code: u8, payload_len: usize) {
    out.put_slice(&header(code, payload_len));
}

/// Appends a frame whose payload is the concatenation of `parts`. Fails, and appends nothing, when there is no memory.
///
/// # Panics
///
/// If the payload does not fit the 32-bit length.
pub fn try_put(out: &mut Vec<u8>, code: u8, parts: &[&[u8]]) -> Result<(), TryReserveError> {
    let payload_len = parts.iter().map(|part| part.len()).sum();
    // With room for a verdict behind it, which must not fail.
    let needed = HEADER_LEN + payload_len + HEADER_LEN;
    if out.capacity() - out.len() < needed {
        out.try_reserve(needed)?;
    }
    put_header(out, code, payload_len);
    for part in parts {
        out.put_slice(part);
    }
    Ok(())
}

/// Appends a frame whose payload is the concatenation of `parts`.
///
/// # Panics
///
/// If the payload does not fit the 32-bit length, or there is no memory.
pub fn put(out: &mut Vec<u8>, code: u8, parts: &[&[u8]]) {
    try_put(out, code, parts).expect("there is memory for a packet");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_for_more_until_the_letter_is_there() {
        assert_eq!(parse(&[], 10), Ok(None));
        assert_eq!(parse(&[0xff, 0xff, 0xff, 0xff], 10), Ok(None));
        assert_eq!(parse(&[0, 0, 0, 3, b'H'], 10), Ok(Some(Header { code: b'H', payload_len: 2 })));
    }

    #[test]
    fn defect_3_zero_and_huge_lengths_are_refused() {
        assert_eq!(parse(&[0, 0, 0, 0], 10), Err(FrameError::Empty));
        assert_eq!(parse(&[0, 0, 0, 0, b'A'], 10), Err(FrameError::Empty));
        for length in [0x8000_0000_u32, 0x8000_0001, 0xffff_ffff] {
            let mut input = length.to_be_bytes().to_vec();
            input.push(b'A');
            for limit in [DEFAULT_LIMIT, usize::MAX] {
                assert!(matches!(parse(&input, limit), Err(FrameError::TooLong { .. })), "{length:#x} {limit:#x}");
            }
        }
        let largest = Header { code: b'B', payload_len: LARGEST_LIMIT };
        assert_eq!(parse(&[0x7f, 0xff, 0xff, 0xff, b'B'], usize::MAX), Ok(Some(largest)));
    }

    #[test]
    fn limit_is_exact() {
        assert!(parse(&[0, 1, 0, 0, b'B'], DEFAULT_LIMIT).is_ok());
        assert!(parse(&[0, 1, 0, 1, b'B'], DEFAULT_LIMIT).is_err());
    }
}
