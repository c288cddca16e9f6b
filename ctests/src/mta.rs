//! The MTA's end of a connection.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use crate::{conversation::Reply, eventually, wire, wire::Frame, words};

/// How long a reply may take before it counts as silence.
pub(crate) const SILENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A connection to a filter.
#[derive(Debug)]
pub struct MtaConnection {
    stream: Stream,
    /// Received, and not yet a whole packet.
    pending: Vec<u8>,
}

impl MtaConnection {
    /// Connects to a UNIX socket.
    ///
    /// # Errors
    ///
    /// Those of connect(2).
    pub fn unix(path: impl AsRef<Path>) -> io::Result<MtaConnection> {
        Ok(MtaConnection { stream: Stream::Unix(UnixStream::connect(path)?), pending: Vec::new() })
    }

    /// Connects to a TCP port of an address of this host.
    ///
    /// # Errors
    ///
    /// Those of connect(2).
    pub fn tcp(host: &str, port: u16) -> io::Result<MtaConnection> {
        let stream = TcpStream::connect((host, port))?;
        stream.set_nodelay(true)?;
        Ok(MtaConnection { stream: Stream::Tcp(stream), pending: Vec::new() })
    }

    /// Connects to a filter that is about to listen.
    ///
    /// # Panics
    ///
    /// When it does not within [`PATIENCE`](crate::PATIENCE).
    #[track_caller]
    #[must_use]
    pub fn patiently(connect: impl Fn() -> io::Result<MtaConnection>) -> MtaConnection {
        let mut connected = None;
        eventually("a filter listens", || {
            connected = connect().ok();
            connected.is_some()
        });
        connected.expect("it listens")
    }

    /// Writes octets. That the filter has closed the connection shows when reading.
    pub fn send(&mut self, octets: &[u8]) {
        let _ = match &mut self.stream {
            Stream::Unix(stream) => stream.write_all(octets),
            Stream::Tcp(stream) => stream.write_all(octets),
        };
    }

    /// Writes commands in the notation of dialogues.
    ///
    /// # Panics
    ///
    /// When the line is not understood.
    pub fn command(&mut self, line: &str) {
        let octets: Result<Vec<Vec<u8>>, String> =
            words::split(line).and_then(|lists| lists.iter().map(|words| wire::command(words)).collect());
        self.send(&octets.unwrap_or_else(|error| panic!("{line}: {error}")).concat());
    }

    /// Writes commands and returns what answers them, in the notation of dialogues.
    pub fn ask(&mut self, line: &str) -> String {
        self.command(line);
        self.reply()
    }

    /// The next packet or the end, in the notation of dialogues.
    pub fn reply(&mut self) -> String {
        self.receive(SILENCE).to_string()
    }

    /// Says that nothing more will be sent.
    pub fn shutdown(&mut self) {
        let _ = match &self.stream {
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// The next packet, the end, or [`Reply::Silence`] after `limit`.
    ///
    /// # Panics
    ///
    /// On errors that do not come from the filter.
    pub fn receive(&mut self, limit: Duration) -> Reply {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(frame) = self.take_frame() {
                return Reply::Frame(frame);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Reply::Silence;
            }
            let mut buffer = [0; 65536];
            match self.read(&mut buffer, left) {
                Ok(0) => return Reply::End(std::mem::take(&mut self.pending)),
                Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => {}
                    // The filter closed with something unread.
                    io::ErrorKind::ConnectionReset => return Reply::End(std::mem::take(&mut self.pending)),
                    _ => panic!("reading from the filter: {error}"),
                },
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8], limit: Duration) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Unix(stream) => {
                stream.set_read_timeout(Some(limit))?;
                stream.read(buffer)
            }
            Stream::Tcp(stream) => {
                stream.set_read_timeout(Some(limit))?;
                stream.read(buffer)
            }
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let length = u32::from_be_bytes(*self.pending.first_chunk()?) as usize;
        if length == 0 || self.pending.len() < 4 + length {
            return None;
        }
        let rest = self.pending.split_off(4 + length);
        let packet = std::mem::replace(&mut self.pending, rest);
        Some(Frame { letter: packet[4], payload: packet[5..].to_vec() })
    }
}
