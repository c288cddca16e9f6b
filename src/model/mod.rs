//! Concurrency: decides when a session runs and on which thread or process, never what it does.
//!
//! A model gets listeners and a [`Service`] that makes sessions out of connections. It runs each session whenever
//! something has arrived for it, never two steps of one session at once, and never has a session wait for the callback
//! of another one.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "the only model of other systems needs less"))]

#[cfg(target_os = "linux")]
mod children;
#[cfg(target_os = "linux")]
mod fork;
#[cfg(target_os = "linux")]
mod pool;
#[cfg(target_os = "linux")]
mod processes;
#[cfg(test)]
mod tests;
mod threads;

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::num::NonZero;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
pub(crate) use children::alone;
#[cfg(target_os = "linux")]
pub(crate) use fork::Fork;
#[cfg(target_os = "linux")]
pub(crate) use pool::Pool;
#[cfg(target_os = "linux")]
pub(crate) use processes::Processes;
pub(crate) use threads::Threads;

use crate::sys::cancellation::Cancellation;
use crate::sys::poll;
use crate::sys::socket::{Acceptor, Family};
use crate::sys::thread::{self, JoinHandle};

/// One connection with an MTA, as far as a model has to know it.
pub(crate) trait Session: Send + 'static {
    /// What a thread keeps for the sessions it serves, one after another.
    type Scratch: Default;

    /// How many kinds of callbacks there are.
    const KINDS: usize;

    /// The connection.
    fn connection(&self) -> BorrowedFd<'_>;

    /// Reads once what has arrived and serves it, without waiting for more. `hang_up` says that the peer may have sent
    /// its last: the session asks for more steps then until there is nothing left to read.
    fn serve(&mut self, scratch: &mut Self::Scratch, pace: &mut dyn Pace, hang_up: bool) -> Next;

    /// Ends the session because nothing has arrived in time.
    fn expire(&mut self, pace: &mut dyn Pace) -> Next;

    /// Ends the session because nothing more can be heard of the peer.
    fn fail(&mut self, error: &io::Error, pace: &mut dyn Pace) -> Next;

    /// Whether the peer has said who it is, as far as that matters.
    fn is_introduced(&self) -> bool;

    /// Whether a message is in progress, for which a stop waits.
    fn in_message(&self) -> bool;
}

/// What a session tells while it serves: a callback may take its time.
pub(crate) trait Pace {
    /// A callback of a kind, below [`Session::KINDS`], is about to run.
    fn begin(&mut self, kind: usize);

    /// It has returned.
    fn end(&mut self, kind: usize);
}

/// For models in which nobody waits for a callback but its own session.
impl Pace for () {
    fn begin(&mut self, _: usize) {}

    fn end(&mut self, _: usize) {}
}

/// What a session needs after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another step when something arrives.
    Wait,
    /// Another step soon, there may be more to read.
    More,
    /// Nothing: it is over.
    End,
    /// Nothing: it is over, and so is this thread, which may finish what the model has it do and then has to end.
    Exit,
}

impl Next {
    /// Whether the session is over.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Next::End | Next::Exit)
    }
}

/// Makes sessions, and says when to stop.
pub(crate) trait Service: Send + Sync + 'static {
    /// The sessions it makes.
    type Session: Session;

    /// Whether another process can serve a connection for which this one has no thread: it is to take none then before
    /// there is one.
    const HAS_PEERS: bool = false;

    /// Takes one connection from a listener, and counts it among those that have a session unless it is refused.
    fn accept(&self, listener: &Acceptor) -> Admission<Connection>;

    /// Makes a session of a connection. Dropping it is told to [`Self::depart`].
    fn open(self: &Arc<Self>, connection: Connection) -> Self::Session;

    /// Takes one connection from a listener and makes a session of it.
    fn admit(self: &Arc<Self>, listener: &Acceptor) -> Admission<Self::Session> {
        match self.accept(listener) {
            Admission::Taken(connection) => Admission::Taken(self.open(connection)),
            Admission::Empty => Admission::Empty,
            Admission::Again => Admission::Again,
            Admission::Pause => Admission::Pause,
        }
    }

    /// Counts sessions as over, in whichever process they were.
    fn depart(&self, sessions: usize);

    /// Told by the loop that takes connections or events that it turns, each time before it waits. Says how long that may
    /// be at most.
    fn turn(&self) -> Option<Duration>;

    /// How long a new connection may take to introduce itself; `None` is as long as any silence.
    fn introduction(&self) -> Option<Duration>;

    /// How long a session may be silent; `None` is forever.
    fn timeout(&self) -> Option<Duration>;

    /// How long a stop waits for callbacks and messages in progress.
    fn drain(&self) -> Duration;

    /// How many threads may run callbacks at once, for a model that chooses; `None` is as many as are needed.
    fn threads(&self) -> Option<NonZero<u16>>;

    /// Whether the model is to stop.
    fn stopping(&self) -> bool;

    /// Readable from the moment the model is to stop.
    fn stop_descriptor(&self) -> BorrowedFd<'_>;

    /// Makes the calling process, which a model has forked, one of those that run the service.
    fn forked(&self);

    /// Finishes what the service has under way in such a process, which may end any moment from now on.
    fn leaving(&self);

    /// Tells the operator that connections have to wait because there are no descriptors for them.
    fn exhausted(&self, error: &io::Error);

    /// Tells the operator about sessions that are lost with their process.
    fn lost(&self, what: fmt::Arguments<'_>);

    /// Tells the operator about something that is to be watched, and about its end.
    fn warn(&self, what: fmt::Arguments<'_>);

    /// Tells the operator that something could not be done, which costs a connection or some time.
    fn trouble(&self, what: &str, error: &io::Error);

    /// Tells the operator that nothing can be served any more, and stops.
    fn broken(&self, error: &io::Error);
}

/// A connection with an MTA that has no session yet.
pub(crate) struct Connection {
    pub(crate) descriptor: OwnedFd,
    pub(crate) ticket: Ticket,
}

/// What is known of a connection from where it is taken to where it is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// The number of the session in this run, for log lines.
    pub(crate) number: u64,
    pub(crate) family: Family,
    /// The MTA is to come again later.
    pub(crate) refused: bool,
}

/// What came of an attempt to take a connection.
pub(crate) enum Admission<Taken> {
    /// A connection, or the session that was made of it.
    Taken(Taken),
    /// No connection is waiting.
    Empty,
    /// None was taken, the next attempt may do.
    Again,
    /// None can be taken at the moment: wait [`PAUSE`] before the next attempt, or until a session has ended.
    Pause,
}

/// How long listeners are left alone when no connections can be taken.
const PAUSE: Duration = Duration::from_millis(50);

/// What waiting has come to. Where the system could not wait, because it lacks memory, say, nothing has happened: then the
/// operator is told, and it takes [`PAUSE`], so that whoever waits again and again does not spin.
pub(crate) fn wait_out<V: Service, T: Default>(service: &V, outcome: io::Result<T>) -> io::Result<T> {
    outcome.or_else(|error| if pause_after(service, &error) { Ok(T::default()) } else { Err(error) })
}

/// Whether waiting, which has failed with this error, may be tried again; then the pause has been made.
#[cold]
fn pause_after<V: Service>(service: &V, error: &io::Error) -> bool {
    let is_transient = poll::is_transient(error);
    if is_transient {
        service.trouble("wait for events", error);
        std::thread::sleep(PAUSE);
    }
    is_transient
}

/// How often in a row waiting for a session may fail.
const FAILED_WAITS: u32 = 100;

/// The same for what a session waits for, whose owner cannot take nothing for something: `None` is to wait again. Fails
/// when that has not helped for a while, too.
pub(crate) fn wait_out_for_session<V: Service, T>(
    service: &V,
    outcome: io::Result<T>,
    failed: &mut u32,
) -> io::Result<Option<T>> {
    let outcome = match outcome {
        Err(error) if *failed == FAILED_WAITS => return Err(error),
        outcome => wait_out(service, outcome.map(Some))?,
    };
    *failed = if outcome.is_some() { 0 } else { *failed + 1 };
    Ok(outcome)
}

/// The shorter of two limits, where `None` is none.
fn sooner(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

/// How long a thread without work stays.
const RETIREMENT: Duration = Duration::from_secs(5);

/// A way to run sessions.
pub(crate) trait Model {
    /// Serves connections until the service is to stop; closes the listeners at once then, and returns when no callback
    /// runs and no message is in progress, or the drain time is over. Sessions alive after that are served on.
    fn run<V: Service>(self, service: Arc<V>, listeners: Vec<Acceptor>) -> io::Result<()>;
}

/// Serves everything that a session has received.
fn serve_the_rest<S: Session>(session: &mut S, scratch: &mut S::Scratch) -> Next {
    loop {
        match session.serve(scratch, &mut (), true) {
            Next::More => {}
            next => return next,
        }
    }
}

/// How long to wait for a session: until it has been silent for too long, or should have introduced itself.
fn patience<V: Service>(service: &V, session: &V::Session, began: Instant) -> Option<Duration> {
    let introduction = service.introduction().filter(|_| !session.is_introduced());
    sooner(introduction.map(|limit| limit.saturating_sub(began.elapsed())), service.timeout())
}

/// Starts a thread that can run callbacks. It is not cancelled but in one.
fn start_thread<R: Send + 'static>(
    name: &'static CStr,
    body: impl FnOnce() -> R + Send + 'static,
) -> io::Result<JoinHandle<R>> {
    thread::spawn(name, thread::default_stack_size(), move || {
        Cancellation::DISABLED.set();
        body()
    })
}
