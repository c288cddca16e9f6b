//! The constants and types of `libmilter/mfapi.h`.

use std::ffi::{c_char, c_int, c_long, c_uchar, c_ulong};
use std::mem::MaybeUninit;

/// Result of a library call: done.
pub const MI_SUCCESS: c_int = 0;
/// Result of a library call: refused or failed.
pub const MI_FAILURE: c_int = -1;

/// Verdict: go on with the next event.
pub const SMFIS_CONTINUE: c_int = 0;
/// Verdict: refuse for good; of a recipient only that recipient, of a connection all that follows on it.
pub const SMFIS_REJECT: c_int = 1;
/// Verdict: accept the message and silently throw it away.
pub const SMFIS_DISCARD: c_int = 2;
/// Verdict: accept the message, or the whole connection, without further events.
pub const SMFIS_ACCEPT: c_int = 3;
/// Verdict: refuse for now; the sender may try again.
pub const SMFIS_TEMPFAIL: c_int = 4;
/// Verdict: send no answer; only where the matching SMFIP_NR_ step was negotiated.
pub const SMFIS_NOREPLY: c_int = 7;
/// Verdict: no more events of this kind in this message; only where SMFIP_SKIP was negotiated.
pub const SMFIS_SKIP: c_int = 8;
/// Verdict of xxfi_negotiate only: use every action that the MTA offers and the default steps.
pub const SMFIS_ALL_OPTS: c_int = 10;

/// Action: none.
pub const SMFIF_NONE: c_long = 0x0000_0000;
/// Action: add and insert header fields.
pub const SMFIF_ADDHDRS: c_long = 0x0000_0001;
/// Action: replace the body.
pub const SMFIF_CHGBODY: c_long = 0x0000_0002;
/// The former name of SMFIF_CHGBODY.
pub const SMFIF_MODBODY: c_long = SMFIF_CHGBODY;
/// Action: add recipients.
pub const SMFIF_ADDRCPT: c_long = 0x0000_0004;
/// Action: remove recipients.
pub const SMFIF_DELRCPT: c_long = 0x0000_0008;
/// Action: change and remove header fields.
pub const SMFIF_CHGHDRS: c_long = 0x0000_0010;
/// Action: quarantine the message.
pub const SMFIF_QUARANTINE: c_long = 0x0000_0020;
/// Action: replace the envelope sender.
pub const SMFIF_CHGFROM: c_long = 0x0000_0040;
/// Action: add recipients with ESMTP arguments.
pub const SMFIF_ADDRCPT_PAR: c_long = 0x0000_0080;
/// Action: tell the MTA which macros to send.
pub const SMFIF_SETSYMLIST: c_long = 0x0000_0100;

/// Stage of smfi_setsymlist(): none.
pub const SMFIM_NOMACROS: c_int = -1;
/// Stage of smfi_setsymlist(): the lowest number.
pub const SMFIM_FIRST: c_int = 0;
/// Stage of smfi_setsymlist(): connection.
pub const SMFIM_CONNECT: c_int = 0;
/// Stage of smfi_setsymlist(): HELO.
pub const SMFIM_HELO: c_int = 1;
/// Stage of smfi_setsymlist(): MAIL.
pub const SMFIM_ENVFROM: c_int = 2;
/// Stage of smfi_setsymlist(): RCPT.
pub const SMFIM_ENVRCPT: c_int = 3;
/// Stage of smfi_setsymlist(): DATA.
pub const SMFIM_DATA: c_int = 4;
/// Stage of smfi_setsymlist(): end of the message.
pub const SMFIM_EOM: c_int = 5;
/// Stage of smfi_setsymlist(): end of the header.
pub const SMFIM_EOH: c_int = 6;
/// Stage of smfi_setsymlist(): the highest number.
pub const SMFIM_LAST: c_int = 6;

/// What a callback returns: one of SMFIS_CONTINUE, SMFIS_REJECT and so on.
pub type sfsistat = c_int;

/// The argument of `smfi_opensocket`: a C `bool`, which is an `int` for some callers and one octet for others.
///
/// cbindgen:ignore
pub type CBool = c_int;

/// The socket address of xxfi_connect, whose C name a program may define for itself.
///
/// cbindgen:ignore
pub type _SOCK_ADDR = libc::sockaddr;

/// A session: one connection from the MTA.
///
/// Every callback is given one, and the calls that concern a session take it back. The pointer stays the same
/// from the first callback of a session to the end of its xxfi_close, and no two live sessions share one.
pub struct smfi_str {
    _opaque: [u8; 0],
}

/// The usual name of a session.
pub type SMFICTX = smfi_str;
/// Pointer to a session.
pub type SMFICTX_PTR = *mut smfi_str;

/// What a filter tells smfi_register() about itself.
///
/// Every callback may be NULL. Callbacks of one session never run at the same time, those of different sessions
/// do. The strings, arrays and addresses that a callback is given may be changed in place and are valid until it
/// returns.
#[repr(C)]
pub struct smfiDesc {
    /// The filter's name, for the log; NULL stands for "Unknown".
    pub xxfi_name: *mut c_char,
    /// SMFI_VERSION; or 2, 3 or 4 for programs written for those versions, whose structure ends earlier.
    pub xxfi_version: c_int,
    /// The SMFIF_ actions that the filter wants to use.
    pub xxfi_flags: c_ulong,
    /// A client has connected: its host name and its address, or NULL if that is not known.
    pub xxfi_connect: Option<unsafe extern "C-unwind" fn(*mut SMFICTX, *mut c_char, *mut _SOCK_ADDR) -> sfsistat>,
    /// HELO or EHLO: the name that the client gave.
    pub xxfi_helo: Option<unsafe extern "C-unwind" fn(*mut SMFICTX, *mut c_char) -> sfsistat>,
    /// MAIL: the sender and its ESMTP arguments, ended by NULL.
    pub xxfi_envfrom: Option<unsafe extern "C-unwind" fn(*mut SMFICTX, *mut *mut c_char) -> sfsistat>,
    /// RCPT: a recipient and its ESMTP arguments, ended by NULL.
    pub xxfi_envrcpt: Option<unsafe extern "C-unwind" fn(*mut SMFICTX, *mut *mut c_char) -> sfsistat>,
    /// One header field: its name and its value.
    pub xxfi_header: Option<unsafe extern "C-unwind" fn(*mut SMFICTX, *mut c_char, *mut c_char) -> sfsistat>,
    /// End of the header.
    pub xxfi_eoh: Option<unsafe extern "C-unwind" fn(*mut SMFICTX) -> sfsistat>,
    /// A piece of the body and its length in octets; not ended by a NUL.
    pub xxfi_body: Option<unsafe extern "C-unwind" fn(*mut SMFICTX, *mut c_uchar, usize) -> sfsistat>,
    /// End of the message: the only callback in which the message may be modified.
    pub xxfi_eom: Option<unsafe extern "C-unwind" fn(*mut SMFICTX) -> sfsistat>,
    /// The message is given up; the session may go on. The result is ignored.
    pub xxfi_abort: Option<unsafe extern "C-unwind" fn(*mut SMFICTX) -> sfsistat>,
    /// The session ends, always the last callback: free its private data here. The result is ignored.
    pub xxfi_close: Option<unsafe extern "C-unwind" fn(*mut SMFICTX) -> sfsistat>,
    /// An SMTP command that the MTA does not know; from version 3 on.
    pub xxfi_unknown: MaybeUninit<Option<unsafe extern "C-unwind" fn(*mut SMFICTX, *const c_char) -> sfsistat>>,
    /// DATA; from version 4 on.
    pub xxfi_data: MaybeUninit<Option<unsafe extern "C-unwind" fn(*mut SMFICTX) -> sfsistat>>,
    /// Option negotiation: what the MTA offers (actions, steps, two times 0), and where to store what the filter
    /// wants of it; from version 0x01000000 on.
    pub xxfi_negotiate: MaybeUninit<
        Option<
            unsafe extern "C-unwind" fn(
                *mut SMFICTX,
                c_ulong,
                c_ulong,
                c_ulong,
                c_ulong,
                *mut c_ulong,
                *mut c_ulong,
                *mut c_ulong,
                *mut c_ulong,
            ) -> sfsistat,
        >,
    >,
}

/// Another name of struct smfiDesc.
pub type smfiDesc_str = smfiDesc;
/// Pointer to a struct smfiDesc.
pub type smfiDesc_ptr = *mut smfiDesc;
