//! The life of a filter: what it sets, where it listens, its sessions, its end.
//!
//! State of the process lives in [`settings`] and [`mod@stop`] and nowhere else. A [`service::Server`] is made of the
//! settings by [`run()`] and belongs to that one run.

mod activation;
mod admission;
mod buffer;
mod context;
mod description;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hints;
mod listener;
mod log;
mod metrics;
mod notifier;
mod observer;
mod options;
mod recording;
mod run;
mod service;
mod session;
mod settings;
mod signals;
mod socket_file;
mod stop;
mod trace;
mod watch;

use std::ffi::{CStr, c_int};
use std::fmt;

use milter_protocol::{Callback, Profile};

pub(crate) use context::Context;
pub(crate) use run::run;
pub(crate) use settings::{
    open_socket, register, set_backlog, set_connection, set_debug, set_option, set_timeout, swap_data_size,
};
pub(crate) use stop::{stop, stop_requested};

/// A filter, as the server has to know it.
pub(crate) trait Filter: Send + Sync {
    /// The name for log lines.
    fn name(&self) -> &CStr;

    /// Version, actions and callbacks.
    fn profile(&self) -> Profile;

    /// Runs a callback that the profile has, and gives what it returned; `None` if it has ended its thread instead. The
    /// callback may call any method of `context`, and may take as long as it likes.
    fn call(&self, context: &Context, callback: &mut Callback<'_>) -> Option<c_int>;
}

/// Tells the operator that a filter was compiled for another API than the `known` one.
pub(crate) fn log_version_mismatch(name: &CStr, wanted: c_int, known: fmt::Arguments<'_>) {
    let text = format_args!("smfi_register: version {wanted} of the filter does not fit {known} of the library");
    log::error(name, text);
}
