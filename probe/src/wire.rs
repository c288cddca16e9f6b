//! The connection: frames out and in, with deadlines.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use milter_protocol::CommandCode;
use milter_protocol::frame::{self, FrameError, Header};

use crate::failure::Failure;
use crate::reason::Reason;
use crate::stranger;

/// Largest reply taken from a filter, in octets of payload. Libraries send at most 1 MiB; text of another protocol
/// reads as a length far beyond this.
const REPLY_LIMIT: usize = 16 << 20;

/// Octets that a collecting wire holds back at most (the stream buffer of Postfix).
const COLLECTED: usize = 4096;

/// Octets asked of the system at once.
const READ_AT_ONCE: usize = 64 << 10;

/// A connected socket.
#[derive(Debug)]
pub enum Stream {
    /// A Unix socket.
    Unix(UnixStream),
    /// A TCP connection.
    Tcp(TcpStream),
}

impl Stream {
    fn set_timeouts(&self, timeout: Duration) -> io::Result<()> {
        // A zero timeout means none to the system.
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        match self {
            Stream::Unix(stream) => stream.set_read_timeout(timeout).and(stream.set_write_timeout(timeout)),
            Stream::Tcp(stream) => stream.set_read_timeout(timeout).and(stream.set_write_timeout(timeout)),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.write(buffer),
            Stream::Tcp(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How frames are grouped into writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// One write for each frame (Sendmail).
    Single,
    /// Frames are collected until a reply is needed or the buffer is full (Postfix).
    Collected,
}

/// One frame of the filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The letter.
    pub code: u8,
    /// What follows it.
    pub payload: Vec<u8>,
}

/// Frames to and from one filter.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    grouping: Grouping,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl Wire {
    /// Speaks over `stream`.
    pub fn new(stream: Stream, grouping: Grouping) -> Self {
        Wire { stream, grouping, outgoing: Vec::new(), incoming: Vec::new() }
    }

    /// Sends what `encode` appends: one frame, the command `stage` or its macros.
    pub fn send(
        &mut self,
        stage: CommandCode,
        timeout: Duration,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Failure> {
        encode(&mut self.outgoing);
        match self.grouping {
            Grouping::Collected if self.outgoing.len() < COLLECTED => Ok(()),
            _ => self.flush(stage, timeout),
        }
    }

    /// Writes everything that was held back.
    pub fn flush(&mut self, stage: CommandCode, timeout: Duration) -> Result<(), Failure> {
        let sent = self.stream.set_timeouts(timeout).and_then(|()| self.stream.write_all(&self.outgoing));
        self.outgoing.clear();
        sent.map_err(|error| failure(&error, stage, timeout))
    }

    /// Waits for the next frame, the answer to `stage`, for at most `timeout`.
    pub fn receive(&mut self, stage: CommandCode, timeout: Duration) -> Result<Frame, Failure> {
        self.flush(stage, timeout)?;
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(header) = complete(&self.incoming, stage)? {
                let payload = self.incoming[frame::HEADER_LEN..header.frame_len()].to_vec();
                self.incoming.drain(..header.frame_len());
                return Ok(Frame { code: header.code, payload });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let read = if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { self.read_more(left) };
            match read {
                Ok(0) if stage == CommandCode::Negotiate && !self.incoming.is_empty() => {
                    return Err(stranger(&self.incoming));
                }
                Ok(0) => return Err(Failure::Closed { stage }),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failure(&error, stage, timeout)),
            }
        }
    }

    /// Says that nothing more will be sent.
    pub fn finish(&self) {
        // A peer that has gone cannot be told.
        let _ = match &self.stream {
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    fn read_more(&mut self, timeout: Duration) -> io::Result<usize> {
        self.stream.set_timeouts(timeout)?;
        let held = self.incoming.len();
        self.incoming.resize(held + READ_AT_ONCE, 0);
        let read = self.stream.read(&mut self.incoming[held..]);
        self.incoming.truncate(held + *read.as_ref().unwrap_or(&0));
        read
    }
}

/// The header of the first frame if all of it is there.
pub(crate) fn complete(incoming: &[u8], stage: CommandCode) -> Result<Option<Header>, Failure> {
    match frame::parse(incoming, REPLY_LIMIT) {
        Ok(header) => Ok(header.filter(|header| incoming.len() >= header.frame_len())),
        Err(FrameError::Empty) => Err(Failure::breach(stage, "a packet of length zero")),
        Err(FrameError::TooLong { .. }) => Err(stranger(incoming)),
    }
}

/// A peer that does not speak milter.
pub(crate) fn stranger(incoming: &[u8]) -> Failure {
    Failure::Stranger { said: stranger::quote(incoming), kind: stranger::kind(incoming) }
}

/// What an error of the connection means.
pub(crate) fn failure(error: &io::Error, stage: CommandCode, timeout: Duration) -> Failure {
    match error.kind() {
        // A socket's timeout shows as either of the two, depending on the system.
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Failure::Timeout { stage, after: timeout },
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Failure::Closed { stage },
        _ => Failure::Broken { stage, reason: Reason(error).to_string() },
    }
}

#[cfg(test)]
mod tests {
    use milter_protocol::Command;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pair(grouping: Grouping) -> (Wire, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        (Wire::new(Stream::Unix(near), grouping), far)
    }

    fn arrived(far: &mut UnixStream) -> usize {
        far.read(&mut [0; 1 << 20]).unwrap_or(0)
    }

    #[test]
    fn single_frames_leave_at_once_collected_ones_when_an_answer_is_needed() {
        for (grouping, at_once) in [(Grouping::Single, 5), (Grouping::Collected, 0)] {
            let (mut wire, mut far) = pair(grouping);
            wire.send(CommandCode::Data, SECOND, |out| Command::Data.encode(out)).unwrap();
            assert_eq!(arrived(&mut far), at_once);
            wire.send(CommandCode::Data, SECOND, |out| Command::Data.encode(out)).unwrap();
            assert!(wire.receive(CommandCode::Data, Duration::from_millis(1)).is_err());
            assert_eq!(arrived(&mut far), 10 - at_once);
        }
    }

    #[test]
    fn a_full_buffer_leaves_too() {
        let (mut wire, mut far) = pair(Grouping::Collected);
        wire.send(CommandCode::Body, SECOND, |out| Command::Body(&[b'x'; COLLECTED]).encode(out)).unwrap();
        assert_eq!(arrived(&mut far), COLLECTED + frame::HEADER_LEN);
    }

    #[test]
    fn frames_are_put_together_from_any_pieces() {
        let (mut wire, mut far) = pair(Grouping::Single);
        let octets = b"\0\0\0\x03yab\0\0\0\x01c";
        let writer = std::thread::spawn(move || {
            for octet in octets {
                far.write_all(&[*octet]).unwrap();
            }
            far
        });
        let receive = |wire: &mut Wire| wire.receive(CommandCode::Mail, SECOND);
        assert_eq!(receive(&mut wire), Ok(Frame { code: b'y', payload: b"ab".to_vec() }));
        assert_eq!(receive(&mut wire), Ok(Frame { code: b'c', payload: Vec::new() }));
        drop(writer.join());
        assert_eq!(receive(&mut wire), Err(Failure::Closed { stage: CommandCode::Mail }));
    }

    #[test]
    fn a_length_of_zero_is_a_breach() {
        let (mut wire, mut far) = pair(Grouping::Single);
        far.write_all(&[0; 5]).unwrap();
        assert!(matches!(wire.receive(CommandCode::Mail, SECOND), Err(Failure::Breach { .. })));
    }
}
