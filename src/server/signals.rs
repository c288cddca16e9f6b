//! The signals that stop a filter: blocked everywhere, and waited for by a thread of their own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;

use super::log;
use super::settings::Named;
use super::stop::{self, Level};
use crate::sys::error::Reason;
use crate::sys::signal::{self, Mask};
use crate::sys::thread::{self, JoinHandle};

/// While it exists HUP, TERM and INT stop the run. They are blocked in the thread that made it and in all threads that
/// start later, and so in callbacks and in programs that callbacks start.
pub(super) struct Signals {
    former: Mask,
    waiting: Option<JoinHandle<()>>,
    over: Arc<AtomicBool>,
}

impl Signals {
    pub(super) fn take() -> io::Result<Self> {
        let former = Mask::stopping().block()?;
        let over = Arc::new(AtomicBool::new(false));
        let mut signals = Signals { former, waiting: None, over: Arc::clone(&over) };
        let (begun, beginning) = mpsc::sync_channel::<()>(0);
        signals.waiting = Some(thread::spawn(c"milter-signals", thread::SMALL_STACK, move || {
            // Handlers of the program belong on its own threads.
            let _ = Mask::all().block();
            drop(begun);
            wait(&over);
        })?);
        // From here on the thread only waits: models may fork beside it.
        let _ = beginning.recv();
        Ok(signals)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.over.store(true, SeqCst);
            waiting.signal(signal::STOPPING[0]);
            // The thread only waits, so it cannot have failed.
            waiting.join();
        }
        // What came during the run was meant for it, even where the thread had no time to take it.
        Mask::stopping().swallow();
        self.former.restore();
    }
}

/// Failures to wait in a row after which signals are given up, and the run with them.
const FAILURES: u32 = 16;

/// Takes every stopping signal, also those after the first, until the run is over.
fn wait(over: &AtomicBool) {
    let mut failures = 0;
    while failures < FAILURES {
        match Mask::stopping().wait() {
            // Nowhere else: the run may be over as soon as a signal has stopped it, and that is no failure.
            _ if over.load(SeqCst) => return,
            Ok(libc::SIGINT) => stop::raise(Level::Abort),
            Ok(_) => stop::raise(Level::Stop),
            Err(error) => {
                failures += 1;
                if failures == FAILURES {
                    let text = format_args!("cannot wait for signals: {}; the filter stops", Reason(&error));
                    log::error(Named::at_once().name(), text);
                }
                continue;
            }
        }
        failures = 0;
    }
    stop::raise(Level::Abort);
}
