//! A name that is in no header: configure scripts look for it to find out whether a library is a libmilter.
//!
//! spamass-milter gives up if a program that calls `mi_stop` does not link. No filter calls it at run time.

use super::guard::guard;
use crate::server;
use std::ffi::c_int;

/// Whether the filter was told to stop: 1 if so, else 0.
#[unsafe(no_mangle)]
pub extern "C" fn mi_stop() -> c_int {
    guard(0, || Some(c_int::from(server::stop_requested())))
}
