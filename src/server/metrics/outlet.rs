//! Where the numbers are shown: in a file, or to everybody who connects to a Unix socket.
//!
//! A thread of its own does it, so that a slow disk or reader costs no session anything. Processes that fork sessions must
//! not have one: there the loop that takes connections writes the file, between two of them.

use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use milter_protocol::Escaped;
use parking_lot::Mutex;

use super::exposition::{HEADING, heading};
use crate::model;
use crate::server::listener::OpenError;
use crate::server::log::{self, Episode};
use crate::server::service::Server;
use crate::server::socket_file::{Replace, SocketFile, Wanted};
use crate::sys::error::Reason;
use crate::sys::memory;
use crate::sys::path::{self, Location, Staging, as_path};
use crate::sys::poll::{self, Interest};
use crate::sys::signal::Mask;
use crate::sys::socket;
use crate::sys::thread::{self, JoinHandle};
use crate::sys::wake::{self, Wake};

/// Where an administrator wants them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) enum Target {
    File(CString),
    Socket(CString),
}

/// How often a file is written at most.
const INTERVAL: Duration = Duration::from_secs(10);

/// How long somebody who has connected may take to ask, and to read.
const ASKING: Duration = Duration::from_millis(100);
const READING: Duration = Duration::from_secs(1);

/// Octets of a request that are read: what is left unread when the connection is closed costs the peer the answer.
const REQUEST: usize = 64 * 1024;

/// How long those who ask wait when they cannot be taken.
const PAUSE: Duration = Duration::from_secs(1);

/// How many may wait for an answer.
const BACKLOG: libc::c_int = 16;

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::File(path) => Escaped(path.to_bytes()).fmt(f),
            Target::Socket(path) => write!(f, "unix:{}", Escaped(path.to_bytes())),
        }
    }
}

/// The place, open.
pub(in crate::server) struct Outlet {
    place: Place,
    /// No thread looks after it.
    alone: bool,
    over: Wake,
    trouble: Episode,
}

enum Place {
    File { path: CString, shown: Mutex<Option<Shown>> },
    Socket { listener: OwnedFd, name: SocketFile },
}

/// What a file says, and since when.
struct Shown {
    text: String,
    when: Instant,
}

impl Outlet {
    /// For the filter of this name. `alone` says that there is to be no thread.
    pub(in crate::server) fn open(target: &Target, filter: &CStr, alone: bool) -> Result<Self, OpenError> {
        let place = match target {
            Target::File(path) => {
                // Whether it can be done is found out before mail comes.
                match replace(path, &heading(filter)) {
                    // There may be room again later, and mail does not wait for that. Nor does it for another filter's
                    // file to go, which may be that of this one under the name that it had before.
                    Err(error) if path::is_full(&error) => {}
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_of_some_filter(path) => {}
                    replaced => replaced?,
                }
                Place::File { path: path.clone(), shown: Mutex::new(None) }
            }
            Target::Socket(path) => {
                let wanted = Wanted { mode: Some(0o666), remove: Some(true), ..Wanted::NOTHING };
                let (listener, name) = SocketFile::listen(path, &wanted, Replace::Stale, BACKLOG)?;
                Place::Socket { listener, name }
            }
        };
        Ok(Outlet { place, alone, over: Wake::new()?, trouble: Episode::new()? })
    }

    /// Writes a file that is due, where no thread does. Says when the next one is.
    pub(super) fn turn(&self, server: &Server) -> Option<Duration> {
        let Place::File { shown, .. } = &self.place else { return None };
        if !self.alone {
            return None;
        }
        let age = shown.lock().as_ref().map(|shown| shown.when.elapsed());
        let left = age.and_then(|age| INTERVAL.checked_sub(age));
        if left.is_none() {
            self.write(server);
        }
        left.or(Some(INTERVAL))
    }

    fn serve(&self, server: &Server) -> io::Result<()> {
        let over = (self.over.as_fd(), Interest::Read);
        match &self.place {
            Place::File { .. } => loop {
                self.write(server);
                if let [true] = model::wait_out(server, poll::wait([over], Some(INTERVAL)))? {
                    return Ok(());
                }
            },
            Place::Socket { listener, .. } => loop {
                let ready = poll::wait([(listener.as_fd(), Interest::Read), over], None);
                let [asked, is_over] = model::wait_out(server, ready)?;
                if is_over {
                    return Ok(());
                }
                match asked.then(|| socket::accept(listener.as_fd())) {
                    // Who goes away before the end has missed something.
                    Some(Ok(connection)) => drop(answer(connection.as_fd(), || text(server))),
                    Some(Err(error)) => {
                        self.tell(server, format_args!("cannot answer for the metrics: {}", Reason(&error)));
                        model::wait_out(server, poll::wait([over], Some(PAUSE)))?;
                    }
                    None => {}
                }
            },
        }
    }

    /// Writes the file if something has changed.
    fn write(&self, server: &Server) {
        // Without memory the file stays as it is until the next time.
        if let Place::File { path, shown } = &self.place
            && memory::is_available(PAGE_MEMORY)
            && let Err(error) = update(path, &mut shown.lock(), text(server))
        {
            self.tell(
                server,
                format_args!("cannot write the metrics {}: {}", Escaped(path.to_bytes()), Reason(&error)),
            );
        }
    }

    fn tell(&self, server: &Server, trouble: fmt::Arguments<'_>) {
        if self.trouble.begins() {
            log::error(server.filter().name(), trouble);
        }
    }

    fn leave(&self) {
        if let Place::Socket { name, .. } = &self.place {
            // Whoever finds it later is told that nobody listens.
            let _ = name.remove();
        }
    }
}

/// Bytes that making and showing all numbers may take at once.
const PAGE_MEMORY: usize = 512 * 1024;

fn text(server: &Server) -> String {
    server.metrics().map(|metrics| metrics.text(server)).unwrap_or_default()
}

/// Writes a text that is another one than before.
fn update(path: &CStr, shown: &mut Option<Shown>, text: String) -> io::Result<()> {
    let when = Instant::now();
    let is_new = shown.as_ref().is_none_or(|shown| shown.text != text);
    let written = if is_new { replace(path, &text) } else { Ok(()) };
    let text = if written.is_ok() { text } else { String::new() };
    *shown = Some(Shown { text, when });
    written
}

/// Puts a new file in the place of an old one at once. What does not begin with the same line is something else, and
/// stays.
fn replace(path: &CStr, text: &str) -> io::Result<()> {
    let heading = text.split_inclusive('\n').next().unwrap_or_default().as_bytes();
    let location = Location::find(as_path(path))?;
    if !location.is_free_or(heading.len() as u64, |start| start == heading)? {
        let what = "there is something that is not ours; remove it, or give each filter a file of its own";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    }
    let staging = Staging::beside(&location)?;
    staging.write(text.as_bytes())?;
    let placed = staging.set_mode(0o644).and_then(|()| staging.replace());
    placed.inspect_err(|_| drop(staging.inside().remove()))
}

fn is_of_some_filter(path: &CStr) -> bool {
    let begins = |start: &[u8]| start == HEADING.as_bytes();
    Location::find(as_path(path))
        .and_then(|location| location.is_free_or(HEADING.len() as u64, begins))
        .unwrap_or(false)
}

/// Answers one who has connected: over HTTP if that is how he asks, otherwise with the bare text.
fn answer(connection: BorrowedFd<'_>, text: impl FnOnce() -> String) -> io::Result<()> {
    if !memory::is_available(PAGE_MEMORY) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let mut request = Vec::with_capacity(REQUEST);
    if let [true] = poll::wait([(connection, Interest::Read)], Some(ASKING))? {
        let _ = socket::receive(connection, &mut request)?;
    }
    let text = text();
    let head = if request.starts_with(b"GET ") {
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        let len = text.len();
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n")
    } else {
        String::new()
    };
    let answer = head + &text;
    let mut left = answer.as_bytes();
    let deadline = Instant::now() + READING;
    while !left.is_empty() {
        match socket::send(connection, &[left, &[], &[]]) {
            Ok(sent) => left = &left[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let time = deadline.saturating_duration_since(Instant::now());
                if let [false] = poll::wait([(connection, Interest::Write)], Some(time))? {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Shows the numbers while it exists, and a last time when it goes.
pub(in crate::server) struct Publisher {
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    pub(in crate::server) fn start(server: &Arc<Server>) -> io::Result<Self> {
        let wanted = server.metrics().is_some_and(|metrics| !metrics.outlet.alone);
        let thread = wanted.then(|| {
            let server = Arc::clone(server);
            thread::spawn(c"milter-metrics", thread::SMALL_STACK, move || publish(&server))
        });
        Ok(Publisher { server: Arc::clone(server), thread: thread.transpose()? })
    }
}

fn publish(server: &Server) {
    // Handlers of the program belong on its own threads.
    let _ = Mask::all().block();
    if let Some(Err(error)) = server.metrics().map(|metrics| metrics.outlet.serve(server)) {
        log::error(server.filter().name(), format_args!("the metrics are shown no more: {}", Reason(&error)));
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let Some(metrics) = self.server.metrics() else { return };
        wake::call(metrics.outlet.over.number());
        // Nothing in it fails but by panicking, which was logged then.
        self.thread.take().map(JoinHandle::join);
        metrics.outlet.write(&self.server);
        metrics.outlet.leave();
    }
}
