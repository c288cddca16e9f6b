//! From smfi_main to its return.

use std::ffi::{CStr, c_int};
use std::fmt;
use std::io;
#[cfg(target_os = "linux")]
use std::num::NonZero;
use std::sync::Arc;

use super::listener::Listener;
use super::log::{self, Level};
use super::metrics::{Metrics, Outlet, Publisher};
use super::notifier::{Notifier, Reporter};
use super::observer::{ObserverError, Observers};
#[cfg(target_os = "linux")]
use super::options::ModelName;
use super::options::Options;
use super::service::Server;
use super::settings::{self, Named};
use super::signals::Signals;
use super::stop::Run;
#[cfg(target_os = "linux")]
use crate::model::{Fork, Pool, Processes, alone};
use crate::model::{Model, Service, Threads};
#[cfg(target_os = "linux")]
use crate::sys::child;
use crate::sys::error::Reason;
use crate::sys::socket::Acceptor;
use crate::sys::{fork_mark, process, signal};

/// Runs the filter until it is stopped; false when that was not possible or went wrong, and then `errno` says why.
pub(crate) fn run() -> bool {
    let outcome = prepare_and_serve(Named::now().name());
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

/// The number of an error for the C program.
fn os_error(error: &io::Error) -> c_int {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn prepare_and_serve(name: &CStr) -> Result<(), Told> {
    let explain = |what: &'static str| {
        move |error: io::Error| tell(name, format_args!("{what}: {}", Reason(&error)), os_error(&error))
    };
    let useless = |reason: &dyn fmt::Display| tell(name, format_args!("smfi_main: {reason}"), libc::EINVAL);
    signal::ignore_broken_pipes().map_err(explain("cannot ignore SIGPIPE"))?;
    fork_mark::set().map_err(explain("smfi_main cannot begin"))?;
    let plan = settings::plan().map_err(|error| useless(&error))?;
    let run = Run::begin().map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => tell(name, format_args!("smfi_main: it is running already"), libc::EBUSY),
        _ => explain("smfi_main cannot begin")(error),
    })?;
    log_panics();
    let run_model = choose(&plan.options, name)?;
    let observers = Observers::open(&plan.options, name).map_err(|ObserverError { what, error }| {
        tell(name, format_args!("{what}: {}", Reason(&error)), os_error(&error))
    })?;
    let signals =
        plan.options.take_signals.then(Signals::take).transpose().map_err(explain("Couldn't start signal thread"))?;
    let forks = plan.options.forks();
    if plan.options.patience.limit.is_some() && !forks {
        let text = format_args!("callback-limit cannot be enforced without model=fork or processes=N: it is only told");
        log::write(Level::Warning, name, text);
    }
    let notifier = Notifier::from_environment(forks).unwrap_or_else(|error| {
        log::error(name, format_args!("cannot notify the service manager at NOTIFY_SOCKET: {}", Reason(&error)));
        None
    });
    let metrics = plan.options.metrics.as_ref().map(|target| {
        Outlet::open(target, name, forks)
            .and_then(|outlet| Ok(Metrics::new(outlet)?))
            .map_err(|error| tell(name, format_args!("option metrics={target}: {error}"), error.errno()))
    });
    let metrics = metrics.transpose()?;
    let server = Server::new(plan, Arc::clone(&run.stop), notifier, observers, metrics)
        .map_err(explain("smfi_main cannot begin"))?;
    let server = Arc::new(server);
    let listeners = settings::take_listeners().ok_or_else(|| Told(process::errno()))?;
    let started = Reporter::start(&server).and_then(|reporter| Ok((reporter, Publisher::start(&server)?)));
    let (reporter, publisher) = match started {
        Ok(threads) => threads,
        Err(error) => {
            // What keeps them from being removed is nothing to the reason why the run does not begin.
            listeners.into_iter().for_each(|listener| drop(listener.give_up()));
            return Err(explain("cannot start a thread")(error));
        }
    };
    let (acceptors, leaves): (Vec<_>, Vec<_>) =
        listeners.into_iter().map(|Listener { acceptor, leave }| (acceptor, leave)).unzip();
    let outcome = run_model(Arc::clone(&server), acceptors);
    for leave in leaves.into_iter().flatten() {
        if let Err(error) = leave.take() {
            explain("cannot leave the socket as it should be")(error);
        }
    }
    drop((reporter, publisher));
    server.end();
    server.leaving();
    drop(signals);
    outcome.and_then(|()| server.take_broken().map_or(Ok(()), Err)).map_err(explain("smfi_main cannot go on"))
}

/// Serves from sockets until the server is to stop.
type RunModel = Box<dyn FnOnce(Arc<Server>, Vec<Acceptor>) -> io::Result<()>>;

/// Prepares the model that the options name. No thread of this run has begun yet: some models need that.
#[cfg(target_os = "linux")]
fn choose(options: &Options, name: &CStr) -> Result<RunModel, Told> {
    let alone = |option: fmt::Arguments<'_>| {
        child::check_system().map_err(|(call, error)| {
            tell(
                name,
                format_args!(
                    "smfi_main: option {option} needs {call}: {}; use Linux 5.4 or newer and permit the call (seccomp), \
                     or use model=pool or threads without processes",
                    Reason(&error)
                ),
                os_error(&error),
            )
        })?;
        alone().map_err(|threads| {
            tell(
                name,
                format_args!(
                    "smfi_main: option {option} needs a process without other threads, and this one has {threads}; use \
                     model=pool or threads without processes"
                ),
                libc::EINVAL,
            )
        })
    };
    let of_workers = |workers: NonZero<u16>| alone(format_args!("processes={workers}"));
    Ok(match (options.model, options.processes) {
        (ModelName::Pool, None) => Box::new(|server, acceptors| Pool.run(server, acceptors)),
        (ModelName::Threads, None) => Box::new(|server, acceptors| Threads.run(server, acceptors)),
        (ModelName::Pool, Some(workers)) => {
            let model = Processes { alone: of_workers(workers)?, workers, model: Pool };
            Box::new(|server, acceptors| model.run(server, acceptors))
        }
        (ModelName::Threads, Some(workers)) => {
            let model = Processes { alone: of_workers(workers)?, workers, model: Threads };
            Box::new(|server, acceptors| model.run(server, acceptors))
        }
        (ModelName::Fork, _) => {
            let model = Fork(alone(format_args!("model=fork"))?);
            Box::new(|server, acceptors| model.run(server, acceptors))
        }
    })
}

/// The only one that other systems have so far.
#[cfg(not(target_os = "linux"))]
fn choose(_: &Options, _: &CStr) -> Result<RunModel, Told> {
    Ok(Box::new(|server, acceptors| Threads.run(server, acceptors)))
}

/// Has panics go to the system log. Standard error may be closed, or be somebody's connection.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let named = Named::at_once();
        match panic.location() {
            Some(place) => log::error(named.name(), format_args!("internal error: panicked at {place}: {message}")),
            None => log::error(named.name(), format_args!("internal error: {message}")),
        }
    }));
}
