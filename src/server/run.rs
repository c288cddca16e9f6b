//! From smfi_main to its return.

use std::ffi::{CStr, c_int};
use std::fmt;
use std::io;
use std::sync::Arc;

use super::listener::Listener;
use super::log::{self, Level};
use super::notifier::{Notifier, Reporter};
use super::options::ModelName;
use super::service::Server;
use super::settings::{self, filter_name};
use super::signals::Signals;
use super::stop::Run;
use crate::model::{Model, Threads};
use crate::sys::{process, signal};

/// Runs the filter until it is stopped; false when that was not possible or went wrong, and then `errno` says why.
pub(crate) fn run() -> bool {
    let name = filter_name().unwrap_or_default();
    let outcome = prepare_and_serve(&name);
    process::set_errno(outcome.err().map_or(0, |Told(errno)| errno));
    outcome.is_ok()
}

/// What keeps a run from succeeding, told to the operator already: the error for the C program.
#[derive(Clone, Copy)]
struct Told(c_int);

/// Tells what keeps a run from succeeding.
fn tell(name: &CStr, what: fmt::Arguments<'_>, errno: c_int) -> Told {
    log::error(name, what);
    Told(errno)
}

fn prepare_and_serve(name: &CStr) -> Result<(), Told> {
    let explain = |what: &'static str| {
        move |error: io::Error| tell(name, format_args!("{what}: {error}"), error.raw_os_error().unwrap_or(libc::EIO))
    };
    let useless = |reason: &dyn fmt::Display| tell(name, format_args!("smfi_main: {reason}"), libc::EINVAL);
    signal::ignore_broken_pipes().map_err(explain("cannot ignore SIGPIPE"))?;
    let plan = settings::plan().map_err(|error| useless(&error))?;
    let run = Run::begin().map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => tell(name, format_args!("smfi_main: it is running already"), libc::EBUSY),
        _ => explain("smfi_main cannot begin")(error),
    })?;
    log_panics();
    let signals =
        plan.options.take_signals.then(Signals::take).transpose().map_err(explain("Couldn't start signal thread"))?;
    let listeners = settings::take_listeners().ok_or_else(|| Told(process::errno()))?;
    let (acceptors, leaves): (Vec<_>, Vec<_>) =
        listeners.into_iter().map(|Listener { acceptor, leave }| (acceptor, leave)).unzip();
    let model = plan.options.model;
    if plan.options.patience.limit.is_some() {
        let text =
            format_args!("callback-limit cannot be enforced, the callbacks are all in one process: it is only told");
        log::write(Level::Warning, name, text);
    }
    let notifier = Notifier::from_environment().unwrap_or_else(|error| {
        log::error(name, format_args!("cannot notify the service manager at NOTIFY_SOCKET: {error}"));
        None
    });
    let server = Arc::new(Server::new(plan, Arc::clone(&run.wake), notifier));
    let reporter = Reporter::start(&server).map_err(explain("cannot start a thread"))?;
    let outcome = match model {
        #[cfg(target_os = "linux")]
        ModelName::Pool => crate::model::Pool::run(Arc::clone(&server), acceptors),
        #[cfg(not(target_os = "linux"))]
        ModelName::Pool => unreachable!("not among the options of this system"),
        ModelName::Threads => Threads::run(Arc::clone(&server), acceptors),
    };
    for leave in leaves.into_iter().flatten() {
        if let Err(error) = leave.take() {
            explain("cannot leave the socket as it should be")(error);
        }
    }
    drop(reporter);
    server.end();
    drop(signals);
    outcome.and_then(|()| server.take_broken().map_or(Ok(()), Err)).map_err(explain("smfi_main cannot go on"))
}

/// Has panics go to the system log. Standard error may be closed, or be somebody's connection.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let name = filter_name().unwrap_or_default();
        log::error(&name, format_args!("internal error: {}", panic.to_string().replace('\n', " ")));
    }));
}
