//! A timer to wait for together with descriptors (Linux).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::descriptor::own;

/// A timer that becomes readable when its time has come.
pub(crate) struct Timer(OwnedFd);

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no memory is involved; the call makes a descriptor.
        unsafe { own(libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK)) }.map(Timer)
    }

    /// Has the timer expire once, `delay` from now; a former expiry that nobody waited for is forgotten.
    pub(crate) fn set(&self, delay: Duration) {
        // An all-zero time would disarm the timer.
        let delay = delay.max(Duration::from_nanos(1));
        let value = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec { tv_sec: delay.as_secs() as _, tv_nsec: delay.subsec_nanos() as _ },
        };
        // A valid timer takes a valid time; one that the filter has closed takes none.
        // SAFETY: `value` is readable, the old value is not asked for.
        unsafe { libc::timerfd_settime(self.0.as_raw_fd(), 0, &raw const value, std::ptr::null_mut()) };
    }

    /// Forgets an expiry.
    pub(crate) fn clear(&self) {
        let mut expiries = 0_u64;
        // SAFETY: `expiries` has the eight octets that a timer writes; without an expiry nothing is written.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut expiries).cast(), size_of::<u64>()) };
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
