//! Signals: taken by waiting for them, never by a handler.

use std::io;
use std::mem::MaybeUninit;

use super::check;

/// The signals that stop a filter.
pub(crate) const STOPPING: [libc::c_int; 3] = [libc::SIGHUP, libc::SIGTERM, libc::SIGINT];

/// A set of signals.
#[derive(Clone, Copy)]
pub(crate) struct Mask(libc::sigset_t);

impl Mask {
    /// Just [`STOPPING`].
    pub(crate) fn stopping() -> Self {
        Self::of(&STOPPING)
    }

    fn of(signals: &[libc::c_int]) -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset fills the set, and sigaddset refuses what is no signal.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for &signal in signals {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            Mask(set.assume_init())
        }
    }

    /// Every signal.
    pub(crate) fn all() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigfillset fills the set.
        unsafe {
            libc::sigfillset(set.as_mut_ptr());
            Mask(set.assume_init())
        }
    }

    /// Blocks these signals, too, in the calling thread; gives the thread's former mask.
    pub(crate) fn block(&self) -> io::Result<Mask> {
        self.change(libc::SIG_BLOCK)
    }

    /// Makes this the calling thread's mask.
    pub(crate) fn restore(&self) {
        let result = self.change(libc::SIG_SETMASK);
        debug_assert!(result.is_ok(), "a mask that was in force is valid");
    }

    fn change(&self, how: libc::c_int) -> io::Result<Mask> {
        let mut former = MaybeUninit::uninit();
        // SAFETY: both sets are valid for the call; the former mask is written on success.
        match unsafe { libc::pthread_sigmask(how, &raw const self.0, former.as_mut_ptr()) } {
            // SAFETY: the call succeeded and so wrote the former mask.
            0 => Ok(Mask(unsafe { former.assume_init() })),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Takes these signals, which the caller has blocked, as far as they have come already.
    pub(crate) fn swallow(&self) {
        // These systems cannot look without waiting.
        #[cfg(not(any(target_vendor = "apple", target_os = "openbsd")))]
        {
            let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: the set and the time are valid, and no details are asked for.
            while unsafe { libc::sigtimedwait(&raw const self.0, std::ptr::null_mut(), &raw const at_once) } > 0 {}
        }
    }

    /// Waits for one of these signals, which the caller has blocked.
    pub(crate) fn wait(&self) -> io::Result<libc::c_int> {
        let mut signal = 0;
        // SAFETY: the set is valid and `signal` writable.
        match unsafe { libc::sigwait(&raw const self.0, &raw mut signal) } {
            0 => Ok(signal),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Has this process killed after so many seconds, whatever it waits for then and whatever the program does with SIGALRM.
pub(crate) fn limit_life(seconds: u32) {
    // SAFETY: no memory is involved; the default action is valid for every signal.
    unsafe { libc::signal(libc::SIGALRM, libc::SIG_DFL) };
    let _ = Mask::of(&[libc::SIGALRM]).change(libc::SIG_UNBLOCK);
    // SAFETY: no memory is involved.
    unsafe { libc::alarm(seconds) };
}

/// Has writing to a connection without a reader fail instead of ending the process; for the whole process, and as
/// filters expect for good.
pub(crate) fn ignore_broken_pipes() -> io::Result<()> {
    // SAFETY: all-zero octets are a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = libc::SIG_IGN;
    // SAFETY: `action` is a valid action without a handler; the former one is not asked for.
    check(unsafe { libc::sigaction(libc::SIGPIPE, &raw const action, std::ptr::null_mut()) }).map(drop)
}
