//! What the filter knows a session by, and what its callbacks can ask for.
//!
//! Callbacks re-enter the library, and some calls come from other threads. So a context is only ever shared, and what
//! changes in it is behind a lock that is held for one call and never while a callback runs.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};
use std::time::Instant;

use milter_protocol::reply::body_chunks;
use milter_protocol::{Actions, Callback, Callbacks, Engine, Modification, Profile, SmtpReply, SmtpReplyError, Stage};
use parking_lot::{Mutex, MutexGuard};

use super::Filter;
use super::admission::Refusal;
use super::log::Level;
use super::metrics::Metrics;
use super::observer::{CallError, Observer};
use super::service::Server;
use super::settings;
use crate::model::Service;
use crate::sys::poll::{self, Interest};
use crate::sys::{process, signal, socket};

/// Replies that gather up to this many octets are sent together.
const GATHER: usize = 64 * 1024;

/// Room for replies that a thread keeps, in octets.
const KEEP: usize = 4 * 1024;

/// One session as its callbacks see it.
pub(crate) struct Context {
    pub(super) server: Arc<Server>,
    /// For log lines, from 1.
    pub(super) number: u64,
    /// The session is one too many: it is not the filter's.
    refused: bool,
    observer: Option<Box<Observer>>,
    connection: OwnedFd,
    private: AtomicPtr<c_void>,
    core: Mutex<Core>,
}

/// The part of a session that changes.
pub(super) struct Core {
    pub(super) engine: Engine,
    /// Whether anything has come from the MTA.
    pub(super) heard: bool,
    /// Why nothing can be sent any more: a write failed and may have left half a packet.
    broken: Option<io::ErrorKind>,
}

impl Context {
    pub(super) fn new(server: Arc<Server>, number: u64, connection: OwnedFd) -> Self {
        let profile = server.profile();
        Context::with(server, number, connection, profile, false)
    }

    /// A session that the filter does not get to see.
    pub(super) fn refused(server: Arc<Server>, number: u64, connection: OwnedFd) -> Self {
        Context::with(server, number, connection, Refusal.profile(), true)
    }

    fn with(server: Arc<Server>, number: u64, connection: OwnedFd, profile: Profile, refused: bool) -> Self {
        let engine = Engine::new(profile, settings::data_size());
        Context {
            observer: server.observers().map(|observers| Observer::new(number, observers)),
            server,
            number,
            refused,
            connection,
            private: AtomicPtr::default(),
            core: Mutex::new(Core { engine, heard: false, broken: None }),
        }
    }

    pub(super) fn connection(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }

    /// Whether the session is not the filter's.
    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }

    /// Whose callbacks these are.
    pub(super) fn filter(&self) -> &dyn Filter {
        if self.refused { &Refusal } else { self.server.filter() }
    }

    /// Who counts, if somebody is to and the session is the filter's.
    pub(super) fn metrics(&self) -> Option<&Metrics> {
        self.server.metrics().filter(|_| !self.refused)
    }

    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock()
    }

    /// Who looks on, if anybody does.
    pub(super) fn observer(&self) -> Option<&Observer> {
        self.observer.as_deref()
    }

    /// Runs a callback of the filter.
    pub(super) fn call(&self, filter: &dyn Filter, callback: &mut Callback<'_>) -> Option<c_int> {
        let generation = process::generation();
        let observed = self.observer().map(|observer| (observer, Instant::now()));
        let value = filter.call(self, callback);
        if process::generation() != generation {
            self.end_copy(callback.kind());
        }
        if let Some((observer, start)) = observed {
            observer.returned(callback.kind(), value, start.elapsed());
        }
        value
    }

    /// Ends a process that a callback has forked and that came back from it. The one that it is a copy of goes on with the
    /// session: two would answer each command twice, and take each other's events.
    fn end_copy(&self, callback: Callbacks) -> ! {
        // A lock that another thread held when the process was forked is never released in the copy.
        signal::limit_life(5);
        let (number, callback) = (self.number, callback.c_name());
        let text = format_args!(
            "[{number}] {callback} returned in a process that it had forked; that one is ended, it should call _exit"
        );
        self.server.report(Level::Error, text);
        process::quit(1)
    }

    /// The filter's own pointer.
    pub(crate) fn private(&self) -> *mut c_void {
        self.private.load(Relaxed)
    }

    /// Sets the filter's own pointer.
    pub(crate) fn set_private(&self, private: *mut c_void) {
        self.private.store(private, Relaxed);
    }

    /// The value of a macro, NUL-terminated; it stays in place until the macros of its stage are replaced. No macro has an
    /// empty name.
    pub(crate) fn macro_value(&self, name: &[u8]) -> Option<NonNull<c_char>> {
        let core = self.core();
        let value = if name.is_empty() { None } else { core.engine.macro_value(name) };
        if let Some(observer) = self.observer() {
            observer.looked_up(name, value);
        }
        NonNull::new(value?.as_ptr().cast_mut().cast())
    }

    /// What the MTA calls the message in hand, if it has said so and nobody is busy with the session's state.
    pub(super) fn queue_id(&self) -> Option<String> {
        let core = self.core.try_lock()?;
        let id = core.engine.macro_value(b"i")?.iter().map(Cell::get).take_while(|octet| *octet != 0);
        Some(id.flat_map(std::ascii::escape_default).map(char::from).collect())
    }

    /// Stores the reply for a later refusal, as `call` wants; false when it is none.
    pub(crate) fn set_reply(&self, call: &str, reply: Result<SmtpReply, SmtpReplyError>) -> bool {
        if let Some(observer) = self.observer() {
            observer.set_reply(call, &reply);
        }
        reply.map(|reply| self.core().engine.store_reply(reply)).is_ok()
    }

    /// Asks the MTA for macros at a stage; false when that was done before.
    pub(crate) fn request_macros(&self, stage: Stage, names: &[u8]) -> bool {
        let first = self.core().engine.request_macros(stage, names);
        if let Some(observer) = self.observer() {
            observer.requested_macros(stage, names, first);
        }
        first
    }

    /// Changes the message; false when it is not allowed now, too large, or cannot be delivered.
    pub(crate) fn modify(&self, modification: Modification<'_>) -> bool {
        let mut core = self.core();
        let done = core.broken.is_none()
            && core.engine.modify(&modification)
            && (core.engine.output().len() <= GATHER || self.flush(&mut core));
        if let Some(observer) = self.observer() {
            observer.modified(&modification, core.outcome(done, modification.required_action()));
        }
        if let Some(metrics) = self.metrics().filter(|_| done) {
            metrics.modified(&modification);
        }
        done
    }

    /// Replaces the body by, or adds to its replacement, these octets. Nothing comes between the packets of one call.
    pub(crate) fn replace_body(&self, body: &[u8]) -> bool {
        let mut core = self.core();
        let done = body_chunks(body).all(|chunk| {
            if core.broken.is_some() || !core.engine.begin_body_packet(chunk.len()) {
                return false;
            }
            let output = core.engine.output();
            if output.len() + chunk.len() <= GATHER {
                output.extend_from_slice(chunk);
                return true;
            }
            self.send(&mut core, chunk)
        });
        if let Some(observer) = self.observer() {
            observer.replaced_body(body, core.outcome(done, Actions::CHANGE_BODY));
        }
        if let Some(metrics) = self.metrics().filter(|_| done) {
            metrics.replaced_body();
        }
        done
    }

    /// Tells the MTA at once that the filter is still working. Whole packets only, from whichever thread.
    pub(crate) fn progress(&self) -> bool {
        let mut core = self.core();
        core.engine.progress();
        let done = self.flush(&mut core);
        if let Some(observer) = self.observer() {
            observer.progressed(if done { Ok(()) } else { Err(CallError::Unreachable) });
        }
        done
    }

    /// Notes that `call` has arguments that cannot be used, and so does nothing: false.
    pub(crate) fn refuse_arguments(&self, call: &str) -> bool {
        if let Some(observer) = self.observer() {
            observer.refused(call);
        }
        false
    }

    /// Appends what has come from the MTA, within the room; says how much.
    pub(super) fn receive(&self, room: &mut Vec<u8>) -> io::Result<usize> {
        let len = socket::receive(self.connection(), room)?;
        if let Some(observer) = self.observer() {
            observer.received(&room[room.len() - len..]);
        }
        if let Some(metrics) = self.metrics() {
            metrics.received(len);
        }
        Ok(len)
    }

    /// Sends all replies gathered.
    pub(super) fn flush(&self, core: &mut Core) -> bool {
        core.engine.output().is_empty() || self.send(core, &[])
    }

    /// Sends the replies gathered and then `tail`, waiting for room as long as the timeout allows each time.
    fn send(&self, core: &mut Core, tail: &[u8]) -> bool {
        let mut output = std::mem::take(core.engine.output());
        if core.broken.is_none() {
            match self.send_all(&output, tail) {
                Ok(()) => {
                    if let Some(observer) = self.observer() {
                        observer.sent(&output, tail);
                    }
                }
                Err(error) => core.broken = Some(error.kind()),
            }
        }
        if output.capacity() <= KEEP {
            output.clear();
            *core.engine.output() = output;
        }
        core.broken.is_none()
    }

    fn send_all(&self, mut head: &[u8], mut tail: &[u8]) -> io::Result<()> {
        while !head.is_empty() || !tail.is_empty() {
            let parts = if head.is_empty() { [tail, &[]] } else { [head, tail] };
            match socket::send(self.connection(), &parts) {
                Ok(sent) => {
                    if let Some(metrics) = self.metrics() {
                        metrics.sent(sent);
                    }
                    let of_head = sent.min(head.len());
                    head = &head[of_head..];
                    tail = &tail[sent - of_head..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let [false] = poll::wait([(self.connection(), Interest::Write)], self.server.timeout())? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Core {
    /// What came of a change that needs `action`.
    fn outcome(&self, done: bool, action: Actions) -> Result<(), CallError> {
        match self.engine.obstacle(action) {
            _ if done => Ok(()),
            _ if self.broken.is_some() => Err(CallError::Unreachable),
            Some(obstacle) => Err(CallError::Obstacle(obstacle)),
            None => Err(CallError::TooLarge),
        }
    }

    /// Whether to give the session up because of a write that failed. If the peer has merely gone, what it said before
    /// is still worth serving.
    pub(super) fn is_lost(&self) -> bool {
        self.broken.is_some_and(|kind| !matches!(kind, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset))
    }
}
