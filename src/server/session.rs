//! One session: octets from the socket, frames, commands, callbacks, replies.

use std::ffi::c_int;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use milter_protocol::command::{CommandCode, PayloadError};
use milter_protocol::frame::{self, HEADER_LEN};
use milter_protocol::{Callback, Callbacks, Failure, Notice, State};
use parking_lot::MutexGuard;

use super::admission::Seat;
use super::buffer::{Buffer, Scratch, Spare};
use super::context::{Context, Core};
use super::log::Level;
use crate::model::{self, Next, Pace};
use crate::sys::error::Reason;
use crate::sys::memory;

/// A session, owned by whoever serves it.
pub(crate) struct Session {
    context: Arc<Context>,
    /// The start of a frame of which the rest has not come.
    kept: Option<Box<Buffer>>,
    in_message: bool,
    negotiated: bool,
    /// Its place among the sessions that there may be; sessions that are refused have none.
    _seat: Option<Seat>,
}

/// Why nothing more is received, as debug output numbers it.
#[derive(Clone, Copy)]
enum ReadEnd {
    Timeout = 1,
    NoMemory = 3,
    Error = 4,
    EndOfStream = 5,
    BadLength = 7,
}

impl model::Session for Session {
    type Scratch = Scratch;

    const KINDS: usize = Callbacks::COUNT;

    fn connection(&self) -> BorrowedFd<'_> {
        self.context.connection()
    }

    fn serve(&mut self, scratch: &mut Scratch, pace: &mut dyn Pace, hang_up: bool) -> Next {
        let Scratch { spare, output } = scratch;
        let mut kept = self.kept.take();
        let next = self.guarded(output, pace, |step| step.receive(spare, &mut kept, hang_up));
        self.kept = kept;
        next
    }

    fn expire(&mut self, pace: &mut dyn Pace) -> Next {
        let what = if self.negotiated { "sent nothing" } else { "did not negotiate" };
        self.guarded(&mut Vec::new(), pace, |step| {
            let context = step.context;
            MutexGuard::unlocked(&mut step.core, || context.server.report_timeout(context.number, what));
            step.disconnect(ReadEnd::Timeout)
        })
    }

    fn fail(&mut self, error: &io::Error, pace: &mut dyn Pace) -> Next {
        self.guarded(&mut Vec::new(), pace, |step| {
            step.report(format_args!("cannot wait for the MTA: {}", Reason(error)));
            step.disconnect(ReadEnd::Error)
        })
    }

    fn is_introduced(&self) -> bool {
        self.negotiated
    }

    fn in_message(&self) -> bool {
        self.in_message
    }
}

impl Session {
    pub(super) fn new(context: Arc<Context>, seat: Option<Seat>) -> Self {
        Session { context, kept: None, in_message: false, negotiated: false, _seat: seat }
    }

    /// Takes one step, with room for replies. A panic in it ends this session and nothing else.
    fn guarded(&mut self, output: &mut Vec<u8>, pace: &mut dyn Pace, take: impl FnOnce(&mut Step<'_>) -> Next) -> Next {
        let mut step = Step { context: &self.context, core: self.context.core(), pace };
        std::mem::swap(step.core.engine.output(), output);
        let next = catch_unwind(AssertUnwindSafe(|| take(&mut step))).unwrap_or_else(|_| {
            step.report(format_args!("internal error, the session is ended"));
            // The filter still frees what it holds, unless that is what fails.
            let end = AssertUnwindSafe(|| {
                step.core.engine.handle_disconnect();
                step.run_callbacks(&mut [])
            });
            catch_unwind(end).unwrap_or(Next::End)
        });
        let core = &mut step.core;
        if next.is_over() {
            // What was not sent is not for the next session.
            core.engine.output().clear();
        }
        std::mem::swap(core.engine.output(), output);
        self.in_message = !next.is_over() && core.engine.in_message();
        self.negotiated = core.engine.state() != State::Init;
        drop(step);
        if next == Next::End {
            self.context.check_private();
        }
        next
    }
}

/// One step of a session. Its state is locked but for callbacks, and where the operator is told something.
struct Step<'a> {
    context: &'a Arc<Context>,
    core: MutexGuard<'a, Core>,
    pace: &'a mut dyn Pace,
}

impl Step<'_> {
    /// Reads once and serves every whole frame, the one of which a part was kept first.
    fn receive(&mut self, spare: &mut Spare, kept: &mut Option<Box<Buffer>>, hang_up: bool) -> Next {
        let mut buffer = match spare.take(kept.take().map(|kept| *kept)) {
            Ok(buffer) => buffer,
            Err(error) => return self.give_up_reading(&error),
        };
        let next = match buffer.fill(|room| self.context.receive(room)) {
            Ok((0, _)) => self.end_of_stream(),
            Ok((_, full)) => {
                self.core.heard = true;
                match self.serve_frames(&mut buffer) {
                    Next::Wait if full || hang_up => Next::More,
                    next => next,
                }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => Next::Wait,
                io::ErrorKind::Interrupted => Next::More,
                // The MTA has hung up with a reply unread, or to save time, as health checks do.
                _ if is_hang_up(error.kind()) => self.end_of_stream(),
                _ => self.give_up_reading(&error),
            },
        };
        match spare.give_back(buffer) {
            Ok(buffer) => *kept = buffer.map(Box::new),
            Err(error) if !next.is_over() => return self.give_up_reading(&error),
            Err(_) => {}
        }
        next
    }

    fn serve_frames(&mut self, buffer: &mut Buffer) -> Next {
        loop {
            match frame::parse(buffer.received(), self.core.engine.limit()) {
                Ok(Some(header)) if header.frame_len() <= buffer.received().len() => {
                    let payload = &mut buffer.received()[HEADER_LEN..header.frame_len()];
                    let next = self.serve_command(header.code, payload);
                    if next.is_over() {
                        return next;
                    }
                    buffer.consume(header.frame_len());
                }
                Ok(Some(header)) => {
                    return match buffer.expect(header.frame_len()) {
                        Ok(()) => Next::Wait,
                        Err(error) => self.give_up_reading(&error),
                    };
                }
                Ok(None) => return Next::Wait,
                Err(error) => {
                    self.tell_read_end(ReadEnd::BadLength);
                    self.core.engine.handle_frame_error(error);
                    return self.run_callbacks(&mut []);
                }
            }
        }
    }

    fn serve_command(&mut self, code: u8, payload: &mut [u8]) -> Next {
        let context = self.context;
        context.debug(4, || format!("got cmd '{}' len {}", code.escape_ascii(), payload.len()));
        context.debug(5, || {
            let state = self.core.engine.state();
            let wanted = CommandCode::from_letter(code).and_then(State::after).unwrap_or(state);
            format!("cur {:x} new {:x} nextmask {:x}", state as u8, wanted as u8, state.successors())
        });
        if let Some(observer) = context.observer() {
            observer.command(code, payload);
        }
        if !memory::is_available(MEMORY_PER_BYTE * payload.len()) && takes_memory(code) {
            self.core.engine.handle_lack_of_memory();
        } else {
            self.core.engine.handle_command(code, payload);
        }
        let next = self.run_callbacks(payload);
        if next.is_over() {
            return next;
        }
        if code == CommandCode::EndOfBody.letter()
            && let Some(metrics) = context.metrics()
        {
            metrics.message();
        }
        if context.server.aborting() {
            context.debug(3, || "abort".into());
            self.core.engine.handle_disconnect();
            return self.run_callbacks(&mut []);
        }
        Next::Wait
    }

    /// Runs the callbacks that are due, and sends what answers the command.
    fn run_callbacks(&mut self, payload: &mut [u8]) -> Next {
        let context = self.context;
        loop {
            let callback = self.core.engine.poll_callback(payload);
            if let Some(notice) = self.core.engine.poll_notice() {
                MutexGuard::unlocked(&mut self.core, || context.tell(notice));
            }
            let Some(mut callback) = callback else {
                if self.core.engine.is_finished() {
                    break;
                }
                context.flush(&mut self.core);
                if !self.core.is_lost() {
                    return Next::Wait;
                }
                self.give_up_sending();
                continue;
            };
            let pace = &mut *self.pace;
            let Some(value) = MutexGuard::unlocked(&mut self.core, || run_callback(context, &mut callback, pace))
            else {
                // The filter may have left anything behind: not even xxfi_close is called.
                self.report(format_args!("a callback has ended its thread, the session is ended"));
                return Next::Exit;
            };
            match callback {
                _ if self.core.is_lost() && !self.core.engine.is_finished() => self.give_up_sending(),
                Callback::Negotiate(offer) => self.core.engine.answer_negotiation(value, &offer),
                _ => self.core.engine.answer(value),
            }
        }
        context.flush(&mut self.core);
        let failure = self.core.engine.failure();
        MutexGuard::unlocked(&mut self.core, || context.tell_failure(failure));
        Next::End
    }

    fn end_of_stream(&mut self) -> Next {
        let context = self.context;
        if !self.core.heard && !context.is_refused() {
            MutexGuard::unlocked(&mut self.core, || context.server.tell_visit(context.number));
        }
        self.disconnect(ReadEnd::EndOfStream)
    }

    fn give_up_sending(&mut self) {
        self.core.engine.handle_disconnect();
        self.report(format_args!("the MTA does not take the reply"));
    }

    fn give_up_reading(&mut self, error: &io::Error) -> Next {
        let (end, what) = match error.kind() {
            io::ErrorKind::OutOfMemory => (ReadEnd::NoMemory, "no memory for what the MTA sends"),
            _ => (ReadEnd::Error, "read returned -1"),
        };
        self.report(format_args!("{what}: {}", Reason(error)));
        self.disconnect(end)
    }

    fn disconnect(&mut self, end: ReadEnd) -> Next {
        self.tell_read_end(end);
        self.core.engine.handle_disconnect();
        self.run_callbacks(&mut [])
    }

    fn tell_read_end(&self, end: ReadEnd) {
        self.context.debug(5, || format!("mi_engine: mi_rd_cmd error ({:x})", end as u8));
    }

    fn report(&mut self, text: fmt::Arguments<'_>) {
        let context = self.context;
        MutexGuard::unlocked(&mut self.core, || context.report(Level::Error, text));
    }
}

/// Whether an error of the connection says that the MTA has hung up. Any other means that nobody has: the network or the
/// system fails.
pub(super) fn is_hang_up(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset)
}

/// Bytes that a command may take, for each byte of it: each of its strings gets a pointer or a number, and may be empty.
const MEMORY_PER_BYTE: usize = 1 + size_of::<usize>();

/// Whether a command of this letter is kept, or its arguments are listed for the filter. How much memory that needs is up
/// to the MTA, and not for the reserve.
fn takes_memory(code: u8) -> bool {
    use CommandCode::{Macro, Mail, Rcpt, Unknown};
    matches!(CommandCode::from_letter(code), Some(Macro | Mail | Rcpt | Unknown))
}

/// Runs one callback. What it asks the library for takes the lock of the session.
fn run_callback(context: &Arc<Context>, callback: &mut Callback<'_>, pace: &mut dyn Pace) -> Option<c_int> {
    let kind = callback.kind();
    let watched = context.server.watch().and_then(|watch| watch.enter(context, kind));
    pace.begin(kind.index());
    let timer = context.metrics().map(|metrics| metrics.timer(kind));
    let value = context.call(context.filter(), callback);
    if let Some(timer) = timer {
        timer.stop(value);
    }
    pace.end(kind.index());
    drop(watched);
    value
}

/// A transition that is not possible, for debug output: states by number and as bits.
fn refused(command: CommandCode, state: State) -> String {
    let wanted = State::after(command).unwrap_or(state) as u8;
    let current = state as u8;
    format!(
        "{command}: abort: cur {current} (0x{:x}) new {wanted} (0x{:x}) next 0x{:x}",
        1 << current,
        1 << wanted,
        state.successors()
    )
}

/// Telling the operator about a session.
impl Context {
    pub(super) fn report(&self, level: Level, text: fmt::Arguments<'_>) {
        if let Some(observer) = self.observer() {
            observer.logged(text);
        }
        self.server.report(level, format_args!("[{}] {text}", self.number));
    }

    /// Tells the operator that a callback was not called because there was no memory for its arguments.
    pub(crate) fn report_lack_of_memory(&self, callback: Callbacks) {
        let callback = callback.c_name();
        let text = format_args!("out of memory: {callback} is not called, and the command is refused for now");
        self.report(Level::Error, text);
    }

    /// Writes a line of debug output if the filter has asked for more than `level`.
    fn debug(&self, level: i32, text: impl FnOnce() -> String) {
        self.server.debug(level, || format!("[{}] {}", self.number, text()));
    }

    fn tell(&self, notice: Notice) {
        match notice {
            Notice::BrokenPromise { .. } | Notice::ReplyDue(_) => self.report(Level::Error, format_args!("{notice}")),
            Notice::Negotiated { .. } => self.debug(3, || notice.to_string()),
            Notice::Ignored { command, state } => self.debug(1, || refused(command, state)),
        }
    }

    fn tell_failure(&self, failure: Option<Failure>) {
        if let Some(observer) = self.observer() {
            observer.ended(failure);
        }
        if let (Some(metrics), Some(failure)) = (self.metrics(), failure) {
            metrics.failed(failure);
        }
        let number = self.number;
        match failure {
            None | Some(Failure::Connection) => {}
            Some(Failure::Negotiation(error)) => {
                self.server.report(Level::Error, format_args!("st_optionneg[{number}]: {error}"));
            }
            Some(Failure::Payload(CommandCode::Connect, error)) if error != PayloadError::Unterminated => {
                self.server.report(Level::Error, format_args!("connect[{number}]: {error}"));
            }
            Some(failure) => {
                self.debug(1, || match failure {
                    Failure::OutOfOrder { command, state } => refused(command, state),
                    failure => failure.to_string(),
                });
                self.report(Level::Error, format_args!("{failure}"));
            }
        }
    }

    /// The filter should have freed its own data by now.
    fn check_private(&self) {
        if !self.private().is_null() {
            self.server.report_private_data();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use milter_protocol::{Actions, Command, Modification, Profile, Steps};
    use parking_lot::Mutex;

    use super::*;
    use crate::model::Session as _;
    use crate::server::Filter;
    use crate::server::service::Server;

    /// Panics when the sender is `<panic>`, at the end of a message with a change not sent yet, and in xxfi_close if told so.
    #[derive(Default)]
    struct Fragile {
        called: Arc<Mutex<Vec<&'static str>>>,
        panic_in_close: bool,
    }

    impl Filter for Fragile {
        fn name(&self) -> &CStr {
            c"fragile"
        }

        fn profile(&self) -> Profile {
            let callbacks = Callbacks::ENVFROM | Callbacks::EOM | Callbacks::ABORT | Callbacks::CLOSE;
            Profile { version: 0x0100_0001, actions: Actions::QUARANTINE, callbacks, promised: Steps::empty() }
        }

        fn call(&self, context: &Context, callback: &mut Callback<'_>) -> Option<c_int> {
            match callback {
                Callback::EnvFrom(arguments) => {
                    assert!(!arguments.bytes().starts_with(b"<panic>"), "as asked");
                    self.called.lock().push("envfrom");
                }
                Callback::Eom => {
                    assert!(context.modify(Modification::Quarantine { reason: b"unsent" }));
                    panic!("as asked");
                }
                Callback::Abort => self.called.lock().push("abort"),
                Callback::Close if self.panic_in_close => panic!("again"),
                Callback::Close => self.called.lock().push("close"),
                other => unreachable!("{other:?} is not registered"),
            }
            Some(0)
        }
    }

    struct Peer {
        stream: UnixStream,
        session: Session,
        scratch: Scratch,
    }

    impl Peer {
        fn new(server: &Arc<Server>) -> Self {
            let (stream, connection) = UnixStream::pair().unwrap();
            let context = Context::new(Arc::clone(server), 1, connection.into());
            Peer { stream, session: Session::new(Arc::new(context), None), scratch: Scratch::default() }
        }

        fn say(&mut self, command: &Command<'_>) -> Next {
            let mut wire = Vec::new();
            command.encode(&mut wire);
            self.stream.write_all(&wire).unwrap();
            self.session.serve(&mut self.scratch, &mut (), false)
        }

        fn negotiate(&mut self) {
            let offer = Command::Negotiate { version: 6, actions: Actions::VERSION_6, steps: Steps::VERSION_6 };
            assert_eq!(self.say(&offer), Next::Wait);
            self.stream.read_exact(&mut [0; 17]).unwrap();
        }

        fn mail(&mut self, sender: &'static [u8]) -> Next {
            self.say(&Command::Mail(vec![sender]))
        }
    }

    #[test]
    fn a_panic_costs_one_session() {
        let filter = Fragile::default();
        let called = Arc::clone(&filter.called);
        let server = Arc::new(Server::for_test(Arc::new(filter)));
        let (mut unlucky, mut other) = (Peer::new(&server), Peer::new(&server));
        unlucky.negotiate();
        other.negotiate();
        assert_eq!(other.mail(b"<a>"), Next::Wait);
        assert_eq!(unlucky.mail(b"<panic>"), Next::End);
        assert_eq!(*called.lock(), ["envfrom", "abort", "close"]);
        assert_eq!(other.mail(b"<b>"), Next::Wait);
        assert!(other.session.in_message());
        assert!(!unlucky.session.in_message());
    }

    #[test]
    fn a_panic_while_ending_a_session_costs_no_more() {
        let server = Arc::new(Server::for_test(Arc::new(Fragile { panic_in_close: true, ..Fragile::default() })));
        let mut unlucky = Peer::new(&server);
        unlucky.negotiate();
        assert_eq!(unlucky.mail(b"<panic>"), Next::End);
    }

    #[test]
    fn what_a_session_has_not_sent_is_not_for_the_next() {
        let server = Arc::new(Server::for_test(Arc::new(Fragile { panic_in_close: true, ..Fragile::default() })));
        let mut unlucky = Peer::new(&server);
        unlucky.negotiate();
        assert_eq!(unlucky.mail(b"<a>"), Next::Wait);
        assert_eq!(unlucky.say(&Command::EndOfBody(b"")), Next::End);
        assert_eq!(unlucky.scratch.output, b"");
    }

    #[test]
    fn a_command_in_pieces_is_one_command() {
        let filter = Fragile::default();
        let called = Arc::clone(&filter.called);
        let server = Arc::new(Server::for_test(Arc::new(filter)));
        let mut peer = Peer::new(&server);
        peer.negotiate();
        let mut wire = Vec::new();
        Command::Mail(vec![b"<a>"]).encode(&mut wire);
        for octet in wire {
            assert_eq!(*called.lock(), [""; 0]);
            peer.stream.write_all(&[octet]).unwrap();
            assert_eq!(peer.session.serve(&mut peer.scratch, &mut (), false), Next::Wait);
        }
        assert_eq!(*called.lock(), ["envfrom"]);
        peer.stream.shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!(peer.session.serve(&mut peer.scratch, &mut (), true), Next::End);
        assert_eq!(*called.lock(), ["envfrom", "abort", "close"]);
    }
}
