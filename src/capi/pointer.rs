//! From the pointers of a caller to references; the contract is that of [`super`].

use super::mfapi::SMFICTX;
use crate::server::Context;
use std::ffi::{CStr, c_char, c_uchar};

/// The session that `ctx` stands for, `None` for NULL.
///
/// # Safety
///
/// Session rule of the pointer contract, for as long as the result is used.
pub(super) unsafe fn session<'a>(ctx: *mut SMFICTX) -> Option<&'a Context> {
    // SAFETY: a SMFICTX that is not NULL is a Context, see `context_pointer`, and lives (session rule).
    unsafe { ctx.cast::<Context>().as_ref() }
}

/// What a callback is given for its session.
pub(super) fn context_pointer(context: &Context) -> *mut SMFICTX {
    std::ptr::from_ref(context).cast_mut().cast()
}

/// A string without its NUL, `None` for NULL.
///
/// # Safety
///
/// String rule of the pointer contract, for as long as the result is used.
pub(super) unsafe fn string<'a>(text: *const c_char) -> Option<&'a [u8]> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not NULL, hence NUL-terminated and unchanged (string rule).
    Some(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// A string that has to say something: `None` for NULL and for the empty string.
///
/// # Safety
///
/// As for [`string`].
pub(super) unsafe fn text<'a>(text: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: passed on to the caller.
    unsafe { string(text) }.filter(|bytes| !bytes.is_empty())
}

/// A buffer of `length` octets: `None` for a negative length, and for NULL unless the length is 0.
///
/// # Safety
///
/// Buffer rule of the pointer contract, for as long as the result is used.
pub(super) unsafe fn buffer<'a>(start: *const c_uchar, length: i32) -> Option<&'a [u8]> {
    match usize::try_from(length).ok()? {
        0 => Some(&[]),
        _ if start.is_null() => None,
        // SAFETY: not NULL, hence readable for its length (buffer rule).
        length => Some(unsafe { std::slice::from_raw_parts(start, length) }),
    }
}
