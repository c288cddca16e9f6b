//! A name in a directory that is held open.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Directory, Identity, Status, open};
use crate::sys::{check, process};

/// The first octets of a file, up to so many.
pub(crate) fn start(file: File, octets: u64) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    file.take(octets).read_to_end(&mut start)?;
    Ok(start)
}

/// Where a file or a socket is, or is to be.
pub(crate) struct Location {
    pub(super) directory: Directory,
    pub(super) name: CString,
    /// How it was named.
    pub(super) path: CString,
}

impl Location {
    /// Walks to the directory of `path`.
    pub(crate) fn find(path: &Path) -> io::Result<Self> {
        let octets = path.as_os_str().as_bytes();
        // What ends in a slash or a dot cannot be the name of a file.
        let name = path.file_name().filter(|name| octets.ends_with(name.as_bytes()));
        let name = name.ok_or(io::Error::from_raw_os_error(libc::EISDIR))?;
        let directory = Directory::open(path.parent().unwrap_or(Path::new("")))?;
        Ok(Location { directory, name: CString::new(name.as_bytes())?, path: CString::new(octets)? })
    }

    pub(super) fn handle(&self) -> RawFd {
        self.directory.handle.as_raw_fd()
    }

    /// The path as it was given.
    pub(crate) fn path(&self) -> &CStr {
        &self.path
    }

    /// The directory.
    pub(crate) fn directory(&self) -> Identity {
        self.directory.status.identity()
    }

    /// What is there, not following a link.
    pub(crate) fn identity(&self) -> io::Result<Identity> {
        Ok(Status::at(&self.directory.handle, &self.name, libc::AT_SYMLINK_NOFOLLOW)?.identity())
    }

    /// Whether there is a link that leads to a socket. What is at its end is only looked at.
    pub(crate) fn is_link_to_socket(&self) -> bool {
        let at = |flags| Status::at(&self.directory.handle, &self.name, flags);
        at(libc::AT_SYMLINK_NOFOLLOW).is_ok_and(|status| status.is(libc::S_IFLNK))
            && at(0).is_ok_and(|status| status.is(libc::S_IFSOCK))
    }

    /// Opens what is there, not following a link. Flags are those of open(2), and `mode` is for what is made.
    pub(crate) fn open(&self, flags: libc::c_int, mode: libc::c_uint) -> io::Result<File> {
        open(self.handle(), &self.name, flags, mode).map(File::from)
    }

    /// Opens what is there for reading, without waiting for whoever writes.
    pub(crate) fn open_to_read(&self) -> io::Result<File> {
        self.open(libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY, 0)
    }

    /// Whether there is nothing, or a file of this user's whose first octets, up to so many, are as they should be.
    pub(crate) fn is_free_or(&self, octets: u64, is_right: impl FnOnce(&[u8]) -> bool) -> io::Result<bool> {
        match self.open_to_read() {
            Ok(file) => {
                let status = file.metadata()?;
                Ok(status.is_file() && status.uid() == process::user() && is_right(&start(file, octets)?))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            // A link is not followed, a socket cannot be opened.
            Err(error) if !matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO | libc::EMLINK)) => Err(error),
            _ => Ok(false),
        }
    }

    /// Removes what is there.
    pub(crate) fn remove(&self) -> io::Result<()> {
        // SAFETY: the directory is open, the name NUL-terminated.
        check(unsafe { libc::unlinkat(self.handle(), self.name.as_ptr(), 0) }).map(drop)
    }

    /// The path to give to bind(2) and connect(2), which know no other: one that others cannot exchange, where there is
    /// one.
    pub(crate) fn address(&self) -> CString {
        let by_descriptor = || {
            let numbers = Directory::open(Path::new("/proc/self/fd")).ok()?;
            let prefix = format!("/proc/self/fd/{}/", self.handle());
            numbers.is_steady.then(|| CString::new([prefix.as_bytes(), self.name.to_bytes()].concat()).ok())?
        };
        let is_wanted = cfg!(target_os = "linux") && !self.directory.is_steady;
        is_wanted.then(by_descriptor).flatten().unwrap_or_else(|| self.path.clone())
    }
}
