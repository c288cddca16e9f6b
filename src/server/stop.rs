//! Stopping: how far, and waking whoever waits for it.
//!
//! A stop is asked for by signals, by callbacks, by other threads and by signal handlers of the program, so asking is
//! async-signal-safe: one atomic store and one write.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicUsize, Ordering::SeqCst};

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

/// The descriptor that wakes the run in progress.
static WAKE: AtomicI32 = AtomicI32::new(NOBODY);
const NOBODY: RawFd = -1;

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
    let wake = WAKE.load(SeqCst);
    if wake != NOBODY {
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

/// A run in progress: while it exists, stops reach its descriptor.
pub(super) struct Watch {
    wake: Wake,
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        let wake = Wake::new()?;
        WAKE.store(wake.number(), SeqCst);
        if level() > Level::Run {
            wake::call(wake.number());
        }
        Ok(Watch { wake })
    }

    /// Readable from the first stop on.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Watch {
    /// The end of the run: stops no longer reach it, and the next run starts afresh.
    pub(super) fn end(&self) {
        WAKE.store(NOBODY, SeqCst);
        // The descriptor may be closed, and its number used again, only when nobody can write to it any more.
        while CALLERS.load(SeqCst) > 0 {
            std::thread::yield_now();
        }
        LEVEL.store(Level::Run as u8, SeqCst);
    }
}
