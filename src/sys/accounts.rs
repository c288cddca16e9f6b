//! Users and groups by name.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;

/// The number of a user; `None` when there is no such user.
pub(crate) fn user(name: &str) -> io::Result<Option<libc::uid_t>> {
    let name = CString::new(name)?;
    look_up(|room: &mut Vec<libc::c_char>| {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found = std::ptr::null_mut();
        // SAFETY: the name is NUL-terminated, the entry and the room for its strings are writable, `found` too.
        let error = unsafe {
            libc::getpwnam_r(name.as_ptr(), entry.as_mut_ptr(), room.as_mut_ptr(), room.len(), &raw mut found)
        };
        // SAFETY: what was found is the entry, filled.
        (error, (!found.is_null()).then(|| unsafe { (*found).pw_uid }))
    })
}

/// The number of a group; `None` when there is no such group.
pub(crate) fn group(name: &str) -> io::Result<Option<libc::gid_t>> {
    let name = CString::new(name)?;
    look_up(|room: &mut Vec<libc::c_char>| {
        let mut entry = MaybeUninit::<libc::group>::uninit();
        let mut found = std::ptr::null_mut();
        // SAFETY: the name is NUL-terminated, the entry and the room for its strings are writable, `found` too.
        let error = unsafe {
            libc::getgrnam_r(name.as_ptr(), entry.as_mut_ptr(), room.as_mut_ptr(), room.len(), &raw mut found)
        };
        // SAFETY: what was found is the entry, filled.
        (error, (!found.is_null()).then(|| unsafe { (*found).gr_gid }))
    })
}

/// Most octets that the strings of an entry may need: a group with very many members.
const MOST: usize = 1 << 24;

/// Looks an entry up with ever more room for its strings, until that is enough.
fn look_up<T>(mut ask: impl FnMut(&mut Vec<libc::c_char>) -> (libc::c_int, Option<T>)) -> io::Result<Option<T>> {
    let mut room = vec![0; 1024];
    loop {
        match ask(&mut room) {
            (libc::ERANGE, _) if room.len() < MOST => room.resize(room.len() * 4, 0),
            // Some systems report like this that there is none.
            (0 | libc::ENOENT | libc::ESRCH, found) => return Ok(found),
            (error, _) => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}
