//! The constants of `libmilter/mfext.h`: what this library offers beyond the C interface it replaces.
//!
//! The masks sort actions and protocol steps by the protocol version that brought them.

use super::mfdef::{SMFI_CURR_ACTS, SMFI_CURR_PROT, SMFI_V2_ACTS, SMFI_V2_PROT};
use std::ffi::c_long;

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
