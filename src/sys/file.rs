//! Names in the file system.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::descriptor::{above_stdio, own};
use super::{check, process};

/// What a path refers to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    is_socket: bool,
}

impl Identity {
    /// Whether it is a socket.
    pub(crate) fn is_socket(&self) -> bool {
        self.is_socket
    }

    /// What is at `path`, not following a link there.
    pub(crate) fn of_path(path: &CStr) -> io::Result<Self> {
        let mut status = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: `path` is NUL-terminated, `status` has room for one stat structure.
        check(unsafe { libc::lstat(path.as_ptr(), status.as_mut_ptr()) })?;
        // SAFETY: lstat succeeded and so filled the structure.
        let status = unsafe { status.assume_init() };
        // The widths of these fields differ from system to system.
        #[allow(clippy::unnecessary_cast)]
        Ok(Identity {
            device: status.st_dev as u64,
            inode: status.st_ino as u64,
            is_socket: status.st_mode & libc::S_IFMT == libc::S_IFSOCK,
        })
    }
}

/// Whether an error is only that there is no room on a disk.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Removes a path.
pub(crate) fn unlink(path: &CStr) -> io::Result<()> {
    // SAFETY: `path` is NUL-terminated.
    check(unsafe { libc::unlink(path.as_ptr()) }).map(drop)
}

/// What a path given as a C string is to the standard library.
pub(crate) fn as_path(path: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(path.to_bytes()))
}

/// Whether there is nothing at `path`, or a file of this user's whose first octets, up to so many, are as they should be.
pub(crate) fn is_free_or(path: &Path, octets: u64, is_right: impl FnOnce(&[u8]) -> bool) -> io::Result<bool> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    match opened.and_then(|file| above_stdio(file.into())).map(File::from) {
        Ok(file) => {
            let status = file.metadata()?;
            let mut start = Vec::new();
            Ok(status.is_file() && status.uid() == process::user() && {
                file.take(octets).read_to_end(&mut start)?;
                is_right(&start)
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        // A link is not followed, a socket cannot be opened.
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO | libc::EMLINK)) => Err(error),
        _ => Ok(false),
    }
}

/// Fails if the way to the directory of `path` leads through a link that somebody else has put into a directory that
/// everybody may write to: he decides where that is. Links of this user, and of the directory's owner, are followed, as
/// Linux has it where `fs.protected_symlinks` is set.
pub(crate) fn refuse_planted_links(path: &Path) -> io::Result<()> {
    /// As many as the system follows.
    const MOST_LINKS: u32 = 40;

    let mut links = MOST_LINKS;
    path.parent().map_or(Ok(()), |directory| resolve(PathBuf::from("."), directory, &mut links).map(drop))
}

/// Where `path`, seen from `here`, leads; `links` are how many may be on the way. `here` has no links in it.
fn resolve(mut here: PathBuf, path: &Path, links: &mut u32) -> io::Result<PathBuf> {
    for component in path.components() {
        let next = here.join(component);
        if !next.is_symlink() {
            here = next;
            continue;
        }
        let (directory, link) = (std::fs::metadata(&here)?, std::fs::symlink_metadata(&next)?);
        let is_trusted = [process::user(), directory.uid()].contains(&link.uid());
        if directory.mode() & 0o002 != 0 && !is_trusted {
            let what = format!("{} is somebody else's link in a directory that everybody may write to", next.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        *links = links.checked_sub(1).ok_or(io::Error::from_raw_os_error(libc::ELOOP))?;
        here = resolve(here, &std::fs::read_link(&next)?, links)?;
    }
    Ok(here)
}

/// A directory of our own beside a path, which nobody else can enter. Under the same last name as there, what is to
/// appear at the path is made ready in it, and what is at the path is looked at.
pub(crate) struct Staging {
    directory: CString,
    handle: OwnedFd,
    name: CString,
    path: CString,
}

impl Staging {
    /// Makes the directory for `path`.
    pub(crate) fn beside(path: &CStr) -> io::Result<Self> {
        let whole = as_path(path);
        let name = whole.file_name().ok_or(io::ErrorKind::NotFound)?;
        let template = whole.with_file_name(".XXXXXX");
        let mut directory = CString::new(template.as_os_str().as_bytes())?.into_bytes_with_nul();
        // SAFETY: the template is NUL-terminated, ends in six X, and is writable.
        if unsafe { libc::mkdtemp(directory.as_mut_ptr().cast()) }.is_null() {
            return Err(io::Error::last_os_error());
        }
        let directory = CString::from_vec_with_nul(directory).expect("mkdtemp replaces letters by letters");
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        // SAFETY: the path is NUL-terminated; the call makes a descriptor.
        let handle = unsafe { own(libc::open(directory.as_ptr(), flags)) };
        // SAFETY: the path is NUL-terminated.
        let handle = handle.inspect_err(|_| drop(check(unsafe { libc::rmdir(directory.as_ptr()) })))?;
        let path = as_path(&directory).join(name);
        let staging = Staging {
            name: CString::new(name.as_bytes())?,
            path: CString::new(path.as_os_str().as_bytes())?,
            directory,
            handle,
        };
        // Where others may rename our directory, what we opened might be theirs.
        if staging.is_private()? { Ok(staging) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    fn is_private(&self) -> io::Result<bool> {
        let mut status = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: the descriptor is open, `status` has room for one stat structure.
        check(unsafe { libc::fstat(self.handle.as_raw_fd(), status.as_mut_ptr()) })?;
        // SAFETY: fstat succeeded and so filled the structure; geteuid cannot fail.
        let (status, user) = unsafe { (status.assume_init(), libc::geteuid()) };
        Ok(status.st_uid == user && status.st_mode & 0o077 == 0)
    }

    /// The path inside.
    pub(crate) fn path(&self) -> &CStr {
        &self.path
    }

    /// Sets the permission bits of what is inside.
    pub(crate) fn set_mode(&self, mode: libc::mode_t) -> io::Result<()> {
        // SAFETY: the descriptor is open, the name NUL-terminated.
        check(unsafe { libc::fchmodat(self.handle.as_raw_fd(), self.name.as_ptr(), mode, 0) }).map(drop)
    }

    /// Sets the owner, the group, or both of what is inside.
    pub(crate) fn set_owner(&self, user: Option<libc::uid_t>, group: Option<libc::gid_t>) -> io::Result<()> {
        let (user, group) = (user.unwrap_or(libc::uid_t::MAX), group.unwrap_or(libc::gid_t::MAX));
        // SAFETY: the descriptor is open, the name NUL-terminated.
        check(unsafe { libc::fchownat(self.handle.as_raw_fd(), self.name.as_ptr(), user, group, 0) }).map(drop)
    }

    /// Puts what is inside to `path`; fails if something is there.
    pub(crate) fn put(&self, path: &CStr) -> io::Result<()> {
        // SAFETY: the descriptor is open, the names are NUL-terminated.
        check(unsafe { libc::linkat(self.handle.as_raw_fd(), self.name.as_ptr(), libc::AT_FDCWD, path.as_ptr(), 0) })?;
        self.remove()
    }

    /// Makes a file inside that only its owner may read.
    pub(crate) fn write(&self, octets: &[u8]) -> io::Result<()> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
        // SAFETY: the directory is open, the name NUL-terminated; the call makes a descriptor.
        let file = unsafe { own(libc::openat(self.handle.as_raw_fd(), self.name.as_ptr(), flags, 0o600)) };
        let written = file.and_then(|file| File::from(file).write_all(octets));
        written.inspect_err(|_| drop(self.remove()))
    }

    /// Puts what is inside to `path`, in the place of what is there.
    pub(crate) fn replace(&self, path: &CStr) -> io::Result<()> {
        // SAFETY: the descriptor is open, the names are NUL-terminated.
        check(unsafe { libc::renameat(self.handle.as_raw_fd(), self.name.as_ptr(), libc::AT_FDCWD, path.as_ptr()) })
            .map(drop)
    }

    /// Takes what is at `path` inside.
    pub(crate) fn take(&self, path: &CStr) -> io::Result<()> {
        // SAFETY: the descriptor is open, the names are NUL-terminated.
        check(unsafe { libc::renameat(libc::AT_FDCWD, path.as_ptr(), self.handle.as_raw_fd(), self.name.as_ptr()) })
            .map(drop)
    }

    /// Removes what is inside.
    pub(crate) fn remove(&self) -> io::Result<()> {
        // SAFETY: the descriptor is open, the name NUL-terminated.
        check(unsafe { libc::unlinkat(self.handle.as_raw_fd(), self.name.as_ptr(), 0) }).map(drop)
    }
}

impl Drop for Staging {
    /// Removes the directory unless something has to stay in it.
    fn drop(&mut self) {
        // SAFETY: the path is NUL-terminated.
        unsafe { libc::rmdir(self.directory.as_ptr()) };
    }
}
