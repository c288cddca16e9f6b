//! Making things ready where nobody else can reach them.

use std::ffi::CString;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use super::{Location, as_path};
use crate::sys::{check, process};

/// A directory of our own beside a location, which nobody else can enter. Under the same last name as there, what is to
/// appear at the location is made ready in it, and what is at the location is looked at.
pub(crate) struct Staging<'a> {
    outside: &'a Location,
    /// The name of the directory.
    name: CString,
    inside: Location,
}

impl<'a> Staging<'a> {
    /// Makes the directory.
    pub(crate) fn beside(outside: &'a Location) -> io::Result<Self> {
        let name = make_directory(outside)?;
        let directory = outside.directory.enter(&name).inspect_err(|_| remove_directory(outside, &name))?;
        // Where others may rename our directory, what we opened might be theirs.
        if directory.status.0.st_uid != process::user() || directory.status.0.st_mode & 0o077 != 0 {
            remove_directory(outside, &name);
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let path = as_path(&outside.path).with_file_name(as_path(&name)).join(as_path(&outside.name));
        let path = CString::new(path.as_os_str().as_bytes())?;
        let inside = Location { directory, name: outside.name.clone(), path };
        Ok(Staging { outside, name, inside })
    }

    /// The location inside.
    pub(crate) fn inside(&self) -> &Location {
        &self.inside
    }

    /// Sets the permission bits of what is inside.
    pub(crate) fn set_mode(&self, mode: libc::mode_t) -> io::Result<()> {
        // SAFETY: the descriptor is open, the name NUL-terminated.
        check(unsafe { libc::fchmodat(self.inside.handle(), self.inside.name.as_ptr(), mode, 0) }).map(drop)
    }

    /// Sets the owner, the group, or both of what is inside.
    pub(crate) fn set_owner(&self, user: Option<libc::uid_t>, group: Option<libc::gid_t>) -> io::Result<()> {
        let (user, group) = (user.unwrap_or(libc::uid_t::MAX), group.unwrap_or(libc::gid_t::MAX));
        // SAFETY: the descriptor is open, the name NUL-terminated.
        check(unsafe { libc::fchownat(self.inside.handle(), self.inside.name.as_ptr(), user, group, 0) }).map(drop)
    }

    /// Puts what is inside outside; fails if something is there.
    pub(crate) fn put(&self) -> io::Result<()> {
        let (inside, outside) = (&self.inside, self.outside);
        // SAFETY: the descriptors are open, the names NUL-terminated.
        check(unsafe {
            libc::linkat(inside.handle(), inside.name.as_ptr(), outside.handle(), outside.name.as_ptr(), 0)
        })?;
        inside.remove()
    }

    /// Makes a file inside that only its owner may read.
    pub(crate) fn write(&self, octets: &[u8]) -> io::Result<()> {
        let file = self.inside.open(libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o600);
        let written = file.and_then(|mut file| file.write_all(octets));
        written.inspect_err(|_| drop(self.inside.remove()))
    }

    /// Puts what is inside outside, in the place of what is there.
    pub(crate) fn replace(&self) -> io::Result<()> {
        rename(&self.inside, self.outside)
    }

    /// Takes what is outside inside.
    pub(crate) fn take(&self) -> io::Result<()> {
        rename(self.outside, &self.inside)
    }
}

impl Drop for Staging<'_> {
    /// Removes the directory unless something has to stay in it.
    fn drop(&mut self) {
        remove_directory(self.outside, &self.name);
    }
}

fn rename(from: &Location, to: &Location) -> io::Result<()> {
    // SAFETY: the descriptors are open, the names NUL-terminated.
    check(unsafe { libc::renameat(from.handle(), from.name.as_ptr(), to.handle(), to.name.as_ptr()) }).map(drop)
}

/// Makes a directory beside a location; says its name.
fn make_directory(outside: &Location) -> io::Result<CString> {
    /// As many names as are tried when there is something of the same name each time.
    const ATTEMPTS: u32 = 100;

    let random = RandomState::new();
    let mut attempts = 0..ATTEMPTS;
    loop {
        let number = random.hash_one(attempts.next().ok_or(io::ErrorKind::AlreadyExists)?) & 0xff_ffff;
        let name = CString::new(format!(".{number:06x}"))?;
        // SAFETY: the descriptor is open, the name NUL-terminated.
        match check(unsafe { libc::mkdirat(outside.handle(), name.as_ptr(), 0o700) }) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            outcome => return outcome.map(|_| name),
        }
    }
}

/// Removes a directory of this name beside a location, if it is empty.
fn remove_directory(outside: &Location, name: &CString) {
    // SAFETY: the descriptor is open, the name NUL-terminated.
    unsafe { libc::unlinkat(outside.handle(), name.as_ptr(), libc::AT_REMOVEDIR) };
}
