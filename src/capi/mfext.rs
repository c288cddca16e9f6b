//! `libmilter/mfext.h`: what this library offers beyond the C interface it replaces.
//!
//! The masks sort actions and protocol steps by the protocol version that brought them.

use super::guard::guard;
use super::mfapi::{MI_FAILURE, MI_SUCCESS};
use super::mfdef::{SMFI_CURR_ACTS, SMFI_CURR_PROT, SMFI_V2_ACTS, SMFI_V2_PROT};
use super::pointer::text;
use crate::server;
use std::ffi::{c_char, c_int, c_long};

/// The actions of protocol version 2.
pub const SMFIF_ALLOPTS_V2: c_long = SMFI_V2_ACTS;
/// The actions that protocol version 6 has and version 2 has not.
pub const SMFIF_ALLOPTS_V6: c_long = SMFI_CURR_ACTS ^ SMFI_V2_ACTS;
/// All actions of both versions.
pub const SMFIF_ALLOPTS: c_long = SMFIF_ALLOPTS_V2 | SMFIF_ALLOPTS_V6;

/// The protocol steps of protocol version 2.
pub const SMFIP_ALLPROTOS_V2: c_long = SMFI_V2_PROT;
/// The protocol steps that protocol version 6 has and version 2 has not.
pub const SMFIP_ALLPROTOS_V6: c_long = SMFI_CURR_PROT ^ SMFI_V2_PROT;
/// All protocol steps of both versions.
pub const SMFIP_ALLPROTOS: c_long = SMFIP_ALLPROTOS_V2 | SMFIP_ALLPROTOS_V6;

/// Sets one of the library's own options, which libmilter(7) lists.
///
/// Call it before smfi_opensocket() and smfi_main(). The texts are copied. The administrator may set the same options in
/// the environment variable LIBMILTER_OPTIONS, and wins; only "noreply" is for the program alone.
///
/// @param name the option, for instance "model".
/// @param value its value, for instance "threads".
/// @return MI_SUCCESS, or MI_FAILURE if there is no such option or value, or if a text is NULL: the log says why.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_setopt(name: *const c_char, value: *const c_char) -> c_int {
    guard(MI_FAILURE, || {
        // SAFETY: string rule of the pointer contract.
        let (name, value) = unsafe { (text(name), text(value)) };
        let [name, value] = [name, value].map(|text| String::from_utf8_lossy(text.unwrap_or_default()));
        server::set_option(&name, &value).then_some(MI_SUCCESS)
    })
}
