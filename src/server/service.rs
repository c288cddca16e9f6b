//! One run of a filter, from its start to its stop.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use milter_protocol::Profile;

use super::context::Context;
use super::listener::Listener;
use super::log::{self, Level, Limiter};
use super::options::{ModelName, Options};
use super::session::Session;
use super::settings::{self, Missing, Plan};
use super::signals::Signals;
use super::stop::{self, Watch};
use super::{Filter, settings::filter_name};
use crate::model::{Admission, Model, Service, Threads};
use crate::sys::socket::{self, Family};
use crate::sys::{process, signal, stdio};

/// The filter of one run and what its sessions share.
pub(crate) struct Server {
    plan: Plan,
    profile: Profile,
    options: Options,
    family: Family,
    watch: Watch,
    sessions: AtomicU64,
    limiter: Limiter,
    /// Descriptors have run out, and that was told.
    exhausted: AtomicBool,
    private_data_told: AtomicBool,
    /// Sessions are to end after the command in hand although the run is over.
    aborted: AtomicBool,
    /// Why nothing can be served any more.
    broken: parking_lot::Mutex<Option<io::Error>>,
}

/// Runs the filter until it is stopped; false when that was not possible or went wrong.
pub(crate) fn run() -> bool {
    match prepare_and_serve() {
        Ok(()) => {
            process::set_errno(0);
            true
        }
        Err(error) => {
            process::set_errno(error.raw_os_error().unwrap_or(libc::EINVAL));
            false
        }
    }
}

fn prepare_and_serve() -> io::Result<()> {
    signal::ignore_broken_pipes()?;
    let name = filter_name().unwrap_or_default();
    let fail = |what: std::fmt::Arguments<'_>| {
        log::error(&name, what);
        io::Error::from(io::ErrorKind::InvalidInput)
    };
    let plan = settings::plan().map_err(|missing| match missing {
        Missing::Connection => fail(format_args!("missing connection information: call smfi_setconn first")),
        Missing::Filter => fail(format_args!("no filter: smfi_register was not called or has failed")),
    })?;
    let options = Options::from_environment().map_err(|error| fail(format_args!("LIBMILTER_OPTIONS: {error}")))?;
    let explain = |what: &'static str| {
        let name = &name;
        move |error: io::Error| {
            log::error(name, format_args!("{what}: {error}"));
            error
        }
    };
    log_panics();
    let _signals = Signals::take().map_err(explain("Couldn't start signal thread"))?;
    let watch = Watch::new().map_err(explain("cannot prepare for being stopped"))?;
    let Listener { socket, family, file } = match settings::take_listener() {
        Ok(listener) => listener,
        Err(error) => {
            watch.end();
            return Err(error);
        }
    };
    let server = Arc::new(Server::new(plan, options, family, watch));
    let outcome = match options.model {
        #[cfg(target_os = "linux")]
        ModelName::Pool => crate::model::Pool::run(Arc::clone(&server), socket),
        #[cfg(not(target_os = "linux"))]
        ModelName::Pool => unreachable!("not among the options of this system"),
        ModelName::Threads => Threads::run(Arc::clone(&server), socket),
    };
    let outcome = outcome.map_err(explain("cannot go on"));
    if let Some(file) = file
        && let Err(error) = file.remove()
    {
        explain("cannot remove the socket")(error);
    }
    server.end();
    outcome.and_then(|()| server.broken.lock().take().map_or(Ok(()), Err))
}

/// Has panics go to the system log. Standard error may be closed, or be somebody's connection.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let name = filter_name().unwrap_or_default();
        log::error(&name, format_args!("internal error: {}", panic.to_string().replace('\n', " ")));
    }));
}

impl Server {
    fn new(plan: Plan, options: Options, family: Family, watch: Watch) -> Self {
        Server {
            profile: plan.filter.profile(),
            plan,
            options,
            family,
            watch,
            sessions: AtomicU64::new(0),
            limiter: Limiter::new(),
            exhausted: AtomicBool::new(false),
            private_data_told: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            broken: parking_lot::Mutex::new(None),
        }
    }

    /// A run that nobody waits for.
    #[cfg(test)]
    pub(super) fn for_test(filter: Arc<dyn Filter>) -> Self {
        let plan = Plan { filter, timeout: None, debug: 0 };
        Server::new(plan, Options::default(), Family::Local, Watch::new().unwrap())
    }

    fn end(&self) {
        let level = stop::level();
        self.debug(0, || {
            let how = if level == stop::Level::Abort { "aborting" } else { "terminating" };
            format!("mi_stop={how}")
        });
        self.aborted.store(level == stop::Level::Abort, Relaxed);
        self.watch.end();
    }

    pub(super) fn filter(&self) -> &dyn Filter {
        &*self.plan.filter
    }

    pub(super) fn profile(&self) -> Profile {
        self.profile
    }

    /// Whether sessions are to end after the command in hand.
    pub(super) fn aborting(&self) -> bool {
        stop::level() == stop::Level::Abort || self.aborted.load(Relaxed)
    }

    /// Writes a line about a session to the system log, unless there were too many.
    pub(super) fn report(&self, level: Level, text: std::fmt::Arguments<'_>) {
        self.limiter.write(level, self.filter().name(), text);
    }

    /// Writes a line of debug output if the filter has asked for more than `level`.
    pub(super) fn debug(&self, level: c_int, text: impl FnOnce() -> String) {
        if self.plan.debug > level {
            stdio::put_line(text());
        }
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

    fn open(self: &Arc<Self>, connection: OwnedFd) -> Session {
        let name = self.filter().name();
        let told = |what: &'static str| {
            move |error: &io::Error| {
                log::write(Level::Warning, name, format_args!("{what} on a connection failed: {error}"));
            }
        };
        if self.family == Family::Internet {
            let _ = socket::set_keep_alive(connection.as_fd()).inspect_err(told("keepalive"));
            let _ = socket::set_no_delay(connection.as_fd()).inspect_err(told("no delay"));
        }
        let number = self.sessions.fetch_add(1, Relaxed) + 1;
        Session::new(Arc::new(Context::new(Arc::clone(self), number, connection)))
    }
}

impl Service for Server {
    type Session = Session;

    fn admit(self: &Arc<Self>, listener: BorrowedFd<'_>) -> Admission<Session> {
        let error = match socket::accept(listener) {
            Ok(connection) => {
                self.exhausted.store(false, Relaxed);
                return Admission::Session(self.open(connection));
            }
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Admission::Empty,
            Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO) => Admission::Again,
            Some(libc::EBADF | libc::ENOTSOCK | libc::EINVAL) => {
                self.broken(&error);
                Admission::Pause
            }
            _ => {
                if !self.exhausted.swap(true, Relaxed) {
                    let text = format_args!("cannot accept connections: {error}; new ones wait until that is over");
                    log::error(self.filter().name(), text);
                }
                Admission::Pause
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        self.plan.timeout
    }

    fn drain(&self) -> Duration {
        self.options.drain
    }

    fn stopping(&self) -> bool {
        stop::level() > stop::Level::Run
    }

    fn stop_descriptor(&self) -> BorrowedFd<'_> {
        self.watch.descriptor()
    }

    fn no_thread(&self, error: &io::Error) {
        self.report(Level::Error, format_args!("cannot start a thread: {error}"));
    }

    fn broken_session(&self, error: &io::Error) {
        self.report(Level::Error, format_args!("cannot serve a connection: {error}"));
    }

    fn broken(&self, error: &io::Error) {
        log::error(self.filter().name(), format_args!("cannot go on: {error}"));
        *self.broken.lock() = Some(error.raw_os_error().map_or(error.kind().into(), io::Error::from_raw_os_error));
        stop::raise(stop::Level::Abort);
    }
}
