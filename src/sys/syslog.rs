//! The system log, under the identity and facility the program has chosen.

use std::ffi::CString;

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Level {
    Error = libc::LOG_ERR,
    Warning = libc::LOG_WARNING,
    Info = libc::LOG_INFO,
    Debug = libc::LOG_DEBUG,
}

/// Writes one line.
pub(crate) fn write(level: Level, mut line: Vec<u8>) {
    line.retain(|&octet| octet != 0);
    let line = CString::new(line).expect("no NUL is left");
    // SAFETY: the format takes one string, and gets one that is NUL-terminated.
    unsafe { libc::syslog(level as libc::c_int, c"%s".as_ptr(), line.as_ptr()) };
}
