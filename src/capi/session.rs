//! The calls that concern a session: its private pointer, its macros and its SMTP reply.

use super::guard::{guard, on_session};
use super::mfapi::{MI_FAILURE, MI_SUCCESS, SMFICTX};
use super::pointer::{session, string};
use milter_protocol::{SmtpReply, Stage};
use std::ffi::{c_char, c_int, c_void};
use std::ptr;

/// Looks up a macro that the MTA sent for this session.
///
/// Call it in any callback except xxfi_negotiate. The value of the latest stage is found first.
///
/// @param ctx the session.
/// @param name the macro: a letter, or a longer name in braces; braces around a letter make no difference.
/// @return the value, valid until the MTA sends the macros of that stage again or the session ends; NULL if
/// there is no such macro or an argument is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_getsymval(ctx: *mut SMFICTX, name: *mut c_char) -> *mut c_char {
    guard(ptr::null_mut(), || {
        // SAFETY: session and string rules of the pointer contract.
        let (session, name) = unsafe { (session(ctx)?, string(name).unwrap_or_default()) };
        session.macro_value(name).map(|value| value.as_ptr())
    })
}

/// Sets the SMTP reply with which the MTA refuses, in place of its own wording.
///
/// Call it in any callback except xxfi_negotiate. The reply is used by the next verdict SMFIS_REJECT if its code
/// begins with 5, by the next SMFIS_TEMPFAIL if it begins with 4, and replaces an earlier one. Strings are copied.
///
/// @param ctx the session.
/// @param code three digits, the first of them 4 or 5.
/// @param status an enhanced status code such as "5.7.1", or NULL.
/// @param text one line without CR and LF of at most 980 octets, or NULL.
/// @return MI_SUCCESS, or MI_FAILURE if an argument is not as said; an earlier reply then stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_setreply(
    ctx: *mut SMFICTX,
    code: *mut c_char,
    status: *mut c_char,
    text: *mut c_char,
) -> c_int {
    // SAFETY: session and string rules of the pointer contract.
    unsafe {
        on_session(ctx, "smfi_setreply", |session| {
            let reply = SmtpReply::single(string(code)?, string(status), string(text));
            Some(session.set_reply("smfi_setreply", reply))
        })
    }
}

/// Stores a pointer of the filter's own with the session.
///
/// Call it in any callback. The library never looks behind the pointer; free what it points to in xxfi_close.
///
/// @param ctx the session.
/// @param data the pointer, which replaces an earlier one.
/// @return MI_SUCCESS, or MI_FAILURE if ctx is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_setpriv(ctx: *mut SMFICTX, data: *mut c_void) -> c_int {
    guard(MI_FAILURE, || {
        // SAFETY: session rule of the pointer contract.
        unsafe { session(ctx)? }.set_private(data);
        Some(MI_SUCCESS)
    })
}

/// Returns the pointer that smfi_setpriv() stored.
///
/// Call it in any callback.
///
/// @param ctx the session.
/// @return the pointer; NULL if there is none or ctx is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_getpriv(ctx: *mut SMFICTX) -> *mut c_void {
    guard(ptr::null_mut(), || {
        // SAFETY: session rule of the pointer contract.
        Some(unsafe { session(ctx)? }.private())
    })
}

/// Tells the MTA which macros the filter wants at a stage.
///
/// Call it in xxfi_negotiate, once for a stage; later calls have no effect on the MTA. The list is copied.
///
/// @param ctx the session.
/// @param stage SMFIM_CONNECT, SMFIM_HELO and so on.
/// @param macros the names with blanks between them; empty for none.
/// @return MI_SUCCESS, or MI_FAILURE if ctx or macros is NULL, there is no such stage or its list is set already.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_setsymlist(ctx: *mut SMFICTX, stage: c_int, macros: *mut c_char) -> c_int {
    // SAFETY: session and string rules of the pointer contract.
    unsafe {
        on_session(ctx, "smfi_setsymlist", |session| {
            let macros = string(macros)?;
            Some(session.request_macros(Stage::from_index(stage)?, macros))
        })
    }
}
