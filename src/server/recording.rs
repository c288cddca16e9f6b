//! Sessions as files, to be played again by `milter-probe replay`.
//!
//! What is sent is written at once, so that it is there if the filter crashes. A session that cannot be recorded any
//! more goes on without.

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use milter_protocol::Escaped;
use milter_protocol::record::{Entry, Kind, MAGIC};
use parking_lot::Mutex;

use super::log::{self, Episode};
use super::trace::rfc3339;
use crate::sys::append::AppendFile;
use crate::sys::error::Reason;
use crate::sys::path::Directory;
use crate::sys::process;

/// Where sessions are recorded.
pub(super) struct Archive {
    directory: PathBuf,
    filter: CString,
    trouble: Episode,
}

impl Archive {
    /// Fails unless `directory` is one.
    pub(super) fn open(directory: &Path, filter: CString) -> io::Result<Self> {
        Directory::open(directory)?.check_access()?;
        Ok(Archive { directory: directory.to_owned(), filter, trouble: Episode::new()? })
    }

    fn begin(&self, session: u64) -> io::Result<Tape> {
        let (now, pid) = (rfc3339(SystemTime::now()), process::id());
        let name = format!("{}-{pid}-{session}.milter", now.replace(':', ""));
        let file = AppendFile::create(&self.directory.join(name))?;
        let tape = Tape { file, start: Instant::now() };
        tape.append(MAGIC)?;
        let about = format!("filter {}, process {pid}, session {session}, {now}", Escaped(self.filter.to_bytes()));
        tape.write(Kind::About, &[about.as_bytes()])?;
        Ok(tape)
    }
}

/// The record of one session, which begins with its first octets.
#[derive(Default)]
pub(super) struct Recording(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Blank,
    Running(Tape),
    Over,
}

struct Tape {
    file: AppendFile,
    start: Instant,
}

impl Recording {
    /// Writes an entry, whose octets are `parts`.
    pub(super) fn write(&self, archive: &Archive, session: u64, kind: Kind, parts: &[&[u8]]) {
        let mut state = self.0.lock();
        let outcome = match std::mem::replace(&mut *state, State::Over) {
            // Nobody has said anything.
            State::Blank if kind == Kind::End => return,
            State::Blank => archive.begin(session).and_then(|tape| tape.write(kind, parts).map(|()| tape)),
            State::Running(tape) => tape.write(kind, parts).map(|()| tape),
            State::Over => return,
        };
        match outcome {
            Ok(tape) if kind != Kind::End => *state = State::Running(tape),
            Ok(_) => {}
            Err(error) => {
                if archive.trouble.begins() {
                    let text = format_args!("cannot record into {}: {}", archive.directory.display(), Reason(&error));
                    log::error(&archive.filter, text);
                }
            }
        }
    }
}

impl Tape {
    fn write(&self, kind: Kind, parts: &[&[u8]]) -> io::Result<()> {
        let mut entry = Vec::new();
        let len = parts.iter().map(|part| part.len()).sum();
        entry.try_reserve(Entry::HEAD_LEN + len)?;
        Entry::encode_head(kind, self.start.elapsed(), len, &mut entry);
        parts.iter().for_each(|part| entry.extend_from_slice(part));
        self.append(&entry)
    }

    fn append(&self, mut octets: &[u8]) -> io::Result<()> {
        while !octets.is_empty() {
            match self.file.append(octets) {
                Ok(len) => octets = &octets[len..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
