//! Two names that are in no header: configure scripts look for them to find out whether a library is a libmilter.
//!
//! spamass-milter gives up if a program that calls `mi_stop` does not link; MIMEDefang takes a library without
//! `sm_strlcpy` for one that needs `-lsm`. No filter calls them at run time.

use super::guard::guard;
use crate::server;
use std::ffi::{c_char, c_int};

/// Whether the filter was told to stop: 1 if so, else 0.
#[unsafe(no_mangle)]
pub extern "C" fn mi_stop() -> c_int {
    guard(0, || Some(c_int::from(server::stop_requested())))
}

/// Copies a string into a buffer of `size` octets, cut if need be and always NUL-terminated.
///
/// Returns the length of `source`; the copy was cut if that is not below `size`. Nothing is written to a buffer
/// of no octets.
///
/// # Safety
///
/// `source` is a string and `destination` a buffer by the pointer contract, neither of them NULL, and they do not
/// overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_strlcpy(destination: *mut c_char, source: *const c_char, size: isize) -> usize {
    // SAFETY: not NULL, string rule of the pointer contract.
    let length = unsafe { libc::strlen(source) };
    if let Some(room) = usize::try_from(size).ok().and_then(|size| size.checked_sub(1)) {
        let copied = length.min(room);
        // SAFETY: `copied` octets and the NUL fit into `size` (buffer rule), the caller rules overlap out.
        unsafe {
            destination.copy_from_nonoverlapping(source, copied);
            destination.add(copied).write(0);
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::sm_strlcpy;

    fn copy(source: &std::ffi::CStr, size: isize) -> (usize, [u8; 6]) {
        let mut destination = *b"......";
        // SAFETY: `size` is at most 6 in every test below.
        let length = unsafe { sm_strlcpy(destination.as_mut_ptr().cast(), source.as_ptr(), size) };
        (length, destination)
    }

    #[test]
    fn strings_that_fit_are_copied() {
        assert_eq!(copy(c"abc", 6), (3, *b"abc\0.."));
        assert_eq!(copy(c"abcde", 6), (5, *b"abcde\0"));
    }

    #[test]
    fn longer_strings_are_cut() {
        assert_eq!(copy(c"abcdef", 6), (6, *b"abcde\0"));
        assert_eq!(copy(c"abc", 1), (3, *b"\0....."));
    }

    #[test]
    fn no_room_means_no_write() {
        assert_eq!(copy(c"abc", 0), (3, *b"......"));
        assert_eq!(copy(c"abc", -1), (3, *b"......"));
    }
}
