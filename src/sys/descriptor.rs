//! Descriptors: ownership of fresh ones, and their flags.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{check, check_len};

/// Lowest descriptor number the library uses for itself.
const ABOVE_STDIO: libc::c_int = 3;

/// Takes ownership of what a system call has just returned, moved above the standard streams.
///
/// # Safety
///
/// The call makes descriptors, so that nobody else knows this one.
pub(super) unsafe fn own(fresh: libc::c_int) -> io::Result<OwnedFd> {
    let fresh = check(fresh)?;
    // SAFETY: a descriptor that has just been made and that nobody else knows, as the caller promises.
    above_stdio(unsafe { OwnedFd::from_raw_fd(fresh) })
}

/// The same file under a number above those of the standard streams.
pub(super) fn above_stdio(file: OwnedFd) -> io::Result<OwnedFd> {
    if file.as_raw_fd() >= ABOVE_STDIO { Ok(file) } else { duplicate(&file) }
}

/// A second descriptor for the same file.
pub(crate) fn duplicate(file: &OwnedFd) -> io::Result<OwnedFd> {
    duplicate_raw(file.as_raw_fd())
}

/// A descriptor of our own for the file behind a number that somebody gave us; fails if it is not open.
pub(crate) fn duplicate_raw(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_DUPFD_CLOEXEC reads no memory and reports unknown descriptors; the call makes a descriptor.
    unsafe { own(libc::fcntl(number, libc::F_DUPFD_CLOEXEC, ABOVE_STDIO)) }
}

/// A pipe: what is written to the second end can be read from the first.
pub(crate) fn pipe() -> io::Result<[OwnedFd; 2]> {
    let (readable, writable) = io::pipe()?;
    Ok([above_stdio(readable.into())?, above_stdio(writable.into())?])
}

/// Sets close-on-exec on a descriptor that the program made.
pub(crate) fn set_close_on_exec(number: RawFd) -> io::Result<()> {
    // SAFETY: fcntl with F_SETFD reads no memory and reports unknown descriptors.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }).map(drop)
}

/// Whether reading, writing and accepting on this file wait. The file may be shared with other descriptors.
pub(crate) fn is_blocking(file: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(status_flags(file)? & libc::O_NONBLOCK == 0)
}

/// Sets whether reading, writing and accepting on this file wait.
pub(crate) fn set_blocking(file: BorrowedFd<'_>, blocking: bool) -> io::Result<()> {
    let flags = status_flags(file)?;
    let flags = if blocking { flags & !libc::O_NONBLOCK } else { flags | libc::O_NONBLOCK };
    // SAFETY: no memory is involved.
    check(unsafe { libc::fcntl(number(file), libc::F_SETFL, flags) }).map(drop)
}

fn status_flags(file: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::fcntl(number(file), libc::F_GETFL) })
}

/// Writes to a descriptor that may be closed meanwhile; usable in signal handlers.
pub(super) fn write_raw(number: RawFd, octets: &[u8]) {
    // SAFETY: the octets are readable; an unknown descriptor is reported, which nobody could act on here.
    while check_len(unsafe { libc::write(number, octets.as_ptr().cast(), octets.len()) })
        .is_err_and(|error| error.kind() == io::ErrorKind::Interrupted)
    {}
}

/// Reads, and throws away, what a few writes of [`super::wake::call`] have left.
pub(super) fn read_raw(number: RawFd) {
    let mut room = [0_u8; 512];
    // SAFETY: the room is writable for its length; an unknown descriptor is reported, and then nothing was to be read.
    unsafe { libc::read(number, room.as_mut_ptr().cast(), room.len()) };
}

/// The number of a borrowed descriptor, for structures handed to the kernel.
pub(super) fn number(descriptor: BorrowedFd<'_>) -> RawFd {
    descriptor.as_raw_fd()
}
