//! What a program sets before it runs its filter: one filter and one set of settings per process.

use std::ffi::{CStr, CString, c_int};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use milter_protocol::Escaped;
use milter_protocol::frame::DEFAULT_LIMIT;
use parking_lot::Mutex;

use super::Filter;
use super::activation::Activation;
use super::description::Description;
use super::listener::{Listener, OpenError};
use super::log::{self, Level};
use super::options::{OptionError, Options};
use super::socket_file::Replace;
use super::stop;
use crate::sys::error::Reason;
use crate::sys::process;
use crate::sys::socket::DEFAULT_BACKLOG;

struct Settings {
    filter: Option<Arc<dyn Filter>>,
    connection: Option<CString>,
    backlog: c_int,
    /// In seconds.
    timeout: c_int,
    debug: c_int,
    options: Options,
    /// The sockets that were opened ahead of the run.
    listeners: Vec<Listener>,
}

static SETTINGS: Mutex<Settings> = Mutex::new(Settings {
    filter: None,
    connection: None,
    backlog: DEFAULT_BACKLOG,
    timeout: 7210,
    debug: 0,
    options: Options::DEFAULT,
    listeners: Vec::new(),
});

static DATA_SIZE: AtomicUsize = AtomicUsize::new(DEFAULT_LIMIT);

/// Sets the filter of later runs; `None` when it cannot be used.
pub(crate) fn register(filter: Option<Arc<dyn Filter>>) {
    SETTINGS.lock().filter = filter;
}

/// Sets where to listen; understood when the socket is opened.
pub(crate) fn set_connection(description: CString) {
    SETTINGS.lock().connection = Some(description);
}

/// Sets how many connections may wait to be taken.
pub(crate) fn set_backlog(connections: c_int) {
    SETTINGS.lock().backlog = connections;
}

/// Sets how long a session may be silent, in seconds; 0 or less is forever.
pub(crate) fn set_timeout(seconds: c_int) {
    SETTINGS.lock().timeout = seconds;
}

/// Sets how much debug output goes to the standard output.
pub(crate) fn set_debug(level: c_int) {
    SETTINGS.lock().debug = level;
}

/// Sets an option of later runs; false when there is no such option or value.
pub(crate) fn set_option(name: &str, value: &str) -> bool {
    let outcome = SETTINGS.lock().options.set(name, value);
    outcome.inspect_err(|error| log::error(Named::now().name(), format_args!("smfi_setopt: {error}"))).is_ok()
}

/// Sets the largest payload of later sessions, in octets; gives the former one.
pub(crate) fn swap_data_size(octets: usize) -> usize {
    DATA_SIZE.swap(octets, Relaxed)
}

/// The largest payload of a session that begins now, in octets.
pub(super) fn data_size() -> usize {
    DATA_SIZE.load(Relaxed)
}

/// Opens the sockets ahead of the run, so that they can be used after privileges are dropped. Open ones stay, and so do
/// those of a run in progress: new ones would take their names, and nobody would accept from them.
pub(crate) fn open_socket(remove_stale: bool) -> bool {
    if stop::run_in_progress() || !SETTINGS.lock().listeners.is_empty() {
        return true;
    }
    match open(remove_stale) {
        Some(listeners) => {
            SETTINGS.lock().listeners = listeners;
            true
        }
        None => false,
    }
}

/// Opens all sockets or none; looking names up and writing to the log may take their time.
fn open(remove_stale: bool) -> Option<Vec<Listener>> {
    let named = Named::now();
    let name = named.name();
    let useless = |reason: &dyn fmt::Display| log::error(name, format_args!("smfi_opensocket: {reason}"));
    let plan = plan().inspect_err(|error| useless(error)).ok()?;
    let activation = Activation::of_this_process();
    let mut opened = Vec::new();
    for connection in std::iter::once(&plan.connection).chain(&plan.options.listen) {
        if let Err(error) = open_connection(&plan, connection, &activation, remove_stale, &mut opened) {
            let shown = Escaped(connection.to_bytes());
            log::error(name, format_args!("Unable to create listening socket on conn {shown}: {error}"));
            for (_, listener) in opened {
                let _ = listener.give_up().inspect_err(|error| useless(&Reason(error)));
            }
            process::set_errno(error.errno());
            return None;
        }
    }
    Some(opened.into_iter().map(|(_, listener)| listener).collect())
}

/// Opens what one description names, unless it is open already.
fn open_connection(
    plan: &Plan,
    connection: &CStr,
    activation: &Activation,
    remove_stale: bool,
    opened: &mut Vec<(Description, Listener)>,
) -> Result<(), OpenError> {
    if plan.debug > 0 {
        let shown = Escaped(connection.to_bytes());
        log::write(Level::Debug, plan.filter.name(), format_args!("Opening listen socket on conn {shown}"));
    }
    let wanted = &plan.options.socket_file;
    let replace = wanted.replace.unwrap_or(if remove_stale { Replace::Always } else { Replace::Never });
    for description in activation.resolve(Description::parse(connection)?)? {
        if opened.iter().all(|(other, _)| *other != description) {
            let listener = Listener::open(&description, wanted, replace, plan.backlog)?;
            opened.push((description, listener));
        }
    }
    Ok(())
}

/// What a run is made of.
pub(super) struct Plan {
    pub(super) filter: Arc<dyn Filter>,
    pub(super) connection: CString,
    pub(super) backlog: c_int,
    /// How long a session may be silent; `None` is forever.
    pub(super) timeout: Option<Duration>,
    pub(super) debug: c_int,
    pub(super) options: Options,
}

/// Why there can be no run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PlanError {
    NoFilter,
    NoConnection,
    Options(OptionError),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanError::NoFilter => f.write_str("no filter: smfi_register was not called, or has failed"),
            PlanError::NoConnection => f.write_str("missing connection information: call smfi_setconn first"),
            PlanError::Options(error) => error.fmt(f),
        }
    }
}

/// The settings for a run that begins now.
pub(super) fn plan() -> Result<Plan, PlanError> {
    let settings = SETTINGS.lock();
    let connection = settings.connection.clone().ok_or(PlanError::NoConnection)?;
    let filter = settings.filter.clone().ok_or(PlanError::NoFilter)?;
    let options = settings.options.clone().with_environment().map_err(PlanError::Options)?;
    let timeout = u64::try_from(settings.timeout).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
    let timeout = options.idle_timeout.unwrap_or(timeout);
    Ok(Plan { filter, connection, backlog: settings.backlog, timeout, debug: settings.debug, options })
}

/// The filter whose name log lines begin with.
#[derive(Clone)]
pub(super) struct Named(Option<Arc<dyn Filter>>);

impl Named {
    /// The filter of the next run.
    pub(super) fn now() -> Self {
        Named(SETTINGS.lock().filter.clone())
    }

    /// The same for whoever may have interrupted work on the settings: no name then.
    pub(super) fn at_once() -> Self {
        Named(SETTINGS.try_lock().and_then(|settings| settings.filter.clone()))
    }

    /// Empty if there is none.
    pub(super) fn name(&self) -> &CStr {
        self.0.as_ref().map_or(c"", |filter| filter.name())
    }
}

/// The sockets for a run: those opened ahead, or new ones. Without any, `errno` says why.
pub(super) fn take_listeners() -> Option<Vec<Listener>> {
    let ahead = std::mem::take(&mut SETTINGS.lock().listeners);
    if ahead.is_empty() { open(false) } else { Some(ahead) }
}
