//! The system log, under the identity and facility the program has chosen.

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Level {
    Error = libc::LOG_ERR,
    Warning = libc::LOG_WARNING,
    Info = libc::LOG_INFO,
    Debug = libc::LOG_DEBUG,
}

/// Writes one line, up to its first NUL. Needs no memory here; the C library may want some for lines longer than about
/// 900 bytes.
pub(crate) fn write(level: Level, line: &[u8]) {
    let len = libc::c_int::try_from(line.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the format takes a length and a string, of which no more bytes are read than the length says; the line has
    // that many.
    unsafe { libc::syslog(level as libc::c_int, c"%.*s".as_ptr(), len, line.as_ptr()) };
}
