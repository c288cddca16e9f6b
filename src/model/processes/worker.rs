//! A worker: a model that takes its connections from the supervisor's channel.

use std::io;
use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use super::post::Tally;
use crate::model::children::Parent;
use crate::model::{Admission, Connection, Model, Next, Pace, Service, Session, Ticket, wait_out};
use crate::sys::channel::{self, Message};
use crate::sys::child;
use crate::sys::memory;
use crate::sys::poll::{self, Interest};
use crate::sys::shared::Shared;
use crate::sys::socket::{Acceptor, Family};
use crate::sys::wake::{self, Wake};

/// The service as a worker has it: connections come from the supervisor, and the end of their channel is the stop.
struct Worker<V> {
    service: Arc<V>,
    tally: Shared<Tally>,
    parent: Parent,
    /// Sessions that are not over.
    sessions: AtomicU64,
    over: AtomicBool,
    stop: Wake,
    /// Readable from the moment when the channel has ended and no session is left.
    free: Wake,
}

/// A session in a worker.
struct Passed<V: Service> {
    session: V::Session,
    /// Declared after the session, and so dropped after it.
    counted: Counted<V>,
}

/// Counts a session's end when it is dropped.
struct Counted<V: Service> {
    worker: Arc<Worker<V>>,
    load: u64,
    /// The session is in a step or in a message.
    is_unfinished: bool,
}

/// The life of a worker.
pub(super) fn work<M: Model, V: Service>(
    model: M,
    service: &Arc<V>,
    channel: OwnedFd,
    tally: Shared<Tally>,
    parent: Parent,
) -> io::Result<()> {
    service.forked();
    let (stop, free) = (Wake::new()?, Wake::new()?);
    let (service, sessions, over) = (Arc::clone(service), AtomicU64::new(0), AtomicBool::new(false));
    let worker = Arc::new(Worker { service, tally, parent, sessions, over, stop, free });
    model
        .run(Arc::clone(&worker), vec![Acceptor { socket: channel, family: Family::Local }])
        .inspect_err(|error| worker.trouble("go on in a worker", error))?;
    worker.parent.end(&*worker);
    if worker.sessions.load(SeqCst) > 0 {
        let ends = [(worker.free.as_fd(), Interest::Read), (worker.parent.lifeline.as_fd(), Interest::Read)];
        while let [false, false] = wait_out(&*worker, poll::wait(ends, None))? {}
        worker.leaving();
    }
    Ok(())
}

impl<V> Worker<V> {
    /// Tells the supervisor that a message has been taken.
    fn answer(&self, is_probe: bool) {
        self.tally.taken.fetch_add(1, SeqCst);
        if self.tally.is_awaited.swap(false, SeqCst) || is_probe {
            self.parent.call();
        }
    }

    /// Has the model stop.
    fn end(&self) {
        self.over.store(true, SeqCst);
        wake::call(self.stop.number());
    }
}

impl<V: Service> Counted<V> {
    fn begin_step(&mut self) {
        if !self.is_unfinished {
            self.is_unfinished = true;
            self.worker.parent.begin();
        }
    }

    fn end_step(&mut self, in_message: bool) {
        if self.is_unfinished && !in_message {
            self.is_unfinished = false;
            self.worker.parent.end(&*self.worker);
        }
    }
}

impl<V: Service> Drop for Counted<V> {
    fn drop(&mut self) {
        self.end_step(false);
        let Counted { worker, load, .. } = self;
        worker.tally.ended.fetch_add(*load, SeqCst);
        let left = worker.sessions.fetch_sub(*load, SeqCst) - *load;
        if worker.over.load(SeqCst) && left == 0 {
            wake::call(worker.free.number());
        }
    }
}

impl<V: Service> Service for Worker<V> {
    type Session = Passed<V>;

    const HAS_PEERS: bool = true;

    fn accept(&self, channel: &Acceptor) -> Admission<Connection> {
        // At the stop there is nobody else to take it.
        if memory::is_short() && !self.service.stopping() {
            self.exhausted(&io::ErrorKind::OutOfMemory.into());
            return Admission::Pause;
        }
        let error = match channel::take(channel.as_fd()) {
            Ok(Some(Message::Connection(descriptor, label))) => {
                let ticket = Ticket::from_label(label);
                self.sessions.fetch_add(ticket.load(), SeqCst);
                self.answer(false);
                return Admission::Taken(Connection { descriptor, ticket });
            }
            Ok(Some(Message::Probe)) => {
                self.answer(true);
                return Admission::Again;
            }
            Ok(None) => {
                self.end();
                return Admission::Empty;
            }
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Admission::Empty,
            Some(libc::EINTR) => Admission::Again,
            // The filter has closed the channel.
            Some(libc::EBADF | libc::ENOTSOCK | libc::EINVAL) => {
                self.broken(&error);
                Admission::Pause
            }
            _ => {
                self.exhausted(&error);
                Admission::Pause
            }
        }
    }

    fn open(self: &Arc<Self>, connection: Connection) -> Passed<V> {
        let counted = Counted { worker: Arc::clone(self), load: connection.ticket.load(), is_unfinished: false };
        Passed { session: self.service.open(connection), counted }
    }

    fn depart(&self, sessions: usize) {
        self.service.depart(sessions);
    }

    /// The supervisor's loop is the one to watch.
    fn turn(&self) -> Option<Duration> {
        None
    }

    fn introduction(&self) -> Option<Duration> {
        self.service.introduction()
    }

    fn timeout(&self) -> Option<Duration> {
        self.service.timeout()
    }

    fn drain(&self) -> Duration {
        self.service.drain()
    }

    fn threads(&self) -> Option<NonZero<u16>> {
        self.service.threads()
    }

    fn stopping(&self) -> bool {
        self.over.load(SeqCst)
    }

    fn stop_descriptor(&self) -> BorrowedFd<'_> {
        self.stop.as_fd()
    }

    fn forked(&self) {
        self.service.forked();
    }

    fn leaving(&self) {
        self.service.leaving();
    }

    fn exhausted(&self, error: &io::Error) {
        self.service.exhausted(error);
    }

    fn lost(&self, what: std::fmt::Arguments<'_>) {
        self.service.lost(what);
    }

    fn warn(&self, what: std::fmt::Arguments<'_>) {
        self.service.warn(what);
    }

    fn trouble(&self, what: &str, error: &io::Error) {
        self.service.trouble(what, error);
    }

    /// The supervisor goes on with the other workers, and with another one in the place of this: connections that were
    /// passed here wait for that one, so this process ends as if a callback had crashed.
    fn broken(&self, error: &io::Error) {
        self.service.trouble("go on in a worker", error);
        child::leave(1);
    }
}

impl<V: Service> Session for Passed<V> {
    type Scratch = <V::Session as Session>::Scratch;

    const KINDS: usize = V::Session::KINDS;

    fn connection(&self) -> BorrowedFd<'_> {
        self.session.connection()
    }

    fn serve(&mut self, scratch: &mut Self::Scratch, pace: &mut dyn Pace, hang_up: bool) -> Next {
        self.counted.begin_step();
        let next = self.session.serve(scratch, pace, hang_up);
        // Whoever is over ends when it is dropped.
        self.counted.end_step(next.is_over() || self.session.in_message());
        next
    }

    fn expire(&mut self, pace: &mut dyn Pace) -> Next {
        self.counted.begin_step();
        self.session.expire(pace)
    }

    fn fail(&mut self, error: &io::Error, pace: &mut dyn Pace) -> Next {
        self.counted.begin_step();
        self.session.fail(error, pace)
    }

    fn is_introduced(&self) -> bool {
        self.session.is_introduced()
    }

    fn in_message(&self) -> bool {
        self.session.in_message()
    }
}
