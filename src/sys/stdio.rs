//! The program's standard output, through its own buffering.

use std::ffi::CString;

/// Writes one line to the C library's `stdout`.
pub(crate) fn put_line(line: String) {
    if let Ok(line) = CString::new(line) {
        // SAFETY: the string is NUL-terminated.
        unsafe { libc::puts(line.as_ptr()) };
    }
}
