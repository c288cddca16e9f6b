//! Waiting for a few descriptors.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::check;
use super::descriptor::number;

/// Whether waiting, which has failed with this error, may succeed a moment later: the system lacks something. Otherwise
/// somebody else has closed the descriptor.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    !matches!(error.raw_os_error(), Some(libc::EBADF | libc::EINVAL | libc::EFAULT))
}

/// What to wait for on a descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Something to read, or the peer is gone.
    Read,
    /// Room to write, or the peer is gone.
    Write,
}

/// Waits until at least one of `descriptors` is ready or the time is up; says which are ready. Without a limit it waits
/// forever.
pub(crate) fn wait<const N: usize>(
    descriptors: [(BorrowedFd<'_>, Interest); N],
    limit: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut set = descriptors.map(|(descriptor, interest)| entry(descriptor, interest));
    wait_for(&mut set, limit).map(|()| set.map(|entry| entry.revents != 0))
}

/// Waits until something is to be read from one of `descriptors`, or the time is up; says whether the last one is ready.
pub(crate) fn wait_for_any<'a>(
    descriptors: impl IntoIterator<Item = BorrowedFd<'a>>,
    limit: Option<Duration>,
) -> io::Result<bool> {
    let mut set: Vec<_> = descriptors.into_iter().map(|descriptor| entry(descriptor, Interest::Read)).collect();
    wait_for(&mut set, limit).map(|()| set.last().is_some_and(|last| last.revents != 0))
}

fn entry(descriptor: BorrowedFd<'_>, interest: Interest) -> libc::pollfd {
    let events = if interest == Interest::Read { libc::POLLIN } else { libc::POLLOUT };
    libc::pollfd { fd: number(descriptor), events, revents: 0 }
}

/// Waits until something has happened on one of the descriptors, and notes it there, or the time is up.
fn wait_for(set: &mut [libc::pollfd], limit: Option<Duration>) -> io::Result<()> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    let mut remaining = limit;
    loop {
        // SAFETY: `set` holds that many entries and is writable.
        match check(unsafe { libc::poll(set.as_mut_ptr(), set.len() as libc::nfds_t, milliseconds(remaining)) }) {
            Ok(0) => {}
            Ok(_) => return Ok(()),
            // A signal handler of the program ran.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        remaining = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if remaining.is_some_and(|remaining| remaining.is_zero()) {
            return Ok(());
        }
    }
}

/// A limit as poll and epoll take it. Rounded up: waking early would have the caller wait again for less than a
/// millisecond.
pub(super) fn milliseconds(limit: Option<Duration>) -> libc::c_int {
    limit.map_or(-1, |limit| limit.as_micros().div_ceil(1000).min(i32::MAX as u128) as libc::c_int)
}
