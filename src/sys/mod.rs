//! System calls. Besides the C boundary the only home of `unsafe`; nothing here knows what a filter is.
//!
//! Every descriptor made here is close-on-exec from the start and never lands on 0, 1 or 2: a program that has closed
//! its standard streams would otherwise write its messages into a mail session.

pub(crate) mod accounts;
pub(crate) mod append;
pub(crate) mod cancellation;
#[cfg(target_os = "linux")]
pub(crate) mod channel;
#[cfg(target_os = "linux")]
pub(crate) mod child;
pub(crate) mod datagram;
pub(crate) mod descriptor;
mod direct;
#[cfg(target_os = "linux")]
pub(crate) mod epoll;
pub(crate) mod error;
pub(crate) mod fork_mark;
pub(crate) mod memory;
pub(crate) mod names;
pub(crate) mod path;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod shared;
pub(crate) mod signal;
pub(crate) mod slot;
pub(crate) mod socket;
pub(crate) mod stdio;
pub(crate) mod syslog;
pub(crate) mod thread;
#[cfg(target_os = "linux")]
pub(crate) mod timer;
pub(crate) mod wake;

use std::io;

/// The result of a system call that answers -1 on failure.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The same for calls that answer a length.
fn check_len(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
