//! A filter without a library: it answers by a script and writes down what it was told.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::{self, JoinHandle};

use milter_protocol::modification::Modification;
use milter_protocol::{Actions, Reply, Steps, frame};
use tempfile::TempDir;

/// What a fake filter does after a command.
pub(crate) enum Move {
    /// Sends these octets, possibly none.
    Say(Vec<u8>),
    /// Closes the connection.
    HangUp,
    /// Says nothing and stays.
    Sulk,
}

/// A filter on a Unix socket in a directory of its own.
pub(crate) struct Fake {
    directory: TempDir,
    thread: JoinHandle<Vec<String>>,
}

impl Fake {
    /// Serves one connection. `answer` is given the letter and the payload of each command.
    pub(crate) fn start(answer: impl FnMut(char, &[u8]) -> Move + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let thread = thread::spawn(move || serve(listener.accept().unwrap().0, answer));
        Fake { directory, thread }
    }

    /// Continues everywhere but for what `special` wants to answer itself.
    pub(crate) fn continuing(
        actions: u32,
        steps: u32,
        mut special: impl FnMut(char, &[u8]) -> Option<Vec<u8>> + Send + 'static,
    ) -> Self {
        Self::start(move |letter, payload| {
            Move::Say(match (special(letter, payload), letter) {
                (Some(reply), _) => reply,
                (None, 'O') => negotiated(actions, steps),
                (None, 'D' | 'A' | 'Q') => Vec::new(),
                (None, _) => reply(&Reply::Continue),
            })
        })
    }

    /// The socket.
    pub(crate) fn path(&self) -> std::path::PathBuf {
        Path::join(self.directory.path(), "socket")
    }

    /// What the filter was told, once the MTA has hung up.
    pub(crate) fn heard(self) -> Vec<String> {
        self.thread.join().unwrap()
    }
}

fn serve(mut stream: UnixStream, mut answer: impl FnMut(char, &[u8]) -> Move) -> Vec<String> {
    let mut heard = Vec::new();
    let mut start = [0; frame::HEADER_LEN];
    while stream.read_exact(&mut start).is_ok() {
        let header = frame::parse(&start, usize::MAX).unwrap().unwrap();
        let mut payload = vec![0; header.payload_len];
        stream.read_exact(&mut payload).unwrap();
        let letter = char::from(header.code);
        heard.push(match letter {
            'B' => format!("B {} octets", payload.len()),
            _ if payload.is_empty() => letter.to_string(),
            _ => format!("{letter} {}", payload.escape_ascii().to_string().replace("\\x00", "|")),
        });
        match answer(letter, &payload) {
            // The MTA may have gone; it then says so itself.
            Move::Say(octets) => drop(stream.write_all(&octets)),
            Move::HangUp => break,
            Move::Sulk => {}
        }
    }
    heard
}

/// The answer to the offer.
pub(crate) fn negotiated(actions: u32, steps: u32) -> Vec<u8> {
    let (actions, steps) = (Actions::from_bits_retain(actions), Steps::from_bits_retain(steps));
    reply(&Reply::Negotiated { version: 6, actions, steps, macros: Vec::new() })
}

/// One reply as octets.
pub(crate) fn reply(reply: &Reply<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    reply.encode(&mut out);
    out
}

/// Several replies as octets.
pub(crate) fn replies(replies: &[Reply<'_>]) -> Vec<u8> {
    replies.iter().flat_map(reply).collect()
}

/// A header to be added, as octets.
pub(crate) fn add_header<'a>(name: &'a str, value: &'a str) -> Reply<'a> {
    Reply::Modify(Modification::AddHeader { name: name.as_bytes(), value: value.as_bytes() })
}
