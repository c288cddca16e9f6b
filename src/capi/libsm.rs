//! Five functions of sendmail's libsm, which sendmail's libmilter exports as well and no header of it declares.
//!
//! A filter that uses libsm and is linked with `-lmilter` ahead of `libsm.a` takes them from libmilter, so that programs
//! built for sendmail's library import them from this one. MIMEDefang's configure takes a library without `sm_strlcpy` for
//! one that needs `-lsm`. In `libmilter.a` they are weak: a program with a libsm of its own keeps its own.

#[cfg(not(c_variadic))]
use super::variadic::{pointers, three_and_pointers};
use std::ffi::{c_char, c_int};
use std::slice;

/// Writes `parts`, joined, to `destination` from its byte `at` on, as far as they fit into `size` bytes with the
/// closing NUL. Returns `at` plus the length of all parts. Where `at` leaves no room, nothing is written.
///
/// # Safety
///
/// `size` bytes can be written at `destination`, and each part is a string by the pointer contract, not NULL and not in
/// `destination`.
unsafe fn write_joined(
    destination: *mut c_char,
    at: usize,
    size: isize,
    parts: impl Iterator<Item = *const c_char>,
) -> usize {
    let last = usize::try_from(size).ok().and_then(|size| size.checked_sub(1)).filter(|last| at <= *last);
    let mut length = at;
    for part in parts {
        // SAFETY: a string, by the caller.
        let part = unsafe { slice::from_raw_parts(part, libc::strlen(part)) };
        if let Some(room) = last.and_then(|last| last.checked_sub(length)) {
            let copied = part.len().min(room);
            // SAFETY: `length + copied` is at most `size - 1`, and the part lies elsewhere.
            unsafe { destination.add(length).copy_from_nonoverlapping(part.as_ptr(), copied) };
        }
        length += part.len();
    }
    if let Some(last) = last {
        // SAFETY: at most `size - 1`.
        unsafe { destination.add(length.min(last)).write(0) };
    }
    length
}

/// Copies a string into a buffer of `size` bytes, cut if need be and always NUL-terminated.
///
/// Returns the length of `source`; the copy was cut if that is not below `size`. Nothing is written to a buffer
/// of no bytes.
///
/// # Safety
///
/// `source` is a string and `destination` a buffer by the pointer contract, neither of them NULL, and they do not
/// overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_strlcpy(destination: *mut c_char, source: *const c_char, size: isize) -> usize {
    // SAFETY: passed on to the caller.
    unsafe { write_joined(destination, 0, size, [source].into_iter()) }
}

/// Appends a string to the one in a buffer of `size` bytes, cut if need be and NUL-terminated.
///
/// Returns the length of both; the result was cut if that is not below `size`. A string that fills the buffer already is
/// left alone.
///
/// # Safety
///
/// As for [`sm_strlcpy`]; `destination` holds a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_strlcat(destination: *mut c_char, source: *const c_char, size: isize) -> usize {
    // SAFETY: passed on to the caller.
    unsafe { write_joined(destination, libc::strlen(destination), size, [source].into_iter()) }
}

/// Appends two strings, as [`sm_strlcat`] does one.
///
/// # Safety
///
/// As for [`sm_strlcat`], for both strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_strlcat2(
    destination: *mut c_char,
    first: *const c_char,
    second: *const c_char,
    size: isize,
) -> usize {
    // SAFETY: passed on to the caller.
    unsafe { write_joined(destination, libc::strlen(destination), size, [first, second].into_iter()) }
}

/// Copies `count` strings, joined, as [`sm_strlcpy`] does one.
///
/// # Safety
///
/// As for [`sm_strlcpy`], for each of the `count` strings.
#[cfg(c_variadic)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_strlcpyn(destination: *mut c_char, size: isize, count: c_int, mut strings: ...) -> usize {
    // SAFETY: passed on to the caller; `count` says how many there are.
    unsafe {
        let strings = std::iter::from_fn(|| Some(strings.next_arg::<*const c_char>()));
        write_joined(destination, 0, size, strings.take(usize::try_from(count).unwrap_or(0)))
    }
}

#[cfg(not(c_variadic))]
three_and_pointers! {
    /// Copies strings, joined, as [`sm_strlcpy`] does one; the third argument says how many there are.
    sm_strlcpyn(*mut c_char, isize, c_int) -> usize = copy_joined
}

/// What `sm_strlcpyn` does once its strings are in memory.
///
/// # Safety
///
/// As for [`sm_strlcpy`], for each of the `count` strings that `saved` and `stacked` lead to.
#[cfg(not(c_variadic))]
unsafe extern "C" fn copy_joined(
    destination: *mut c_char,
    size: isize,
    count: c_int,
    saved: *const *const c_char,
    stacked: *const *const c_char,
) -> usize {
    // SAFETY: `count` says how many there are, the rest is passed on to the caller.
    unsafe { write_joined(destination, 0, size, pointers(saved, stacked).take(usize::try_from(count).unwrap_or(0))) }
}

/// The text for an error number of the system, as `strerror`.
///
/// Sendmail's function also knows numbers from 256 on, which only functions return that neither library has.
#[unsafe(no_mangle)]
pub extern "C" fn sm_errstring(error: c_int) -> *const c_char {
    // SAFETY: `strerror` takes any number; its result is the caller's until this thread asks again.
    unsafe { libc::strerror(error) }
}

#[cfg(test)]
mod tests {
    use super::{sm_strlcat, sm_strlcat2, sm_strlcpy};
    use std::ffi::{CStr, c_char};

    /// What `function` returns, and what it makes of the six bytes in `buffer`.
    fn written(mut buffer: [u8; 6], function: impl FnOnce(*mut c_char) -> usize) -> (usize, [u8; 6]) {
        let length = function(buffer.as_mut_ptr().cast());
        (length, buffer)
    }

    fn copy(source: &CStr, size: isize) -> (usize, [u8; 6]) {
        // SAFETY: `size` is at most 6 in every test below.
        written(*b"......", |destination| unsafe { sm_strlcpy(destination, source.as_ptr(), size) })
    }

    fn append(start: [u8; 6], source: &CStr, size: isize) -> (usize, [u8; 6]) {
        // SAFETY: `size` is at most 6 in every test below.
        written(start, |destination| unsafe { sm_strlcat(destination, source.as_ptr(), size) })
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
        assert_eq!(append(*b"abc\0..", c"def", 6), (6, *b"abcde\0"));
    }

    #[test]
    fn no_room_means_no_write() {
        assert_eq!(copy(c"abc", 0), (3, *b"......"));
        assert_eq!(copy(c"abc", -1), (3, *b"......"));
        assert_eq!(append(*b"abc\0..", c"def", 0), (6, *b"abc\0.."));
        assert_eq!(append(*b"abc\0..", c"def", 2), (6, *b"abc\0.."));
        assert_eq!(append(*b"abc\0..", c"def", 4), (6, *b"abc\0.."));
    }

    #[test]
    fn strings_are_appended() {
        assert_eq!(append(*b"\0.....", c"abc", 6), (3, *b"abc\0.."));
        assert_eq!(append(*b"ab\0...", c"c", 6), (3, *b"abc\0.."));
        // SAFETY: the buffer has more than 5 bytes.
        let both = written(*b"a\0....", |to| unsafe { sm_strlcat2(to, c"b".as_ptr(), c"cde".as_ptr(), 5) });
        assert_eq!(both, (5, *b"abcd\0."));
    }
}
