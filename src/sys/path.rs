//! Paths that options, socket descriptions and records name. Everything at such a path is opened, made, looked at, renamed
//! and removed here and in the modules below, and nowhere else in the library; a test of the sources sees to it.
//!
//! A path is walked one component after another, each opened relative to the directory before it. What is reached is a
//! [`Location`]: the directory, held by a descriptor, and a name in it. Everything after is done by the two, so that
//! whoever exchanges a directory and a link in between gains nothing.
//!
//! # What is guaranteed
//!
//! Trusted users are root and the effective user of the process. An entry of a directory is *steady* if only trusted
//! users can have made it and can exchange it: the directory belongs to one of them and neither its group nor everybody
//! else may write to it (entries of an access control list show in the bits of the group); or these may write to it, but
//! it is sticky, and the entry belongs to a trusted user, too. A way is steady if each of its entries is, from `/` or from
//! the working directory on.
//!
//! - A symbolic link is followed only if the way up to it and the link itself are steady, and a link in a directory that
//!   others may write to only if it has no other name: it could be somebody's hard link.
//! - The last component of a file or a socket is never followed.
//! - Directories are followed whoever owns them: daemons that run as root use sockets in directories of others. Whoever
//!   may write to a directory on the way decides what is in it. He may rename and remove what the library has made there,
//!   and may put another directory there that he can move; he cannot have the library follow a link. From
//!   where the way is not steady `..` is refused, which would lead to wherever he has moved the directory.
//!
//! bind(2) and connect(2) know no names relative to a descriptor. Where the way is steady they are given the path itself,
//! which other users cannot exchange, and which tools then show as the address of the socket. Where it is not, they are
//! given `/proc/self/fd/N/name` for the descriptor N of the directory. Only where that does not exist either (another
//! system than Linux, a root directory without /proc, or one that belongs to another user) the path is looked up a second
//! time, and whoever exchanges something at that moment can have an empty socket file made elsewhere.
//!
//! In a user namespace all this is about the users that exist in it: a link of any other one is not followed.
//!
//! # Why it is done like this
//!
//! openat2(2) with `RESOLVE_NO_SYMLINKS` would save a few system calls at the start, and needs this walk all the same: for
//! links that are to be followed, older kernels, sandboxes and other systems. Crates for this confine paths below a
//! directory, which is another question than whose links these are.

mod location;
mod staging;

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

// Those with numbers of 64 bits on every processor.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
use libc::{fstat, fstatat, openat, stat};
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use libc::{fstat64 as fstat, fstatat64 as fstatat, openat64 as openat, stat64 as stat};

use super::descriptor::own;
use super::{check, check_len, process};

pub(crate) use location::{Location, start};
pub(crate) use staging::Staging;

/// What a path given as a C string is to the standard library.
pub(crate) fn as_path(path: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(path.to_bytes()))
}

/// Whether an error is only that there is no room on a disk.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What a name refers to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    is_socket: bool,
}

impl Identity {
    /// Of an open file.
    pub(crate) fn of(file: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Status::of(file)?.identity())
    }

    /// Whether it is a socket.
    pub(crate) fn is_socket(&self) -> bool {
        self.is_socket
    }
}

/// What the system knows about a file.
struct Status(stat);

impl Status {
    fn of(file: BorrowedFd<'_>) -> io::Result<Self> {
        let mut status = MaybeUninit::uninit();
        // SAFETY: the descriptor is open, `status` has room for one stat structure.
        check(unsafe { fstat(file.as_raw_fd(), status.as_mut_ptr()) })?;
        // SAFETY: fstat succeeded and so filled the structure.
        Ok(Status(unsafe { status.assume_init() }))
    }

    /// Of what has this name in `directory`. `flags` are those of fstatat.
    fn at(directory: &OwnedFd, name: &CStr, flags: libc::c_int) -> io::Result<Self> {
        let mut status = MaybeUninit::uninit();
        // SAFETY: the descriptor is open, the name NUL-terminated, `status` has room for one stat structure.
        check(unsafe { fstatat(directory.as_raw_fd(), name.as_ptr(), status.as_mut_ptr(), flags) })?;
        // SAFETY: fstatat succeeded and so filled the structure.
        Ok(Status(unsafe { status.assume_init() }))
    }

    // The widths of these fields differ from system to system.
    #[allow(clippy::unnecessary_cast)]
    fn identity(&self) -> Identity {
        Identity { device: self.0.st_dev as u64, inode: self.0.st_ino as u64, is_socket: self.is(libc::S_IFSOCK) }
    }

    fn is(&self, kind: libc::mode_t) -> bool {
        self.0.st_mode & libc::S_IFMT == kind
    }

    /// Whether it belongs to root or to the user for whom the process acts.
    fn is_trusted(&self) -> bool {
        [0, process::user()].contains(&self.0.st_uid)
    }

    /// For a directory: whether users other than its owner may write to it.
    fn is_shared(&self) -> bool {
        self.0.st_mode & (libc::S_IWGRP | libc::S_IWOTH) != 0
    }

    /// For a directory: whether only trusted users can have put `entry` there, and can exchange it.
    fn is_steady(&self, entry: &Status) -> bool {
        let is_sticky = self.0.st_mode & libc::S_ISVTX != 0;
        // A directory has one name.
        let is_alone = entry.is(libc::S_IFDIR) || entry.0.st_nlink == 1;
        self.is_trusted() && (!self.is_shared() || is_sticky && entry.is_trusted() && is_alone)
    }
}

/// An open directory, for names in it.
pub(crate) struct Directory {
    handle: OwnedFd,
    status: Status,
    /// Only trusted users can exchange something on the way.
    is_steady: bool,
}

impl Directory {
    /// Walks to a directory, through the links that may be followed.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut walk = Walk { here: Directory::start(c".")?, shown: PathBuf::new(), links: Walk::MOST_LINKS };
        walk.go(path)?;
        Ok(walk.here)
    }

    /// Where a walk begins: at `/` or `.`.
    fn start(path: &CStr) -> io::Result<Self> {
        let handle = open(libc::AT_FDCWD, path, DIRECTORY, 0)?;
        Ok(Directory { status: Status::of(handle.as_fd())?, handle, is_steady: true })
    }

    /// Fails if names in it cannot be looked up.
    pub(crate) fn check_access(&self) -> io::Result<()> {
        Status::at(&self.handle, c".", 0).map(drop)
    }

    /// The directory of this name, which is no link.
    fn enter(&self, name: &CStr) -> io::Result<Self> {
        let handle = open(self.handle.as_raw_fd(), name, DIRECTORY, 0)?;
        let status = Status::of(handle.as_fd())?;
        let is_steady = self.is_steady && (name == c".." || self.status.is_steady(&status));
        Ok(Directory { handle, status, is_steady })
    }

    /// What is written in a link.
    fn read_link(&self, name: &CStr) -> io::Result<PathBuf> {
        let mut text = vec![0_u8; libc::PATH_MAX as usize];
        // SAFETY: the directory is open, the name NUL-terminated, the room writable for its length.
        let len = check_len(unsafe {
            libc::readlinkat(self.handle.as_raw_fd(), name.as_ptr(), text.as_mut_ptr().cast(), text.len())
        })?;
        text.truncate(len);
        Ok(OsString::from_vec(text).into())
    }
}

/// How directories are opened for names in them, which takes no right to list them where the system knows such a way.
const DIRECTORY: libc::c_int = {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    const SEARCH: libc::c_int = libc::O_PATH;
    #[cfg(any(target_vendor = "apple", target_os = "netbsd"))]
    const SEARCH: libc::c_int = libc::O_SEARCH;
    #[cfg(not(any(
        target_os = "linux",
        target_os = "android",
        target_os = "freebsd",
        target_vendor = "apple",
        target_os = "netbsd"
    )))]
    const SEARCH: libc::c_int = libc::O_RDONLY;
    SEARCH | libc::O_DIRECTORY
};

/// Opens what has a name in a directory, and is no link. `mode` is for what is made.
fn open(directory: RawFd, name: &CStr, flags: libc::c_int, mode: libc::c_uint) -> io::Result<OwnedFd> {
    let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    loop {
        // SAFETY: the name is NUL-terminated; a descriptor that is not open is reported; the call makes a descriptor.
        match unsafe { own(openat(directory, name.as_ptr(), flags, mode)) } {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// A walk to a directory.
struct Walk {
    here: Directory,
    /// Where that is, for messages.
    shown: PathBuf,
    /// How many more links may be on the way.
    links: u32,
}

impl Walk {
    /// As many as Linux follows.
    const MOST_LINKS: u32 = 40;

    fn go(&mut self, path: &Path) -> io::Result<()> {
        for component in path.components() {
            match component {
                Component::RootDir => self.here = Directory::start(c"/")?,
                Component::CurDir | Component::Prefix(_) => continue,
                Component::ParentDir if !self.here.is_steady => {
                    let what = format!(
                        "the way leads back from {}, which other users can move; use a path without ..",
                        self.shown.display()
                    );
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
                }
                Component::ParentDir => self.here = self.here.enter(c"..")?,
                Component::Normal(name) => match self.here.enter(&CString::new(name.as_bytes())?) {
                    Ok(directory) => self.here = directory,
                    Err(error) => {
                        self.follow(name, error)?;
                        continue;
                    }
                },
            }
            self.shown.push(component);
        }
        Ok(())
    }

    /// Follows what cannot be entered, with this error, if it is a link that only trusted users can have put there.
    fn follow(&mut self, name: &OsStr, error: io::Error) -> io::Result<()> {
        let text = CString::new(name.as_bytes())?;
        let link = match Status::at(&self.here.handle, &text, libc::AT_SYMLINK_NOFOLLOW) {
            Ok(status) if status.is(libc::S_IFLNK) => status,
            _ => return Err(error),
        };
        if !(self.here.is_steady && self.here.status.is_steady(&link)) {
            let what = format!(
                "{} is a symbolic link that users other than root and that of this process can change; use the path that \
                 it leads to",
                self.shown.join(name).display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        self.links = self.links.checked_sub(1).ok_or(io::Error::from_raw_os_error(libc::ELOOP))?;
        // It is still the one that was looked at: nobody else can exchange it.
        let target = self.here.read_link(&text)?;
        self.go(&target)
    }
}
