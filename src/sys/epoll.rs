//! Waiting for many descriptors (Linux).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::descriptor::{number, own};
use super::poll::milliseconds;
use super::{check, direct};

/// A set of descriptors to wait for.
pub(crate) struct Epoll(OwnedFd);

/// Which descriptor is ready, by the token it was added with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) token: u64,
    /// The peer has closed its side or the connection is broken.
    pub(crate) hang_up: bool,
}

/// Room for the events of one wait.
pub(crate) struct Events(Box<[libc::epoll_event; 256]>);

impl Events {
    pub(crate) fn new() -> Self {
        Events(Box::new([libc::epoll_event { events: 0, u64: 0 }; 256]))
    }
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no memory is involved; the call makes a descriptor.
        unsafe { own(libc::epoll_create1(libc::EPOLL_CLOEXEC)) }.map(Epoll)
    }

    /// Reports `descriptor` once each time something new is to be read.
    pub(crate) fn add_edge(&self, descriptor: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, descriptor, libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET, token)
    }

    /// Reports `descriptor` as long as something is to be read.
    pub(crate) fn add_level(&self, descriptor: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, descriptor, libc::EPOLLIN, token)
    }

    /// Forgets a descriptor.
    pub(crate) fn remove(&self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, descriptor, 0, 0)
    }

    fn control(
        &self,
        operation: libc::c_int,
        descriptor: BorrowedFd<'_>,
        events: libc::c_int,
        token: u64,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: token };
        // SAFETY: `event` is readable; the kernel copies it.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, number(descriptor), &raw mut event) }).map(drop)
    }

    /// Waits for events, at most `limit`; without a limit forever. A signal handler ends it with no events.
    pub(crate) fn wait<'a>(
        &self,
        events: &'a mut Events,
        limit: Option<Duration>,
    ) -> io::Result<impl Iterator<Item = Event> + use<'a>> {
        let room = events.0.len() as libc::c_int;
        // SAFETY: `events` has room for that many and is writable.
        let count = match check(unsafe {
            direct::epoll_wait(self.0.as_raw_fd(), events.0.as_mut_ptr(), room, milliseconds(limit))
        }) {
            Ok(count) => count as usize,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        const HANG_UP: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;
        Ok(events.0[..count].iter().map(|event| Event { token: event.u64, hang_up: event.events & HANG_UP != 0 }))
    }
}

/// Readable while there are events.
impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
