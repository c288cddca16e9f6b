//! Room for what a session receives.
//!
//! A thread keeps one buffer for all sessions it serves. A session takes a buffer along only while it has received part
//! of a frame: a small part is copied into a small buffer, for a large part the whole buffer goes.

use std::io;

use milter_protocol::frame::HEADER_LEN;

use crate::sys::memory;

/// Octets that are read at once at most: a frame of the usual largest size and the one before it.
const ROOM: usize = 128 * 1024;

/// Up to here a part of a frame is copied rather than kept with its buffer.
const SMALL: usize = 4 * 1024;

/// Received octets that are not used yet.
#[derive(Debug)]
pub(super) struct Buffer {
    /// Used octets, then those that are not; the capacity is the room.
    octets: Vec<u8>,
    used: usize,
}

impl Buffer {
    /// Fails when there is no memory.
    fn with_room(room: usize) -> io::Result<Self> {
        let mut octets = Vec::new();
        octets.try_reserve_exact(room)?;
        Ok(Buffer { octets, used: 0 })
    }

    /// What has been received and not used.
    pub(super) fn received(&mut self) -> &mut [u8] {
        &mut self.octets[self.used..]
    }

    /// Counts octets as used.
    pub(super) fn consume(&mut self, len: usize) {
        self.used += len;
        debug_assert!(self.used <= self.octets.len());
    }

    /// Makes room to go on receiving a frame of this length: as much as has come already, and at least some.
    pub(super) fn expect(&mut self, frame_len: usize) -> io::Result<()> {
        if self.used + frame_len <= self.octets.capacity() { Ok(()) } else { self.grow(frame_len) }
    }

    #[cold]
    fn grow(&mut self, frame_len: usize) -> io::Result<()> {
        self.octets.drain(..self.used);
        self.used = 0;
        let room = frame_len.min(ROOM.max(2 * self.octets.len()));
        // How much is needed is up to the peer.
        if !memory::is_available(room) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(self.octets.try_reserve_exact(room.saturating_sub(self.octets.len()))?)
    }

    /// Has `read` append to what has been received, within the room. Says how much came, and whether the room is full.
    pub(super) fn fill(&mut self, read: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>) -> io::Result<(usize, bool)> {
        if self.used == self.octets.len() {
            self.octets.clear();
            self.used = 0;
        }
        self.expect(self.octets.len() - self.used + HEADER_LEN)?;
        let len = read(&mut self.octets)?;
        Ok((len, self.octets.len() == self.octets.capacity()))
    }

    fn len(&self) -> usize {
        self.octets.len() - self.used
    }
}

/// What a thread lends to the session it serves.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// To receive with.
    pub(super) spare: Spare,
    /// Room for replies.
    pub(super) output: Vec<u8>,
}

/// A buffer, unless a session has taken it along.
#[derive(Debug, Default)]
pub(super) struct Spare(Option<Buffer>);

impl Spare {
    /// A buffer to go on receiving with, which holds what a session has kept.
    pub(super) fn take(&mut self, kept: Option<Buffer>) -> io::Result<Buffer> {
        match kept {
            Some(kept) if kept.octets.capacity() > SMALL => Ok(kept),
            kept => {
                let mut buffer = match self.0.take() {
                    Some(buffer) => buffer,
                    // Small pieces take longer, but need less.
                    None => Buffer::with_room(ROOM).or_else(|_| Buffer::with_room(2 * SMALL))?,
                };
                if let Some(mut kept) = kept {
                    buffer.octets.extend_from_slice(kept.received());
                }
                Ok(buffer)
            }
        }
    }

    /// Takes a buffer back, and gives what its session has to keep. Fails when there is no memory for that: what sessions
    /// keep while they wait must not use up the reserve.
    pub(super) fn give_back(&mut self, mut buffer: Buffer) -> io::Result<Option<Buffer>> {
        let mut kept = None;
        if buffer.len() > 0 {
            let is_available = memory::is_available(buffer.len());
            let copy = Some(buffer.len()).filter(|len| is_available && *len <= SMALL).map(Buffer::with_room);
            let Some(Ok(mut copy)) = copy else {
                let may_keep = is_available || buffer.octets.capacity() >= ROOM;
                return if may_keep { Ok(Some(buffer)) } else { Err(io::ErrorKind::OutOfMemory.into()) };
            };
            copy.octets.extend_from_slice(buffer.received());
            kept = Some(copy);
        }
        // One of unusual size goes.
        if buffer.octets.capacity() == ROOM {
            buffer.octets.clear();
            buffer.used = 0;
            self.0 = Some(buffer);
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(buffer: &mut Buffer, octets: &[u8]) -> (usize, bool) {
        buffer
            .fill(|room| {
                room.extend_from_slice(octets);
                Ok(octets.len())
            })
            .unwrap()
    }

    #[test]
    fn parts_of_a_frame_survive_from_step_to_step() {
        let mut spare = Spare::default();
        for part in [1, SMALL, SMALL + 1, ROOM / 2] {
            let octets: Vec<u8> = (0..part).map(|i| i as u8).collect();
            let mut buffer = spare.take(None).unwrap();
            receive(&mut buffer, b"used");
            receive(&mut buffer, &octets);
            buffer.consume(4);
            let kept = spare.give_back(buffer).unwrap();
            assert_eq!(spare.0.is_some(), part <= SMALL);
            let mut buffer = spare.take(kept).unwrap();
            assert_eq!(buffer.received(), octets, "{part}");
            buffer.consume(part);
            assert!(spare.give_back(buffer).unwrap().is_none());
        }
    }

    #[test]
    fn there_is_room_to_go_on_with_the_frame_that_is_expected() {
        let mut spare = Spare::default();
        let mut buffer = spare.take(None).unwrap();
        receive(&mut buffer, &vec![1; ROOM - 10]);
        buffer.consume(ROOM - 20);
        buffer.expect(ROOM).unwrap();
        assert_eq!(buffer.received(), [1; 10]);
        assert!(receive(&mut buffer, &vec![2; ROOM - 10]).1);
        buffer.expect(2 * ROOM).unwrap();
        assert_eq!(buffer.len(), ROOM);
        assert!(receive(&mut buffer, &vec![3; ROOM]).1);
        assert_eq!(buffer.len(), 2 * ROOM);
        buffer.consume(2 * ROOM);
        assert!(spare.give_back(buffer).unwrap().is_none());
        assert!(spare.0.is_none(), "a buffer of unusual size is not kept");
    }

    #[test]
    fn the_length_of_a_frame_costs_no_memory_before_the_frame_comes() {
        let mut buffer = Spare::default().take(None).unwrap();
        receive(&mut buffer, b"start");
        buffer.expect(isize::MAX as usize).unwrap();
        assert!(buffer.octets.capacity() <= 2 * ROOM);
    }

    #[test]
    fn no_memory_is_an_error() {
        let error = Buffer::with_room(isize::MAX as usize).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    }
}
