//! What a program sets before it runs its filter: one filter and one set of settings per process.

use std::ffi::{CString, c_int};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use milter_protocol::frame::DEFAULT_LIMIT;
use parking_lot::Mutex;

use super::listener::Listener;
use super::log::{self, Level};
use super::{Filter, description};
use crate::sys::socket::DEFAULT_BACKLOG;

struct Settings {
    filter: Option<Arc<dyn Filter>>,
    connection: Option<CString>,
    backlog: c_int,
    /// In seconds.
    timeout: c_int,
    debug: c_int,
    /// The socket that was opened ahead of the run.
    listener: Option<Listener>,
}

static SETTINGS: Mutex<Settings> = Mutex::new(Settings {
    filter: None,
    connection: None,
    backlog: DEFAULT_BACKLOG,
    timeout: 7210,
    debug: 0,
    listener: None,
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

/// Sets the largest payload of later sessions, in octets; gives the former one.
pub(crate) fn swap_data_size(octets: usize) -> usize {
    DATA_SIZE.swap(octets, Relaxed)
}

/// The largest payload of a session that begins now, in octets.
pub(super) fn data_size() -> usize {
    DATA_SIZE.load(Relaxed)
}

/// Opens the socket ahead of the run, so that it can be used after privileges are dropped. An open one stays.
pub(crate) fn open_socket(remove_stale: bool) -> bool {
    let mut settings = SETTINGS.lock();
    settings.listener.is_some()
        || settings.open(remove_stale).map(|listener| settings.listener = Some(listener)).is_ok()
}

impl Settings {
    fn open(&self, remove_stale: bool) -> io::Result<Listener> {
        let (Some(filter), Some(connection)) = (&self.filter, &self.connection) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let shown = connection.to_string_lossy();
        if self.debug > 0 {
            log::write(Level::Debug, filter.name(), format_args!("Opening listen socket on conn {shown}"));
        }
        let opened = match description::Description::parse(connection) {
            Ok(description) => Listener::open(&description, remove_stale, self.backlog),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidInput, error.to_string())),
        };
        opened.inspect_err(|error| {
            log::error(filter.name(), format_args!("Unable to create listening socket on conn {shown}: {error}"));
        })
    }
}

/// What a run is made of.
pub(super) struct Plan {
    pub(super) filter: Arc<dyn Filter>,
    /// How long a session may be silent; `None` is forever.
    pub(super) timeout: Option<Duration>,
    pub(super) debug: c_int,
}

/// Why there can be no run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Filter,
    Connection,
}

/// The settings for a run that begins now.
pub(super) fn plan() -> Result<Plan, Missing> {
    let settings = SETTINGS.lock();
    if settings.connection.is_none() {
        return Err(Missing::Connection);
    }
    let filter = settings.filter.clone().ok_or(Missing::Filter)?;
    let timeout = u64::try_from(settings.timeout).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
    Ok(Plan { filter, timeout, debug: settings.debug })
}

/// The name of the filter for log lines, if there is one.
pub(super) fn filter_name() -> Option<CString> {
    SETTINGS.lock().filter.as_ref().map(|filter| filter.name().to_owned())
}

/// The socket for a run: the one opened ahead, or a new one.
pub(super) fn take_listener() -> io::Result<Listener> {
    let mut settings = SETTINGS.lock();
    settings.listener.take().map_or_else(|| settings.open(false), Ok)
}
