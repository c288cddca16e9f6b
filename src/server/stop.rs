//! Stopping: how far, and waking whoever waits for it.
//!
//! A stop is asked for by signals, by callbacks, by other threads and by signal handlers of the program, so asking is
//! async-signal-safe: a few atomic operations and one write.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicUsize, Ordering::SeqCst};

use crate::sys::process;
use crate::sys::wake::{self, Wake};

/// How far to stop. Only ever raised during one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Level {
    /// Serve.
    Run = 0,
    /// Take no more connections.
    Stop = 1,
    /// End sessions after the command in hand, too.
    Abort = 2,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Run as u8);

/// The process that has a run in progress. A child of it, forked in a callback, is not the one.
static OWNER: AtomicI32 = AtomicI32::new(NOBODY);

/// The descriptor that wakes that run.
static WAKE: AtomicI32 = AtomicI32::new(NOBODY);

const NOBODY: i32 = -1;

/// Threads and handlers that may be about to write to the descriptor in [`WAKE`].
static CALLERS: AtomicUsize = AtomicUsize::new(0);

/// Has the run in progress stop; without one, the next run stops at once.
pub(crate) fn stop() {
    raise(Level::Stop);
}

/// Whether a stop has been asked for and its run has not ended yet.
pub(crate) fn stop_requested() -> bool {
    level() > Level::Run
}

/// Raises the level. Async-signal-safe.
pub(super) fn raise(level: Level) {
    LEVEL.fetch_max(level as u8, SeqCst);
    CALLERS.fetch_add(1, SeqCst);
    let wake: RawFd = WAKE.load(SeqCst);
    if wake != NOBODY && OWNER.load(SeqCst) == process::id() {
        wake::call(wake);
    }
    CALLERS.fetch_sub(1, SeqCst);
}

/// The level asked for.
pub(super) fn level() -> Level {
    match LEVEL.load(SeqCst) {
        0 => Level::Run,
        1 => Level::Stop,
        _ => Level::Abort,
    }
}

/// A run in progress: while it exists, stops reach its descriptor. There is one at most in a process.
pub(super) struct Run {
    /// Readable from the first stop on.
    pub(super) wake: Arc<Wake>,
}

impl Run {
    /// Fails when there is a run already, and changes nothing then.
    pub(super) fn begin() -> io::Result<Self> {
        let wake = Arc::new(Wake::new()?);
        let me = process::id();
        let former = OWNER.load(SeqCst);
        // A run that was in progress when this process was forked is the parent's.
        if former == me || OWNER.compare_exchange(former, me, SeqCst, SeqCst).is_err() {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        WAKE.store(wake.number(), SeqCst);
        if stop_requested() {
            wake::call(wake.number());
        }
        Ok(Run { wake })
    }
}

impl Drop for Run {
    /// From now on stops concern the next run, which starts afresh.
    fn drop(&mut self) {
        WAKE.store(NOBODY, SeqCst);
        // The descriptor may be closed, and its number used again, only when nobody can write to it any more. A caller
        // that was there when this process was forked never goes away: the descriptor is left open then.
        let mut patience = 1000;
        while CALLERS.load(SeqCst) > 0 && patience > 0 {
            std::thread::yield_now();
            patience -= 1;
        }
        if patience == 0 {
            std::mem::forget(Arc::clone(&self.wake));
        }
        LEVEL.store(Level::Run as u8, SeqCst);
        OWNER.store(NOBODY, SeqCst);
    }
}
