//! Stopping: how far, and waking whoever waits for it.
//!
//! A stop is asked for by signals, by callbacks, by other threads and by signal handlers of the program, so asking is
//! async-signal-safe: a few atomic operations and one write. A run may have several processes; what is asked for in one
//! of them concerns all.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering::SeqCst};

use crate::sys::process;
use crate::sys::shared::Shared;
use crate::sys::slot::Slot;
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

/// A level that is raised from anywhere.
struct Raised(AtomicU8);

impl Raised {
    const fn new() -> Self {
        Raised(AtomicU8::new(Level::Run as u8))
    }

    fn raise(&self, level: Level) {
        self.0.fetch_max(level as u8, SeqCst);
    }

    fn level(&self) -> Level {
        match self.0.load(SeqCst) {
            0 => Level::Run,
            1 => Level::Stop,
            _ => Level::Abort,
        }
    }
}

/// The stop of one run, in all its processes.
pub(super) struct Stop {
    raised: Shared<Raised>,
    wake: Wake,
}

impl Stop {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Stop { raised: Shared::new(Raised::new())?, wake: Wake::new()? })
    }

    /// Raises the level. Async-signal-safe.
    pub(super) fn raise(&self, level: Level) {
        self.raised.raise(level);
        wake::call(self.wake.number());
    }

    /// The level asked for.
    pub(super) fn level(&self) -> Level {
        self.raised.level()
    }

    /// Readable from the first stop on.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// What was asked for in this process, also while there is no run.
static ASKED: Raised = Raised::new();

/// The process that has a run in progress. A child of it, forked in a callback, is not the one.
static OWNER: AtomicI32 = AtomicI32::new(NOBODY);

const NOBODY: i32 = -1;

/// The stop of that run.
static RUN: Slot<Stop> = Slot::empty();

/// Has the run in progress stop; without one, the next run stops at once.
pub(crate) fn stop() {
    raise(Level::Stop);
}

/// Whether a stop has been asked for and its run has not ended yet.
pub(crate) fn stop_requested() -> bool {
    ASKED.level().max(of_our_run(Stop::level).unwrap_or(Level::Run)) > Level::Run
}

/// Whether this process runs a filter, or has been forked by one that does.
pub(super) fn run_in_progress() -> bool {
    OWNER.load(SeqCst) != NOBODY
}

/// Raises the level. Async-signal-safe.
pub(super) fn raise(level: Level) {
    // In this order, because a run may be about to begin.
    ASKED.raise(level);
    of_our_run(|stop| stop.raise(level));
}

fn of_our_run<R>(look: impl FnOnce(&Stop) -> R) -> Option<R> {
    if OWNER.load(SeqCst) == process::id() { RUN.visit(look) } else { None }
}

/// Makes the run in progress that of this process, too, which the library has forked for it.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "other systems have no model that forks"))]
pub(super) fn join() {
    OWNER.store(process::id(), SeqCst);
}

/// A run in progress: while it exists, stops reach it. There is one at most in a process.
pub(super) struct Run {
    pub(super) stop: Arc<Stop>,
}

impl Run {
    /// Fails when there is a run already, and changes nothing then.
    pub(super) fn begin() -> io::Result<Self> {
        let stop = Arc::new(Stop::new()?);
        let me = process::id();
        let former = OWNER.load(SeqCst);
        // A run that was in progress when this process was forked is the parent's.
        if former == me || OWNER.compare_exchange(former, me, SeqCst, SeqCst).is_err() {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        RUN.put(Arc::clone(&stop));
        if ASKED.level() > Level::Run {
            stop.raise(ASKED.level());
        }
        Ok(Run { stop })
    }
}

impl Drop for Run {
    /// From now on stops concern the next run, which starts afresh.
    fn drop(&mut self) {
        RUN.clear();
        ASKED.0.store(Level::Run as u8, SeqCst);
        OWNER.store(NOBODY, SeqCst);
    }
}
