//! Files that lines are appended to.
//!
//! What is there already may have been put there by somebody else: links are not followed, and a file counts only if it
//! is ours and has no other name.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::descriptor::duplicate_raw;
use super::path::{Identity, Location, start};
use super::process;

/// A file, a FIFO or a stream that is only written to, at its end.
pub(crate) struct AppendFile(File);

impl AppendFile {
    /// Opens a regular file, which is made if it is missing, or a FIFO. Writing to a FIFO does not wait. The first octets
    /// of a file, up to so many, have to be as they should be.
    pub(crate) fn open(path: &Path, octets: u64, is_right: impl FnOnce(&[u8]) -> bool) -> io::Result<Self> {
        let location = Location::find(path)?;
        let opened = Self::open_with(libc::O_CREAT, &location)?;
        if opened.0.metadata()?.is_file() {
            let readable = location.open_to_read()?;
            let is_same = Identity::of(readable.as_fd())? == Identity::of(opened.as_fd())?;
            if !(is_same && is_right(&start(readable, octets)?)) {
                return refused("there is something else in it");
            }
        }
        Ok(opened)
    }

    /// Makes a regular file, where there must be nothing.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Self::open_with(libc::O_CREAT | libc::O_EXCL, &Location::find(path)?)
    }

    fn open_with(flags: libc::c_int, location: &Location) -> io::Result<Self> {
        let file = location.open(flags | libc::O_WRONLY | libc::O_APPEND | libc::O_NONBLOCK | libc::O_NOCTTY, 0o600)?;
        let status = file.metadata()?;
        let kind = status.file_type();
        if !kind.is_file() && !kind.is_fifo() {
            return refused("it is neither a file nor a FIFO");
        }
        if status.uid() != process::user() {
            return refused("it belongs to another user");
        }
        if status.nlink() > 1 {
            return refused("it has another name");
        }
        Ok(AppendFile(file))
    }

    /// The stream behind a number, for as long as it was open when asked for.
    pub(crate) fn stream(number: i32) -> io::Result<Self> {
        Ok(AppendFile(duplicate_raw(number)?.into()))
    }

    /// Whether this is what is at `path` now.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        let there = Location::find(path).and_then(|location| location.identity());
        there.is_ok_and(|there| Identity::of(self.0.as_fd()).is_ok_and(|here| here == there))
    }

    /// Appends some of the octets, and says how many.
    pub(crate) fn append(&self, octets: &[u8]) -> io::Result<usize> {
        (&self.0).write(octets)
    }
}

fn refused(what: &str) -> io::Result<AppendFile> {
    Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
}

impl AsFd for AppendFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
