//! The C boundary: raw pointers come in here and stop here.
//!
//! Every function that C programs see lives in this module, and nothing else does: the files translate
//! arguments, call [`crate::server`] and translate the result. Their documentation is that of the generated
//! headers, so it is written for C programmers.
//!
//! # The pointer contract
//!
//! C cannot express what a pointer must be, so it is said once, here, and the `SAFETY` comments of this module
//! refer to it. Whoever calls one of the functions promises:
//!
//! - **Session.** A `SMFICTX *` is NULL, or was given to a callback of the registered filter whose session has
//!   not yet returned from its last xxfi_close, nor from a callback that has ended its thread.
//! - **String.** A `char *` is NULL or points to a NUL-terminated string that nobody changes during the call.
//! - **Buffer.** A pointer with a length is NULL, or that many octets can be read (written, where it is a
//!   destination) and nobody else changes them during the call.
//! - **Result.** A pointer through which a result is returned is NULL, or aligned and writable.
//! - **Descriptor.** The callbacks in a `struct smfiDesc` that its version covers are NULL or functions of the
//!   declared type, which may be called from any thread for as long as sessions exist. Fields that the version
//!   does not cover may hold anything and are not looked at.
//!
//! What a NULL means is part of each function's own rules. Nothing that is passed in is kept after the call,
//! except callbacks and private pointers.
//!
//! In the other direction, what a callback is given belongs to it until it returns, and may be written to.
//!
//! No panic passes through this boundary: see [`guard`].
#![allow(
    non_camel_case_types,
    clippy::upper_case_acronyms,
    clippy::type_complexity,
    reason = "these are the names and types of the C interface"
)]
#![allow(unreachable_pub, reason = "the headers are generated from what is pub")]
#![allow(clippy::missing_safety_doc, reason = "the pointer contract holds for every function")]

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod callback;
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod callback {
    //! Calling into C where nothing keeps a thread that ends in a callback from taking the process along.

    use std::ffi::c_int;

    /// Calls a callback and gives what it returns.
    pub(super) fn call(callback: impl FnOnce() -> c_int + Copy) -> Option<c_int> {
        Some(callback())
    }
}
mod descriptor;
mod guard;
mod libsm;
mod lifecycle;
#[allow(dead_code, reason = "constants for C programs")]
mod mfapi;
#[allow(dead_code, reason = "constants for C programs")]
mod mfdef;
#[allow(dead_code, reason = "constants for C programs")]
mod mfext;
mod modification;
mod pointer;
mod probe;
mod session;
mod variadic;
