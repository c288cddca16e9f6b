//! The calls that concern the whole filter: registration, settings, start and stop.

use super::descriptor::Descriptor;
use super::guard::guard;
use super::mfapi::{CBool, MI_FAILURE, MI_SUCCESS, smfiDesc};
use crate::server;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::sync::Arc;

/// The version of the C interface: what `SMFI_VERSION` says unless a program defines it.
const VERSION: (c_uint, c_uint, c_uint) = (1, 0, 1);

/// Opens the listening socket now instead of in smfi_main().
///
/// Call it after smfi_setconn() and smfi_register() and before smfi_main(). It lets a program report a wrong
/// address early, set owner and mode of a socket file, or give up privileges before it serves.
///
/// @param remove_stale if true, a socket file that is in the way is removed first.
/// @return MI_SUCCESS, also if the socket is open already; MI_FAILURE if the filter is not registered, if there
/// is no address, or if the socket cannot be opened: the log says why.
///
/// cbindgen:prefix=__extension__ LIBMILTER_API
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_opensocket(remove_stale: CBool) -> c_int {
    // A caller whose bool has one octet leaves the others undefined.
    let remove_stale = remove_stale & 0xff != 0;
    guard(MI_FAILURE, || server::open_socket(remove_stale).then_some(MI_SUCCESS))
}

/// Tells the library the filter's name, version, actions and callbacks.
///
/// Call it before smfi_main(). The structure is copied; a later call replaces it.
///
/// @param descriptor the filter; its xxfi_version should be SMFI_VERSION.
/// @return MI_SUCCESS, or MI_FAILURE if xxfi_version is none that this library knows; the filter then counts as
/// not registered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_register(descriptor: smfiDesc) -> c_int {
    guard(MI_FAILURE, || {
        // SAFETY: string and descriptor rules of the pointer contract.
        match unsafe { Descriptor::from_c(descriptor) } {
            Ok(filter) => {
                server::register(Some(Arc::new(filter)));
                Some(MI_SUCCESS)
            }
            Err(mismatch) => {
                server::register(None);
                let (major, minor, patch) = VERSION;
                let known = format_args!("{major}.{minor}.{patch}");
                server::log_version_mismatch(&mismatch.name, mismatch.wanted, known);
                None
            }
        }
    })
}

/// Serves MTAs until the filter is told to stop by smfi_stop(), SIGHUP, SIGTERM or SIGINT.
///
/// Call it after smfi_register() and smfi_setconn(). Callbacks run in other threads, or in other processes if the
/// options say so, several at a time. The library starts no thread before this call, so a program may fork before
/// it.
///
/// @return MI_SUCCESS after a stop; MI_FAILURE if the filter is not registered, if there is no address, if the
/// socket cannot be opened, if LIBMILTER_OPTIONS is not understood, if smfi_main() is running already, if processes
/// are asked for and the program has other threads, or if threads or descriptors are lacking: the log says why.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_main() -> c_int {
    guard(MI_FAILURE, || server::run().then_some(MI_SUCCESS))
}

/// Sets how many connections may wait to be accepted.
///
/// Call it before the socket is opened.
///
/// @param backlog the number, at least 1.
/// @return MI_SUCCESS, or MI_FAILURE for a number below 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_setbacklog(backlog: c_int) -> c_int {
    guard(MI_FAILURE, || {
        (backlog > 0).then(|| {
            server::set_backlog(backlog);
            MI_SUCCESS
        })
    })
}

/// Sets how much the library tells on standard output about its work.
///
/// Call it before smfi_main().
///
/// @param level 0 for nothing; the higher, the more, up to 6.
/// @return MI_SUCCESS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_setdbg(level: c_int) -> c_int {
    guard(MI_FAILURE, || {
        server::set_debug(level);
        Some(MI_SUCCESS)
    })
}

/// Sets how long the library waits for the MTA before it gives a session up.
///
/// Call it before smfi_main(). The default is 7210 seconds; less than what the MTA may need between two commands
/// loses sessions.
///
/// @param seconds the time; 0 or less for no limit.
/// @return MI_SUCCESS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_settimeout(seconds: c_int) -> c_int {
    guard(MI_FAILURE, || {
        server::set_timeout(seconds);
        Some(MI_SUCCESS)
    })
}

/// Sets the address that the MTA connects to.
///
/// Call it before the socket is opened. The text is copied and looked at only when the socket is opened. Accepted
/// are "unix:PATH" and "local:PATH", a PATH without colon, "inet:PORT", "inet:PORT@HOST", "inet6:PORT",
/// "inet6:PORT@HOST" and "fd:NUMBER". HOST is a name, or a numeric address in brackets.
///
/// @param address the address.
/// @return MI_SUCCESS, or MI_FAILURE if address is NULL or empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_setconn(address: *mut c_char) -> c_int {
    guard(MI_FAILURE, || {
        if address.is_null() {
            return None;
        }
        // SAFETY: not NULL, string rule of the pointer contract.
        let address = unsafe { CStr::from_ptr(address) };
        (!address.is_empty()).then(|| {
            server::set_connection(address.to_owned());
            MI_SUCCESS
        })
    })
}

/// Ends the filter: no new sessions are accepted and smfi_main() returns.
///
/// Call it from any thread, callback or signal handler; it returns at once.
///
/// @return MI_SUCCESS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_stop() -> c_int {
    guard(MI_SUCCESS, || {
        server::stop();
        Some(MI_SUCCESS)
    })
}

/// Sets the largest payload, in octets, that a packet from or to the MTA may have.
///
/// It holds for sessions that begin later. No MTA needs this call.
///
/// @param size the new limit.
/// @return the former limit, MILTER_MAX_DATA_SIZE at first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_setmaxdatasize(size: usize) -> usize {
    guard(0, || Some(server::swap_data_size(size)))
}

/// Tells the version of the interface that the library in use has.
///
/// The numbers are those of SM_LM_VRS_MAJOR(SMFI_VERSION) and so on at the time when the library was built. Call
/// it at any time. A pointer may be NULL if that number is of no interest.
///
/// @param major where to store the first number.
/// @param minor where to store the second number.
/// @param patch_level where to store the third number.
/// @return MI_SUCCESS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_version(major: *mut c_uint, minor: *mut c_uint, patch_level: *mut c_uint) -> c_int {
    guard(MI_FAILURE, || {
        // SAFETY: result rule of the pointer contract.
        let results = unsafe { [major.as_mut(), minor.as_mut(), patch_level.as_mut()] };
        for (result, number) in results.into_iter().zip(<[c_uint; 3]>::from(VERSION)) {
            if let Some(result) = result {
                *result = number;
            }
        }
        Some(MI_SUCCESS)
    })
}
