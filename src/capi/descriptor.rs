//! The registered filter: a `struct smfiDesc` as the server's [`Filter`].

use super::callback::call;
use super::mfapi::{SMFICTX, SMFIS_TEMPFAIL, sfsistat, smfiDesc};
use super::pointer::context_pointer;
use crate::server::{Context, Filter};
use milter_protocol::{Actions, Arguments, Callback, Callbacks, ClientAddress, Offer, Profile, Steps};
use std::collections::TryReserveError;
use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_ulong};
use std::mem::MaybeUninit;
use std::ptr;

/// The name of a filter that gives none.
const NAMELESS: &CStr = c"Unknown";

type OnConnect = unsafe extern "C-unwind" fn(*mut SMFICTX, *mut c_char, *mut libc::sockaddr) -> sfsistat;
type OnHelo = unsafe extern "C-unwind" fn(*mut SMFICTX, *mut c_char) -> sfsistat;
type OnEnvelope = unsafe extern "C-unwind" fn(*mut SMFICTX, *mut *mut c_char) -> sfsistat;
type OnHeader = unsafe extern "C-unwind" fn(*mut SMFICTX, *mut c_char, *mut c_char) -> sfsistat;
type OnBody = unsafe extern "C-unwind" fn(*mut SMFICTX, *mut c_uchar, usize) -> sfsistat;
type OnUnknown = unsafe extern "C-unwind" fn(*mut SMFICTX, *const c_char) -> sfsistat;
type OnEvent = unsafe extern "C-unwind" fn(*mut SMFICTX) -> sfsistat;
type OnNegotiate = unsafe extern "C-unwind" fn(
    *mut SMFICTX,
    c_ulong,
    c_ulong,
    c_ulong,
    c_ulong,
    *mut c_ulong,
    *mut c_ulong,
    *mut c_ulong,
    *mut c_ulong,
) -> sfsistat;

/// A filter as it was registered, without what its version does not cover.
pub(super) struct Descriptor {
    name: CString,
    version: c_int,
    actions: Actions,
    connect: Option<OnConnect>,
    helo: Option<OnHelo>,
    envfrom: Option<OnEnvelope>,
    envrcpt: Option<OnEnvelope>,
    header: Option<OnHeader>,
    eoh: Option<OnEvent>,
    body: Option<OnBody>,
    eom: Option<OnEvent>,
    abort: Option<OnEvent>,
    close: Option<OnEvent>,
    unknown: Option<OnUnknown>,
    data: Option<OnEvent>,
    negotiate: Option<OnNegotiate>,
}

/// A filter wants a version of the interface that this library does not know.
pub(super) struct VersionMismatch {
    pub(super) name: CString,
    pub(super) wanted: c_int,
}

impl Descriptor {
    /// Reads the fields that the descriptor's version covers.
    ///
    /// # Safety
    ///
    /// String and descriptor rules of the pointer contract.
    pub(super) unsafe fn from_c(c: smfiDesc) -> Result<Self, VersionMismatch> {
        let name = match c.xxfi_name {
            name if name.is_null() => NAMELESS,
            // SAFETY: not NULL, string rule.
            name => unsafe { CStr::from_ptr(name) },
        };
        let name = name.to_owned();
        let version = c.xxfi_version;
        let Some(late) = LateCallbacks::of_version(version) else {
            return Err(VersionMismatch { name, wanted: version });
        };
        Ok(Descriptor {
            name,
            version,
            actions: Actions::from_bits_retain(low_word(c.xxfi_flags)),
            connect: c.xxfi_connect,
            helo: c.xxfi_helo,
            envfrom: c.xxfi_envfrom,
            envrcpt: c.xxfi_envrcpt,
            header: c.xxfi_header,
            eoh: c.xxfi_eoh,
            body: c.xxfi_body,
            eom: c.xxfi_eom,
            abort: c.xxfi_abort,
            close: c.xxfi_close,
            // SAFETY: the version covers the field, so the filter has set it (descriptor rule).
            unknown: if late.unknown { unsafe { c.xxfi_unknown.assume_init() } } else { None },
            // SAFETY: as above.
            data: if late.data { unsafe { c.xxfi_data.assume_init() } } else { None },
            // SAFETY: as above.
            negotiate: if late.negotiate { unsafe { c.xxfi_negotiate.assume_init() } } else { None },
        })
    }

    fn callbacks(&self) -> Callbacks {
        [
            (self.connect.is_some(), Callbacks::CONNECT),
            (self.helo.is_some(), Callbacks::HELO),
            (self.envfrom.is_some(), Callbacks::ENVFROM),
            (self.envrcpt.is_some(), Callbacks::ENVRCPT),
            (self.header.is_some(), Callbacks::HEADER),
            (self.eoh.is_some(), Callbacks::EOH),
            (self.body.is_some(), Callbacks::BODY),
            (self.eom.is_some(), Callbacks::EOM),
            (self.abort.is_some(), Callbacks::ABORT),
            (self.close.is_some(), Callbacks::CLOSE),
            (self.unknown.is_some(), Callbacks::UNKNOWN),
            (self.data.is_some(), Callbacks::DATA),
            (self.negotiate.is_some(), Callbacks::NEGOTIATE),
        ]
        .into_iter()
        .filter_map(|(present, callback)| present.then_some(callback))
        .collect()
    }

    /// Calls the callback; `None` if the filter has none for it, and within that what [`call`] gives. Where there is no
    /// memory for its arguments, the filter is not called: the command is refused for now.
    ///
    /// # Safety
    ///
    /// No other callback of the session runs.
    unsafe fn call_c(&self, context: &Context, callback: &mut Callback<'_>) -> Option<Option<sfsistat>> {
        let ctx = context_pointer(context);
        let refuse = |callback| {
            context.report_lack_of_memory(callback);
            Some(Some(SMFIS_TEMPFAIL))
        };
        let kind = callback.kind();
        let on_event = |event: Option<OnEvent>| {
            let event = event?;
            // SAFETY: as below.
            Some(call(move || unsafe { event(ctx) }))
        };
        let on_envelope = |envelope: Option<OnEnvelope>, arguments: &mut Arguments<'_>| {
            let envelope = envelope?;
            let (mut few, mut many) = ([ptr::null_mut(); FEW_ARGUMENTS], Vec::new());
            let Ok(arguments) = argument_vector(arguments, &mut few, &mut many) else { return refuse(kind) };
            // SAFETY: as below.
            Some(call(move || unsafe { envelope(ctx, arguments) }))
        };
        // SAFETY: the functions are of their type and may be called (descriptor rule); they get their session,
        // and memory that nobody else uses until they return.
        Some(unsafe {
            match callback {
                Callback::Negotiate(offer) => negotiate(self.negotiate?, ctx, offer),
                Callback::Connect { host, address } => {
                    let connect = self.connect?;
                    let host = c_string(host);
                    let mut address = address.map(SocketAddress::from);
                    let address = address.as_mut().map_or(ptr::null_mut(), SocketAddress::as_mut_ptr);
                    call(move || connect(ctx, host, address))
                }
                Callback::Helo(name) => {
                    let (helo, name) = (self.helo?, c_string(name));
                    call(move || helo(ctx, name))
                }
                Callback::EnvFrom(arguments) => on_envelope(self.envfrom, arguments)?,
                Callback::EnvRcpt(arguments) => on_envelope(self.envrcpt, arguments)?,
                Callback::Data => on_event(self.data)?,
                Callback::Unknown(command) => {
                    let unknown = self.unknown?;
                    let mut copy = Vec::new();
                    let command = if command.ends_with(&[0]) {
                        c_string(command)
                    } else if copy.try_reserve_exact(command.len() + 1).is_ok() {
                        copy.extend_from_slice(command);
                        copy.push(0);
                        c_string(&mut copy)
                    } else {
                        return refuse(kind);
                    };
                    call(move || unknown(ctx, command))
                }
                Callback::Header { name, value } => {
                    let (header, name, value) = (self.header?, c_string(name), c_string(value));
                    call(move || header(ctx, name, value))
                }
                Callback::Eoh => on_event(self.eoh)?,
                Callback::Body(chunk) => {
                    let (body, start, length) = (self.body?, chunk.as_mut_ptr(), chunk.len());
                    call(move || body(ctx, start, length))
                }
                Callback::Eom => on_event(self.eom)?,
                Callback::Abort => on_event(self.abort)?,
                Callback::Close => on_event(self.close)?,
            }
        })
    }
}

impl Filter for Descriptor {
    fn name(&self) -> &CStr {
        &self.name
    }

    fn profile(&self) -> Profile {
        Profile { version: self.version, actions: self.actions, callbacks: self.callbacks(), promised: Steps::empty() }
    }

    fn call(&self, context: &Context, callback: &mut Callback<'_>) -> Option<c_int> {
        // SAFETY: `context` lives during the call; the server runs one callback of a session at a time.
        unsafe { self.call_c(context, callback) }.expect("the server asks only for callbacks of the profile")
    }
}

/// Which of the callbacks that came after version 2 a descriptor can have.
struct LateCallbacks {
    unknown: bool,
    data: bool,
    negotiate: bool,
}

impl LateCallbacks {
    /// `None` for a version that this library does not know.
    fn of_version(version: c_int) -> Option<Self> {
        const MAJOR: c_int = 0x7f00_0000;
        const MINOR: c_int = 0x007f_ff00;
        let (unknown, data, negotiate) = match version {
            2 => (false, false, false),
            3 => (true, false, false),
            4 => (true, true, false),
            _ if version & MAJOR == 0x0100_0000 && version & MINOR == 0 => (true, true, true),
            _ => return None,
        };
        Some(LateCallbacks { unknown, data, negotiate })
    }
}

/// Flag words have 32 bits; what an `unsigned long` has beyond them is not looked at.
fn low_word(flags: c_ulong) -> u32 {
    (flags & c_ulong::from(u32::MAX)) as u32
}

/// # Safety
///
/// As for [`Descriptor::call_c`].
unsafe fn negotiate(callback: OnNegotiate, ctx: *mut SMFICTX, offer: &mut Offer) -> Option<sfsistat> {
    let mut wanted = [c_ulong::from(offer.wanted_actions), c_ulong::from(offer.wanted_steps), 0, 0];
    let [actions, steps, third, fourth] = wanted.each_mut().map(ptr::from_mut);
    let offered: [c_ulong; 2] = [offer.actions.into(), offer.steps.into()];
    // SAFETY: see `call_c`.
    let verdict = call(move || unsafe { callback(ctx, offered[0], offered[1], 0, 0, actions, steps, third, fourth) });
    offer.wanted_actions = low_word(wanted[0]);
    offer.wanted_steps = low_word(wanted[1]);
    verdict
}

/// A string for a callback.
fn c_string(bytes: &mut [u8]) -> *mut c_char {
    assert!(bytes.ends_with(&[0]), "strings for callbacks end with NUL");
    bytes.as_mut_ptr().cast()
}

/// So many strings of an envelope command, and the NULL behind them, need no memory: an address and what ESMTP usually
/// adds to it.
const FEW_ARGUMENTS: usize = 8;

/// The strings of an envelope command, followed by NULL, in `few` or in `many`.
fn argument_vector(
    arguments: &mut Arguments<'_>,
    few: &mut [*mut c_char; FEW_ARGUMENTS],
    many: &mut Vec<*mut c_char>,
) -> Result<*mut *mut c_char, TryReserveError> {
    let len = arguments.count() + 1;
    let vector = if len <= few.len() {
        &mut few[..]
    } else {
        many.try_reserve_exact(len)?;
        many.resize(len, ptr::null_mut());
        &mut many[..]
    };
    let strings = arguments.bytes().split_inclusive_mut(|&byte| byte == 0).map(c_string);
    vector.iter_mut().zip(strings).for_each(|(place, string)| *place = string);
    Ok(vector.as_mut_ptr())
}

/// A client's address for xxfi_connect, with room for any family: filters copy it as a whole.
struct SocketAddress(libc::sockaddr_storage);

impl SocketAddress {
    fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        ptr::from_mut(&mut self.0).cast()
    }
}

impl From<ClientAddress<'_>> for SocketAddress {
    fn from(client: ClientAddress<'_>) -> Self {
        // SAFETY: all octets 0 are a valid value of every socket address.
        let mut storage: libc::sockaddr_storage = unsafe { MaybeUninit::zeroed().assume_init() };
        let start = ptr::from_mut(&mut storage);
        // SAFETY: the storage has the size and alignment of every family, and nothing else refers to it.
        unsafe {
            match client {
                ClientAddress::Inet { address, port } => {
                    let inet = &mut *start.cast::<libc::sockaddr_in>();
                    inet.sin_family = libc::AF_INET as libc::sa_family_t;
                    inet.sin_port = port.to_be();
                    inet.sin_addr.s_addr = u32::from(address).to_be();
                }
                ClientAddress::Inet6 { address, port } => {
                    let inet6 = &mut *start.cast::<libc::sockaddr_in6>();
                    inet6.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                    inet6.sin6_port = port.to_be();
                    inet6.sin6_addr.s6_addr = address.octets();
                }
                ClientAddress::Unix { path } => {
                    let unix = &mut *start.cast::<libc::sockaddr_un>();
                    unix.sun_family = libc::AF_UNIX as libc::sa_family_t;
                    // The last octet stays NUL.
                    let room = unix.sun_path.len() - 1;
                    for (to, from) in unix.sun_path[..room].iter_mut().zip(path) {
                        *to = *from as c_char;
                    }
                }
            }
        }
        SocketAddress(storage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C-unwind" fn on_event(_: *mut SMFICTX) -> sfsistat {
        0
    }

    unsafe extern "C-unwind" fn on_unknown(_: *mut SMFICTX, _: *const c_char) -> sfsistat {
        0
    }

    /// A descriptor as a program compiled for version 2 passes it.
    fn short(version: c_int) -> smfiDesc {
        smfiDesc {
            xxfi_name: ptr::null_mut(),
            xxfi_version: version,
            xxfi_flags: 0x8000_0001,
            xxfi_connect: None,
            xxfi_helo: None,
            xxfi_envfrom: None,
            xxfi_envrcpt: None,
            xxfi_header: None,
            xxfi_eoh: None,
            xxfi_body: None,
            xxfi_eom: Some(on_event),
            xxfi_abort: None,
            xxfi_close: Some(on_event),
            xxfi_unknown: MaybeUninit::uninit(),
            xxfi_data: MaybeUninit::uninit(),
            xxfi_negotiate: MaybeUninit::uninit(),
        }
    }

    fn profile(c: smfiDesc) -> Option<Profile> {
        // SAFETY: the name is NULL and the fields that the version covers are set.
        unsafe { Descriptor::from_c(c) }.ok().map(|descriptor| descriptor.profile())
    }

    /// D17: miri notices if a field is read that the version does not cover.
    #[test]
    fn fields_beyond_the_version_are_not_read() {
        let early = Callbacks::EOM | Callbacks::CLOSE;
        assert_eq!(profile(short(2)).unwrap().callbacks, early);

        let mut c = short(3);
        c.xxfi_unknown = MaybeUninit::new(Some(on_unknown));
        assert_eq!(profile(c).unwrap().callbacks, early | Callbacks::UNKNOWN);

        let mut c = short(4);
        c.xxfi_unknown = MaybeUninit::new(None);
        c.xxfi_data = MaybeUninit::new(Some(on_event));
        assert_eq!(profile(c).unwrap().callbacks, early | Callbacks::DATA);
    }

    #[test]
    fn all_words_of_flags_are_kept() {
        assert_eq!(profile(short(2)).unwrap().actions.bits(), 0x8000_0001);
    }

    /// D16: filters try one version after another.
    #[test]
    fn versions_that_do_not_exist_are_refused() {
        for version in [i32::MIN, -1, 0, 1, 5, 6, 0x0100_0100, 0x0200_0001] {
            assert!(profile(short(version)).is_none(), "{version:#x}");
        }
    }

    #[test]
    fn any_patch_level_of_the_current_version_will_do() {
        for version in [0x0100_0000, 0x0100_0001, 0x0100_00ff, 0x0180_0001] {
            let mut c = short(version);
            c.xxfi_unknown = MaybeUninit::new(None);
            c.xxfi_data = MaybeUninit::new(None);
            c.xxfi_negotiate = MaybeUninit::new(None);
            assert!(profile(c).is_some(), "{version:#x}");
        }
    }

    #[test]
    fn addresses_have_the_form_of_the_system() {
        let mut inet = SocketAddress::from(ClientAddress::Inet { address: [192, 0, 2, 1].into(), port: 25 });
        // SAFETY: that is how an IPv4 address was stored.
        let inet = unsafe { &*inet.as_mut_ptr().cast::<libc::sockaddr_in>() };
        assert_eq!(i32::from(inet.sin_family), libc::AF_INET);
        assert_eq!(inet.sin_addr.s_addr.to_ne_bytes(), [192, 0, 2, 1]);
        assert_eq!(inet.sin_port.to_ne_bytes(), [0, 25]);

        let longest = [b'p'; ClientAddress::MAX_PATH + 1];
        let mut unix = SocketAddress::from(ClientAddress::Unix { path: &longest });
        // SAFETY: that is how a path was stored.
        let unix = unsafe { &*unix.as_mut_ptr().cast::<libc::sockaddr_un>() };
        assert_eq!(i32::from(unix.sun_family), libc::AF_UNIX);
        assert_eq!(unix.sun_path.last(), Some(&0));
        assert_eq!(unix.sun_path[unix.sun_path.len() - 2], b'p' as c_char);
    }
}
