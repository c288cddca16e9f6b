//! The calls that modify a message, and the one that asks the MTA for patience.

use super::guard::on_session;
use super::mfapi::SMFICTX;
use super::pointer::{buffer, string, text};
use milter_protocol::Modification;
use std::ffi::{c_char, c_int, c_uchar};

/// Appends a header field to the message.
///
/// Call it in xxfi_eom, with the action SMFIF_ADDHDRS. Strings are copied. The text goes out as it is: fold long
/// values with a line feed and white space.
///
/// @param ctx the session.
/// @param name the name of the field, without colon.
/// @param value the value; may be empty.
/// @return MI_SUCCESS; MI_FAILURE if the call is not allowed here, name is NULL or empty, value is NULL, the field
/// does not fit into a packet or the MTA cannot be reached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_addheader(ctx: *mut SMFICTX, name: *mut c_char, value: *mut c_char) -> c_int {
    // SAFETY: session and string rules of the pointer contract.
    unsafe {
        on_session(ctx, "smfi_addheader", |session| {
            let (name, value) = (text(name)?, string(value)?);
            Some(session.modify(Modification::AddHeader { name, value }))
        })
    }
}

/// Changes or removes a header field of the message.
///
/// Call it in xxfi_eom, with the action SMFIF_CHGHDRS. Strings are copied.
///
/// @param ctx the session.
/// @param name the name of the field, without colon.
/// @param index which of the fields of that name, counted from 1; if there are fewer, a field is added.
/// @param value the new value; NULL or empty removes the field.
/// @return MI_SUCCESS; MI_FAILURE if the call is not allowed here, name is NULL or empty, index is negative, the
/// field does not fit into a packet or the MTA cannot be reached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_chgheader(
    ctx: *mut SMFICTX,
    name: *mut c_char,
    index: c_int,
    value: *mut c_char,
) -> c_int {
    // SAFETY: session and string rules of the pointer contract.
    unsafe {
        on_session(ctx, "smfi_chgheader", |session| {
            let index = u32::try_from(index).ok()?;
            let (name, value) = (text(name)?, string(value).unwrap_or_default());
            Some(session.modify(Modification::ChangeHeader { index, name, value }))
        })
    }
}

/// Inserts a header field into the message.
///
/// Call it in xxfi_eom, with the action SMFIF_ADDHDRS. Strings are copied.
///
/// @param ctx the session.
/// @param index how many of the fields of the message as it was received come before it; 0 is the very front, a
/// number beyond the last field the end.
/// @param name the name of the field, without colon.
/// @param value the value; may be empty.
/// @return MI_SUCCESS; MI_FAILURE if the call is not allowed here, index is negative, name is NULL or empty, value
/// is NULL, the field does not fit into a packet or the MTA cannot be reached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_insheader(
    ctx: *mut SMFICTX,
    index: c_int,
    name: *mut c_char,
    value: *mut c_char,
) -> c_int {
    // SAFETY: session and string rules of the pointer contract.
    unsafe {
        on_session(ctx, "smfi_insheader", |session| {
            let index = u32::try_from(index).ok()?;
            let (name, value) = (text(name)?, string(value)?);
            Some(session.modify(Modification::InsertHeader { index, name, value }))
        })
    }
}

/// Replaces the envelope sender of the message.
///
/// Call it in xxfi_eom, with the action SMFIF_CHGFROM. Strings are copied.
///
/// @param ctx the session.
/// @param address the new sender.
/// @param arguments ESMTP arguments with blanks between them, or NULL.
/// @return MI_SUCCESS; MI_FAILURE if the call is not allowed here, address is NULL or empty, both do not fit into a
/// packet or the MTA cannot be reached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_chgfrom(ctx: *mut SMFICTX, address: *mut c_char, arguments: *mut c_char) -> c_int {
    // SAFETY: session and string rules of the pointer contract.
    unsafe {
        on_session(ctx, "smfi_chgfrom", |session| {
            let (address, arguments) = (text(address)?, string(arguments));
            Some(session.modify(Modification::ChangeSender { address, arguments }))
        })
    }
}

/// Adds a recipient to the message.
///
/// Call it in xxfi_eom, with the action SMFIF_ADDRCPT. The string is copied.
///
/// @param ctx the session.
/// @param address the recipient.
/// @return MI_SUCCESS; MI_FAILURE if the call is not allowed here, address is NULL or empty, it does not fit into
/// a packet or the MTA cannot be reached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_addrcpt(ctx: *mut SMFICTX, address: *mut c_char) -> c_int {
    // SAFETY: session and string rules of the pointer contract.
    unsafe {
        on_session(ctx, "smfi_addrcpt", |session| {
            let address = text(address)?;
            Some(session.modify(Modification::AddRecipient { address }))
        })
    }
}

/// Adds a recipient with ESMTP arguments to the message.
///
/// Call it in xxfi_eom, with the action SMFIF_ADDRCPT_PAR; SMFIF_ADDRCPT does not do. Strings are copied.
///
/// @param ctx the session.
/// @param address the recipient.
/// @param arguments ESMTP arguments with blanks between them, or NULL.
/// @return MI_SUCCESS; MI_FAILURE if the call is not allowed here, address is NULL or empty, both do not fit into a
/// packet or the MTA cannot be reached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_addrcpt_par(ctx: *mut SMFICTX, address: *mut c_char, arguments: *mut c_char) -> c_int {
    // SAFETY: session and string rules of the pointer contract.
    unsafe {
        on_session(ctx, "smfi_addrcpt_par", |session| {
            let (address, arguments) = (text(address)?, string(arguments));
            Some(session.modify(Modification::AddRecipientWithArguments { address, arguments }))
        })
    }
}

/// Removes a recipient from the message.
///
/// Call it in xxfi_eom, with the action SMFIF_DELRCPT. The string is copied.
///
/// @param ctx the session.
/// @param address the recipient, spelled as xxfi_envrcpt was given it.
/// @return MI_SUCCESS; MI_FAILURE if the call is not allowed here, address is NULL or empty, it does not fit into
/// a packet or the MTA cannot be reached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_delrcpt(ctx: *mut SMFICTX, address: *mut c_char) -> c_int {
    // SAFETY: session and string rules of the pointer contract.
    unsafe {
        on_session(ctx, "smfi_delrcpt", |session| {
            let address = text(address)?;
            Some(session.modify(Modification::DeleteRecipient { address }))
        })
    }
}

/// Tells the MTA that the filter is still at work, so that it starts its timeout again.
///
/// Call it in xxfi_eom; with Postfix in any callback except xxfi_negotiate. Other threads may call it while the
/// callback runs. What was modified so far goes out, too.
///
/// @param ctx the session.
/// @return MI_SUCCESS; MI_FAILURE if ctx is NULL or the MTA cannot be reached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_progress(ctx: *mut SMFICTX) -> c_int {
    // SAFETY: session rule of the pointer contract.
    unsafe { on_session(ctx, "smfi_progress", |session| Some(session.progress())) }
}

/// Replaces the body of the message.
///
/// Call it in xxfi_eom, with the action SMFIF_CHGBODY. The first call throws the old body away, the next ones
/// append. The octets are copied; lines end in CR LF.
///
/// @param ctx the session.
/// @param body the octets, or NULL if length is 0.
/// @param length how many; 0 empties the body.
/// @return MI_SUCCESS; MI_FAILURE if the call is not allowed here, length is negative, body is NULL with a length,
/// or the MTA cannot be reached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_replacebody(ctx: *mut SMFICTX, body: *mut c_uchar, length: c_int) -> c_int {
    // SAFETY: session and buffer rules of the pointer contract.
    unsafe {
        on_session(ctx, "smfi_replacebody", |session| {
            let body = buffer(body, length)?;
            Some(session.replace_body(body))
        })
    }
}

/// Quarantines the message: the MTA keeps it, undelivered, until somebody decides.
///
/// Call it in xxfi_eom, with the action SMFIF_QUARANTINE. The string is copied.
///
/// @param ctx the session.
/// @param reason why, for whoever looks into the queue.
/// @return MI_SUCCESS; MI_FAILURE if the call is not allowed here, reason is NULL or empty, it does not fit into a
/// packet or the MTA cannot be reached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_quarantine(ctx: *mut SMFICTX, reason: *mut c_char) -> c_int {
    // SAFETY: session and string rules of the pointer contract.
    unsafe {
        on_session(ctx, "smfi_quarantine", |session| {
            let reason = text(reason)?;
            Some(session.modify(Modification::Quarantine { reason }))
        })
    }
}
