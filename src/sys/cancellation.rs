//! Cancellation of threads, as `pthread_cancel(3)` asks for it.

use libc::c_int;

unsafe extern "C-unwind" {
    fn pthread_setcancelstate(state: c_int, former: *mut c_int) -> c_int;
    fn pthread_testcancel();
}

/// Whether a thread may be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cancellation(c_int);

impl Cancellation {
    /// As threads begin.
    pub(crate) const ENABLED: Cancellation = Cancellation(if cfg!(target_vendor = "apple") { 1 } else { 0 });

    /// It waits until it is enabled.
    pub(crate) const DISABLED: Cancellation = Cancellation(1 - Self::ENABLED.0);

    /// Has this hold for the calling thread; gives what held before.
    pub(crate) fn set(self) -> Cancellation {
        let mut former = self.0;
        // SAFETY: `former` is writable. The value is one of the two that there are, so the call does not fail.
        unsafe { pthread_setcancelstate(self.0, &raw mut former) };
        Cancellation(former)
    }
}

/// Ends the calling thread, by unwinding its stack, if it is cancelled and that is enabled.
pub(crate) fn test() {
    // SAFETY: no memory is involved. No frame of this function has anything to clean up.
    unsafe { pthread_testcancel() };
}
