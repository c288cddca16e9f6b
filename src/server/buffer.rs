//! Room for what a session receives.
//!
//! A thread keeps one buffer for all sessions it serves. A session takes a buffer along only while it has received part
//! of a frame: a small part is copied into a small buffer, for a large part the whole buffer goes.

use std::io;

use milter_protocol::frame::HEADER_LEN;

/// Octets that are read at once at most: a frame of the usual largest size and the one before it.
const ROOM: usize = 128 * 1024;

/// Up to here a part of a frame is copied rather than kept with its buffer.
const SMALL: usize = 4 * 1024;

/// Received octets that are not used yet.
#[derive(Debug)]
pub(super) struct Buffer {
    /// Initialised for its whole length.
    octets: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn with_room(room: usize) -> Self {
        Buffer { octets: vec![0; room].into(), start: 0, end: 0 }
    }

    /// What has been received and not used.
    pub(super) fn received(&mut self) -> &mut [u8] {
        &mut self.octets[self.start..self.end]
    }

    /// Counts octets as used.
    pub(super) fn consume(&mut self, len: usize) {
        self.start += len;
        debug_assert!(self.start <= self.end);
    }

    /// Makes room for a frame of this length.
    pub(super) fn expect(&mut self, frame_len: usize) {
        if self.start + frame_len > self.octets.len() {
            if frame_len > self.octets.len() {
                let mut larger = Buffer::with_room(frame_len);
                larger.append(self.received());
                *self = larger;
            } else {
                self.octets.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
        }
    }

    /// Has `read` write into what room there is. Says how much came, and whether the room is full now.
    pub(super) fn fill(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<(usize, bool)> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        self.expect(self.end - self.start + HEADER_LEN);
        let len = read(&mut self.octets[self.end..])?;
        self.end += len;
        Ok((len, self.end == self.octets.len()))
    }

    fn append(&mut self, octets: &[u8]) {
        self.octets[self.end..self.end + octets.len()].copy_from_slice(octets);
        self.end += octets.len();
    }

    fn len(&self) -> usize {
        self.end - self.start
    }
}

/// A thread's buffer.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    spare: Option<Buffer>,
}

impl Scratch {
    /// A buffer to go on receiving with, which holds what a session has kept.
    pub(super) fn take(&mut self, kept: Option<Buffer>) -> Buffer {
        match kept {
            Some(kept) if kept.octets.len() > SMALL => kept,
            kept => {
                let mut buffer = self.spare.take().unwrap_or_else(|| Buffer::with_room(ROOM));
                if let Some(mut kept) = kept {
                    buffer.append(kept.received());
                }
                buffer
            }
        }
    }

    /// Takes a buffer back, and gives what its session has to keep.
    pub(super) fn give_back(&mut self, mut buffer: Buffer) -> Option<Buffer> {
        if buffer.len() > SMALL {
            return Some(buffer);
        }
        let kept = (buffer.len() > 0).then(|| {
            let mut kept = Buffer::with_room(buffer.len());
            kept.append(buffer.received());
            kept
        });
        // One made for a frame of unusual size goes.
        if buffer.octets.len() == ROOM {
            (buffer.start, buffer.end) = (0, 0);
            self.spare = Some(buffer);
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(buffer: &mut Buffer, octets: &[u8]) -> (usize, bool) {
        buffer
            .fill(|room| {
                room[..octets.len()].copy_from_slice(octets);
                Ok(octets.len())
            })
            .unwrap()
    }

    #[test]
    fn parts_of_a_frame_survive_from_step_to_step() {
        let mut scratch = Scratch::default();
        for part in [1, SMALL, SMALL + 1, ROOM / 2] {
            let octets: Vec<u8> = (0..part).map(|i| i as u8).collect();
            let mut buffer = scratch.take(None);
            receive(&mut buffer, b"used");
            receive(&mut buffer, &octets);
            buffer.consume(4);
            let kept = scratch.give_back(buffer);
            assert_eq!(scratch.spare.is_some(), part <= SMALL);
            let mut buffer = scratch.take(kept);
            assert_eq!(buffer.received(), octets, "{part}");
            buffer.consume(part);
            assert!(scratch.give_back(buffer).is_none());
        }
    }

    #[test]
    fn there_is_always_room_for_the_frame_that_is_expected() {
        let mut scratch = Scratch::default();
        let mut buffer = scratch.take(None);
        receive(&mut buffer, &vec![1; ROOM - 10]);
        buffer.consume(ROOM - 20);
        buffer.expect(ROOM);
        assert_eq!(buffer.received(), [1; 10]);
        assert!(receive(&mut buffer, &vec![2; ROOM - 10]).1);
        buffer.expect(2 * ROOM);
        assert_eq!(buffer.len(), ROOM);
        receive(&mut buffer, &vec![3; ROOM]);
        assert_eq!(buffer.len(), 2 * ROOM);
        buffer.consume(2 * ROOM);
        assert!(scratch.give_back(buffer).is_none());
        assert!(scratch.spare.is_none(), "a buffer of unusual size is not kept");
    }
}
