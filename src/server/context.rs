//! What the filter knows a session by, and what its callbacks can ask for.
//!
//! Callbacks re-enter the library, and some calls come from other threads. So a context is only ever shared, and what
//! changes in it is behind a lock that is held for one call, and neither while a callback runs nor while the peer has to
//! make room for what is sent: a call that sends nothing never waits for the peer.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};
use std::time::Instant;

use milter_protocol::frame::HEADER_LEN;
use milter_protocol::reply::body_chunks;
use milter_protocol::{Callback, Callbacks, Engine, Escaped, Modification, Profile, SmtpReply, SmtpReplyError, Stage};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::Filter;
use super::admission::Refusal;
use super::log::Level;
use super::metrics::Metrics;
use super::observer::{CallError, Observer};
use super::service::Server;
use super::session::is_hang_up;
use super::settings;
use crate::model::{self, Service};
use crate::sys::poll::{self, Interest};
use crate::sys::{fork_mark, process, signal, socket};

/// Replies that gather up to this many bytes are sent together.
const BATCH_LIMIT: usize = 64 * 1024;

/// Bytes of a queue id that are shown. It is the MTA's word, and may be anything.
const MAX_QUEUE_ID: usize = 100;

/// Room for replies that a thread keeps, in bytes.
const KEPT_CAPACITY: usize = 4 * 1024;

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
    /// What was being sent has been sent, or cannot be.
    sent: Condvar,
}

/// The part of a session that changes.
pub(super) struct Core {
    pub(super) engine: Engine,
    /// Whether anything has come from the MTA.
    pub(super) heard: bool,
    /// Why nothing can be sent any more: a write failed and may have left half a packet.
    broken: Option<io::ErrorKind>,
    /// A thread waits, without the lock, until the peer takes the rest of what it sends. Others that have something to send
    /// come after it.
    sending: bool,
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
            core: Mutex::new(Core { engine, heard: false, broken: None, sending: false }),
            sent: Condvar::new(),
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
        let mark = fork_mark::current();
        let observed = self.observer().map(|observer| (observer, Instant::now()));
        let value = filter.call(self, callback);
        if fork_mark::current() != mark {
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
        let id =
            core.engine.macro_value(b"i")?.iter().map(Cell::get).take_while(|octet| *octet != 0).take(MAX_QUEUE_ID);
        Some(Escaped(&id.collect::<Vec<_>>()).to_string())
    }

    /// Stores the reply for a later refusal, as `call` wants; false when it is none.
    pub(crate) fn set_reply(&self, call: &str, reply: Result<SmtpReply, SmtpReplyError>) -> bool {
        if let Some(observer) = self.observer() {
            observer.set_reply(call, &reply);
        }
        reply.map(|reply| self.core().engine.store_reply(reply)).is_ok()
    }

    /// Asks the MTA for macros at a stage; false when that was done before, or there is no memory.
    pub(crate) fn request_macros(&self, stage: Stage, names: &[u8]) -> bool {
        let outcome = self.core().engine.request_macros(stage, names);
        if let Some(observer) = self.observer() {
            observer.requested_macros(stage, names, outcome);
        }
        outcome.is_ok()
    }

    /// Changes the message; false when it is not allowed now, too large, or cannot be delivered.
    pub(crate) fn modify(&self, modification: Modification<'_>) -> bool {
        let mut core = self.core();
        let outcome = self.append(&mut core, &modification);
        if let Some(observer) = self.observer() {
            observer.modified(&modification, outcome);
        }
        if let Some(metrics) = self.metrics().filter(|_| outcome.is_ok()) {
            metrics.modified(&modification);
        }
        outcome.is_ok()
    }

    fn append(&self, core: &mut MutexGuard<'_, Core>, modification: &Modification<'_>) -> Result<(), CallError> {
        core.check_connection()?;
        core.engine.modify(modification).map_err(CallError::Modification)?;
        if core.engine.output().len() > BATCH_LIMIT && !self.flush(core) {
            return Err(CallError::Unreachable);
        }
        Ok(())
    }

    /// Replaces the body by, or adds to its replacement, these bytes. Nothing comes between the packets of one call.
    pub(crate) fn replace_body(&self, body: &[u8]) -> bool {
        let mut core = self.core();
        let outcome = self.append_body(&mut core, body);
        if let Some(observer) = self.observer() {
            observer.replaced_body(body, outcome);
        }
        if let Some(metrics) = self.metrics().filter(|_| outcome.is_ok()) {
            metrics.replaced_body();
        }
        outcome.is_ok()
    }

    fn append_body(&self, core: &mut MutexGuard<'_, Core>, body: &[u8]) -> Result<(), CallError> {
        let mut chunks = body_chunks(body).enumerate().peekable();
        while let Some((number, chunk)) = chunks.next() {
            core.check_connection()?;
            let head = core.engine.body_packet(chunk.len()).map_err(CallError::Modification)?;
            let is_last = chunks.peek().is_none();
            let output = core.engine.output();
            // While an earlier packet waited for the peer, another thread may have left what has to come behind the last.
            let (is_next, len) = (number == 0 || output.is_empty(), head.len() + chunk.len());
            let fits = is_last && is_next && output.len() + len <= BATCH_LIMIT;
            // With room for the verdict behind it, which must not fail.
            if fits && output.try_reserve(len + HEADER_LEN).is_ok() {
                output.extend_from_slice(&head);
                output.extend_from_slice(chunk);
                return Ok(());
            }
            self.wait_for_turn(core);
            let before = if number == 0 { std::mem::take(core.engine.output()) } else { Vec::new() };
            if !self.send(core, before, [&head, chunk]) {
                return Err(CallError::Unreachable);
            }
        }
        Ok(())
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

    /// Sends all replies gathered. Other threads have the lock while the peer does not take them.
    pub(super) fn flush(&self, core: &mut MutexGuard<'_, Core>) -> bool {
        self.wait_for_turn(core);
        if core.engine.output().is_empty() {
            return true;
        }
        let output = std::mem::take(core.engine.output());
        self.send(core, output, [&[], &[]])
    }

    /// Waits until no other thread is sending.
    fn wait_for_turn(&self, core: &mut MutexGuard<'_, Core>) {
        while core.sending {
            self.sent.wait(core);
        }
    }

    /// Sends `output` and then `packet`, given as its head and its payload, waiting for room as long as the timeout allows
    /// each time. It has to be the turn of this thread.
    fn send(&self, core: &mut MutexGuard<'_, Core>, mut output: Vec<u8>, packet: [&[u8]; 2]) -> bool {
        if core.broken.is_none() {
            let parts = [&output[..], packet[0], packet[1]];
            let outcome = match socket::send(self.connection(), &parts) {
                Ok(sent) if sent == parts.iter().map(|part| part.len()).sum() => {
                    self.count_sent(sent);
                    Ok(())
                }
                outcome => self.send_rest(core, parts, outcome),
            };
            match outcome {
                Ok(()) => {
                    if let Some(observer) = self.observer() {
                        observer.sent(&output, packet);
                    }
                }
                Err(error) => core.broken = Some(error.kind()),
            }
        }
        if output.capacity() <= KEPT_CAPACITY && core.engine.output().is_empty() {
            output.clear();
            *core.engine.output() = output;
        }
        core.broken.is_none()
    }

    /// Sends what is left of `parts` after a first attempt, whenever the peer takes some of it, and meanwhile leaves the
    /// lock to other threads.
    #[cold]
    fn send_rest(
        &self,
        core: &mut MutexGuard<'_, Core>,
        mut parts: [&[u8]; 3],
        mut attempt: io::Result<usize>,
    ) -> io::Result<()> {
        core.sending = true;
        let mut failed = 0;
        let outcome = MutexGuard::unlocked(core, || {
            loop {
                match attempt {
                    Ok(sent) => {
                        self.count_sent(sent);
                        skip(&mut parts, sent);
                        if parts.iter().all(|part| part.is_empty()) {
                            return Ok(());
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        let ready = poll::wait([(self.connection(), Interest::Write)], self.server.timeout());
                        if let Some([false]) = model::wait_out_for_session(&*self.server, ready, &mut failed)? {
                            return Err(io::ErrorKind::TimedOut.into());
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
                attempt = socket::send(self.connection(), &parts);
            }
        });
        core.sending = false;
        self.sent.notify_all();
        outcome
    }

    fn count_sent(&self, bytes: usize) {
        if let Some(metrics) = self.metrics() {
            metrics.sent(bytes);
        }
    }
}

/// Takes so many bytes off the front of `parts`.
fn skip(parts: &mut [&[u8]; 3], mut bytes: usize) {
    for part in parts {
        let of_part = bytes.min(part.len());
        *part = &part[of_part..];
        bytes -= of_part;
    }
}

impl Core {
    /// Fails when the MTA cannot be reached any more.
    fn check_connection(&self) -> Result<(), CallError> {
        if self.broken.is_none() { Ok(()) } else { Err(CallError::Unreachable) }
    }

    /// Whether to give the session up because of a write that failed. If the peer has merely gone, what it said before
    /// is still worth serving.
    pub(super) fn is_lost(&self) -> bool {
        self.broken.is_some_and(|kind| !is_hang_up(kind))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::thread;
    use std::time::Duration;

    use milter_protocol::{Actions, Command, Reply, Steps, frame};

    use super::*;
    use crate::model::{Next, Session as _};
    use crate::server::buffer::Scratch;
    use crate::server::session::Session;

    /// Bytes of a body that no socket takes at once.
    const LARGE: usize = 4 << 20;

    /// At the end of a message, has calls made by several threads while the peer does not read.
    struct Busy {
        peer_may_read: AtomicBool,
    }

    fn wait_until(condition: impl Fn() -> bool) {
        while !condition() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    impl Filter for Busy {
        fn name(&self) -> &CStr {
            c"busy"
        }

        fn profile(&self) -> Profile {
            let actions = Actions::CHANGE_BODY | Actions::QUARANTINE;
            Profile { version: 0x0100_0001, actions, callbacks: Callbacks::EOM, promised: Steps::empty() }
        }

        fn call(&self, context: &Context, _: &mut Callback<'_>) -> Option<c_int> {
            thread::scope(|scope| {
                let body = scope.spawn(|| context.replace_body(&vec![b'x'; LARGE]));
                wait_until(|| context.core().sending);
                // These send nothing. With the lock held by the other thread, they would wait for ever.
                assert!(context.macro_value(b"i").is_none());
                assert!(context.set_reply("smfi_setreply", SmtpReply::single(b"451", None, None)));
                assert!(context.modify(Modification::Quarantine { reason: b"later" }));
                assert!(!body.is_finished());
                let progress = scope.spawn(|| context.progress());
                self.peer_may_read.store(true, SeqCst);
                assert!(body.join().unwrap() && progress.join().unwrap());
            });
            Some(0)
        }
    }

    #[test]
    fn calls_that_send_nothing_do_not_wait_for_the_peer() {
        let filter = Arc::new(Busy { peer_may_read: AtomicBool::new(false) });
        let server = Arc::new(Server::for_test(filter.clone()));
        let (mut peer, connection) = UnixStream::pair().unwrap();
        let context = Arc::new(Context::new(server, 1, connection.into()));
        let mut session = Session::new(context, None);
        let mut writer = peer.try_clone().unwrap();
        let mut serve = |command: &Command<'_>| {
            let mut wire = Vec::new();
            command.encode(&mut wire);
            writer.write_all(&wire).unwrap();
            session.serve(&mut Scratch::default(), &mut (), false)
        };
        let offer = Command::Negotiate { version: 6, actions: Actions::VERSION_6, steps: Steps::VERSION_6 };
        assert_eq!(serve(&offer), Next::Wait);
        assert_eq!(serve(&Command::Mail(vec![b"<a>"])), Next::Wait);
        let reader = thread::spawn(move || {
            wait_until(|| filter.peer_may_read.load(SeqCst));
            let mut wire = Vec::new();
            peer.read_to_end(&mut wire).unwrap();
            wire
        });
        assert_eq!(serve(&Command::EndOfBody(b"")), Next::Wait);
        drop(session);
        let wire = reader.join().unwrap();
        let mut rest = &wire[..];
        let mut letters = Vec::new();
        while let Some(header) = frame::parse(rest, frame::DEFAULT_LIMIT).unwrap() {
            Reply::decode(header.code, &rest[frame::HEADER_LEN..header.frame_len()]).unwrap();
            letters.push(header.code);
            rest = &rest[header.frame_len()..];
        }
        letters.dedup();
        assert_eq!(letters.escape_ascii().to_string(), "Ocbqpc");
    }
}
