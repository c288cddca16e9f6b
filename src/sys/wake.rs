//! A descriptor that becomes readable, and stays so, when somebody calls: from any thread or signal handler.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::{descriptor, process};

/// The side that waits.
pub(crate) struct Wake {
    readable: OwnedFd,
    #[cfg(not(target_os = "linux"))]
    writable: OwnedFd,
}

impl Wake {
    #[cfg(target_os = "linux")]
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no memory is involved; the call makes a descriptor.
        let readable = unsafe { descriptor::own(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) }?;
        Ok(Wake { readable })
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn new() -> io::Result<Self> {
        let [readable, writable] = descriptor::pipe()?;
        let wake = Wake { readable, writable };
        // A pipe that nobody reads fills up; calling must not wait then, and clearing never.
        descriptor::set_blocking(wake.writable.as_fd(), false)?;
        descriptor::set_blocking(wake.readable.as_fd(), false)?;
        Ok(wake)
    }

    /// What [`call`] takes.
    pub(crate) fn number(&self) -> RawFd {
        #[cfg(target_os = "linux")]
        return self.readable.as_raw_fd();
        #[cfg(not(target_os = "linux"))]
        return self.writable.as_raw_fd();
    }
}

impl Wake {
    /// Forgets the calls so far.
    pub(crate) fn clear(&self) {
        descriptor::read_raw(self.readable.as_raw_fd());
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

/// Wakes whoever waits for the [`Wake`] with this number. Usable in signal handlers: `errno` stays as it is.
pub(crate) fn call(number: RawFd) {
    let errno = process::errno();
    descriptor::write_raw(number, &1_u64.to_ne_bytes());
    process::set_errno(errno);
}
