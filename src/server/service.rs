//! What the sessions of one run share, and how connections become sessions.

use std::ffi::c_int;
use std::fmt;
use std::io;
use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use milter_protocol::Profile;

use super::Filter;
use super::admission::{Called, Lobby, Seat, Visitor};
use super::context::Context;
use super::log::{self, Episode, Level, Limiter};
use super::metrics::Metrics;
use super::notifier::Notifier;
use super::observer::Observers;
use super::session::Session;
use super::settings::Plan;
use super::stop::{self, Stop};
use super::watch::Watch;
use crate::model::{Admission, Connection, Service, Ticket};
use crate::sys::error::Reason;
use crate::sys::memory;
use crate::sys::poll::{self, Interest};
use crate::sys::shared::Shared;
use crate::sys::socket::{self, Acceptor, Family};
use crate::sys::stdio;
use crate::sys::wake::Wake;

/// The filter of one run and what its sessions share.
pub(crate) struct Server {
    plan: Plan,
    profile: Profile,
    stop: Arc<Stop>,
    notifier: Option<Notifier>,
    /// How many sessions there have been.
    numbers: AtomicU64,
    lobby: Lobby,
    crowds: Episode,
    visits: Episode,
    timeouts: Episode,
    limiter: Limiter,
    exhaustion: Episode,
    /// Given up for a moment where the system log may need a descriptor to tell that there are none.
    spare: parking_lot::Mutex<Option<Wake>>,
    trouble: Episode,
    observers: Option<Arc<Observers>>,
    private_data_told: Shared<AtomicBool>,
    watch: Option<Arc<Watch>>,
    metrics: Option<Metrics>,
    /// Why nothing can be served any more.
    broken: parking_lot::Mutex<Option<io::Error>>,
}

impl Server {
    pub(super) fn new(
        plan: Plan,
        stop: Arc<Stop>,
        notifier: Option<Notifier>,
        observers: Option<Arc<Observers>>,
        metrics: Option<Metrics>,
    ) -> io::Result<Self> {
        Ok(Server {
            profile: Profile { promised: plan.options.no_reply, ..plan.filter.profile() },
            lobby: Lobby::new(plan.options.limits)?,
            watch: Watch::new(plan.options.patience, plan.options.forks()),
            plan,
            stop,
            notifier,
            metrics,
            numbers: AtomicU64::new(0),
            crowds: Episode::new()?,
            visits: Episode::new()?,
            timeouts: Episode::new()?,
            limiter: Limiter::new()?,
            exhaustion: Episode::new()?,
            spare: parking_lot::Mutex::new(Some(Wake::new()?)),
            trouble: Episode::new()?,
            observers,
            private_data_told: Shared::new(AtomicBool::new(false))?,
            broken: parking_lot::Mutex::new(None),
        })
    }

    /// A run that nobody waits for.
    #[cfg(any(test, fuzzing))]
    pub(super) fn for_test(filter: Arc<dyn Filter>) -> Self {
        let options = super::options::Options::DEFAULT;
        let plan = Plan { filter, connection: c"unix:/nowhere".into(), backlog: 1, timeout: None, debug: 0, options };
        Server::new(plan, Arc::new(Stop::new().unwrap()), None, None, None).unwrap()
    }

    /// Notes that the run is over, for whatever reason; some sessions may not be.
    pub(super) fn end(&self) {
        self.stop.raise(stop::Level::Stop);
        self.lobby.close();
        if let Some(watch) = &self.watch {
            watch.end();
        }
        if self.plan.debug > 0 {
            log::ended(self.filter().name(), if self.aborting() { "aborting" } else { "terminating" });
        }
    }

    /// Why nothing can be served any more, if that is so.
    pub(super) fn take_broken(&self) -> Option<io::Error> {
        self.broken.lock().take()
    }

    pub(super) fn filter(&self) -> &dyn Filter {
        &*self.plan.filter
    }

    pub(super) fn profile(&self) -> Profile {
        self.profile
    }

    /// Who looks on, if anybody does.
    pub(super) fn observers(&self) -> Option<&Arc<Observers>> {
        self.observers.as_ref()
    }

    /// Whether sessions are to end after the command in hand.
    pub(super) fn aborting(&self) -> bool {
        self.stop.level() == stop::Level::Abort
    }

    /// Writes a line about a session to the system log, unless there were too many.
    pub(super) fn report(&self, level: Level, text: fmt::Arguments<'_>) {
        if !self.limiter.write(level, self.filter().name(), text)
            && let Some(metrics) = &self.metrics
        {
            metrics.suppressed();
        }
    }

    /// Writes a line of debug output if the filter has asked for more than `level`.
    pub(super) fn debug(&self, level: c_int, text: impl FnOnce() -> String) {
        if self.plan.debug > level {
            stdio::put_line(text());
        }
    }

    /// Logs an error, also when there are no descriptors left.
    fn tell_anyway(&self, text: fmt::Arguments<'_>) {
        let mut spare = self.spare.lock();
        drop(spare.take());
        log::error(self.filter().name(), text);
        *spare = Wake::new().ok();
    }

    /// Tells once that sessions end with the filter's own data in place.
    pub(super) fn report_private_data(&self) {
        if !self.private_data_told.swap(true, Relaxed) {
            log::write(
                Level::Warning,
                self.filter().name(),
                format_args!(
                    "private data not NULL at the end of a session; free it and call smfi_setpriv(ctx, NULL) in xxfi_close"
                ),
            );
        }
    }

    /// Who looks after callbacks that take too long, if somebody is to.
    pub(super) fn watch(&self) -> Option<&Arc<Watch>> {
        self.watch.as_ref()
    }

    /// Who counts, if somebody is to.
    pub(super) fn metrics(&self) -> Option<&Metrics> {
        self.metrics.as_ref()
    }

    /// Where connections wait for a session, and sessions are counted.
    pub(super) fn lobby(&self) -> &Lobby {
        &self.lobby
    }

    /// Has the service manager know that there are more sessions, or fewer.
    pub(super) fn tell_sessions(&self) {
        if let Some(notifier) = &self.notifier {
            notifier.note();
        }
    }

    /// The way to the service manager, if there is one.
    pub(super) fn notifier(&self) -> Option<&Notifier> {
        self.notifier.as_ref()
    }

    /// Tells once in a while that there are as many sessions as there may be.
    fn tell_crowd(&self) {
        if self.crowds.begins() {
            let text = format_args!("there are as many sessions as max-sessions allows; new connections wait");
            log::write(Level::Warning, self.filter().name(), text);
        }
    }

    /// Tells once in a while that somebody has only connected, in the session of this number.
    pub(super) fn tell_visit(&self, number: u64) {
        if self.visits.begins() {
            let text = format_args!("[{number}] the peer hung up without a word, like a port scan or a health check");
            log::write(Level::Info, self.filter().name(), text);
        }
    }

    /// Tells once in a while that the MTA has not done in time what was expected, in the session of this number. That is
    /// no trouble: MTAs keep connections for later, and port scans say nothing.
    pub(super) fn report_timeout(&self, number: u64, what: &str) {
        if self.timeouts.begins() {
            let text = format_args!("[{number}] the MTA {what} in time, the session is ended");
            log::write(Level::Info, self.filter().name(), text);
        }
    }

    /// Counts a connection as a session.
    fn let_in(&self, descriptor: OwnedFd, family: Family) -> Admission<Connection> {
        self.lobby.enter();
        self.tell_sessions();
        Admission::Taken(Connection { descriptor, ticket: Ticket { number: self.number(), family, refused: false } })
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Relaxed) + 1
    }
}

impl Service for Server {
    type Session = Session;

    fn accept(&self, listener: &Acceptor) -> Admission<Connection> {
        match self.lobby.call() {
            Some(Called::In(Visitor { connection, family, .. })) => return self.let_in(connection, family),
            Some(Called::Off(Visitor { connection, family, .. })) => {
                let ticket = Ticket { number: self.number(), family, refused: true };
                return Admission::Taken(Connection { descriptor: connection, ticket });
            }
            None => {}
        }
        if memory::is_short() || self.lobby.make_room().is_err() {
            self.exhausted(&io::ErrorKind::OutOfMemory.into());
            return Admission::Pause;
        }
        let full = self.lobby.is_full();
        if full && !self.lobby.is_open() {
            let waiting = poll::wait([(listener.as_fd(), Interest::Read)], Some(Duration::ZERO));
            return match waiting {
                Ok([true]) => {
                    self.tell_crowd();
                    Admission::Pause
                }
                Ok([false]) => Admission::Empty,
                // Nobody knows; the next attempt shows it.
                Err(_) => Admission::Pause,
            };
        }
        let error = match socket::accept(listener.as_fd()) {
            Ok(connection) if full => {
                self.tell_crowd();
                self.lobby.seat_visitor(connection, listener.family);
                return Admission::Again;
            }
            Ok(connection) => return self.let_in(connection, listener.family),
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::EAGAIN) if !self.lobby.is_empty() => Admission::Pause,
            Some(libc::EAGAIN) => Admission::Empty,
            Some(libc::EBADF | libc::ENOTSOCK | libc::EINVAL) => {
                self.broken(&error);
                Admission::Pause
            }
            Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO) => Admission::Again,
            _ => {
                self.exhausted(&error);
                Admission::Pause
            }
        }
    }

    fn open(self: &Arc<Self>, Connection { descriptor, ticket }: Connection) -> Session {
        let Ticket { number, family, refused } = ticket;
        if refused {
            return Session::new(Arc::new(Context::refused(Arc::clone(self), number, descriptor)), None);
        }
        if family == Family::Internet {
            let told =
                |what| move |error: &io::Error| self.report(Level::Warning, format_args!("{what}: {}", Reason(error)));
            let _ = socket::set_keep_alive(descriptor.as_fd()).inspect_err(told("keepalive on a connection failed"));
            let _ = socket::set_no_delay(descriptor.as_fd()).inspect_err(told("no delay on a connection failed"));
        }
        if let Some(metrics) = &self.metrics {
            metrics.session();
        }
        let seat = Seat::of(self);
        Session::new(Arc::new(Context::new(Arc::clone(self), number, descriptor)), Some(seat))
    }

    fn depart(&self, sessions: usize) {
        self.lobby.leave(sessions);
        self.tell_sessions();
    }

    fn turn(&self) -> Option<Duration> {
        let notifier = self.notifier.as_ref().and_then(|notifier| notifier.turn(self));
        let metrics = self.metrics.as_ref().and_then(|metrics| metrics.turn(self));
        notifier.into_iter().chain(metrics).min()
    }

    fn introduction(&self) -> Option<Duration> {
        self.plan.options.negotiate_timeout
    }

    fn timeout(&self) -> Option<Duration> {
        self.plan.timeout
    }

    fn drain(&self) -> Duration {
        self.plan.options.drain
    }

    fn threads(&self) -> Option<NonZero<u16>> {
        self.plan.options.threads
    }

    fn stopping(&self) -> bool {
        self.stop.level() > stop::Level::Run
    }

    fn stop_descriptor(&self) -> BorrowedFd<'_> {
        self.stop.descriptor()
    }

    fn forked(&self) {
        stop::join();
        // They wait in the parent.
        self.lobby.close();
    }

    fn leaving(&self) {
        if let Some(observers) = &self.observers {
            observers.flush();
        }
    }

    fn exhausted(&self, error: &io::Error) {
        if self.exhaustion.begins() {
            self.tell_anyway(format_args!(
                "cannot accept connections: {}; new ones wait until that is over",
                Reason(error)
            ));
        }
    }

    fn lost(&self, what: fmt::Arguments<'_>) {
        self.report(Level::Error, what);
    }

    fn warn(&self, what: fmt::Arguments<'_>) {
        self.report(Level::Warning, what);
    }

    fn trouble(&self, what: &str, error: &io::Error) {
        if self.trouble.begins() {
            self.tell_anyway(format_args!("cannot {what}: {}", Reason(error)));
        }
    }

    fn broken(&self, error: &io::Error) {
        *self.broken.lock() = Some(error.raw_os_error().map_or(error.kind().into(), io::Error::from_raw_os_error));
        self.stop.raise(stop::Level::Abort);
    }
}
