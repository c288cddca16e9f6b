//! Callbacks that take too long.
//!
//! Where the options limit their time, each callback is entered here while it runs. A thread, started with the first of
//! them, sleeps until the earliest can be overdue, and tells the operator.

use std::sync::Arc;
use std::time::{Duration, Instant};

use milter_protocol::Callbacks;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::context::Context;
use super::log::Level;
use crate::model::Service;
use crate::sys::process;
use crate::sys::signal::Mask;
use crate::sys::thread::{self, JoinHandle};

/// How long a callback may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// Until it is worth a line.
    pub(super) warn: Option<Duration>,
    /// Until it is too long.
    pub(super) limit: Option<Duration>,
}

impl Patience {
    pub(super) const ENDLESS: Self = Patience { warn: None, limit: None };

    /// The times to speak up, the earlier first.
    fn marks(self) -> Vec<Mark> {
        let warn = self.warn.map(|after| Mark { after, is_limit: false });
        let limit = self.limit.map(|after| Mark { after, is_limit: true });
        let mut marks: Vec<_> = warn.into_iter().chain(limit).collect();
        marks.sort_by_key(|mark| mark.after);
        marks
    }
}

/// A time after which a callback that still runs is spoken of.
#[derive(Clone, Copy)]
struct Mark {
    after: Duration,
    is_limit: bool,
}

/// The callbacks that run, and who watches them.
pub(super) struct Watch {
    /// Not empty.
    marks: Vec<Mark>,
    /// The limit ends the process: it is there for callbacks only.
    ends_process: bool,
    register: Mutex<Register>,
    ended: Condvar,
    /// Held while a line is written, so that those about one callback come in order. Taken before the register.
    telling: Mutex<()>,
}

#[derive(Default)]
struct Register {
    /// Each in its place until it returns.
    running: Vec<Option<Running>>,
    free: Vec<usize>,
    watcher: Option<JoinHandle<()>>,
    over: bool,
}

#[derive(Clone)]
struct Running {
    context: Arc<Context>,
    callback: Callbacks,
    since: Instant,
    /// How many marks it has passed that have been told.
    passed: usize,
}

/// A callback that runs, until this is dropped.
pub(super) struct Entry<'a> {
    watch: &'a Watch,
    place: usize,
}

impl Watch {
    /// The one that is needed, if one is. `ends_process` says that callbacks run in a process that may be ended.
    pub(super) fn new(patience: Patience, ends_process: bool) -> Option<Arc<Self>> {
        let marks = patience.marks();
        let (register, ended, telling) = Default::default();
        (!marks.is_empty()).then(|| Arc::new(Watch { marks, ends_process, register, ended, telling }))
    }

    /// Watches a callback from now on. Without memory for it, it runs unwatched.
    pub(super) fn enter(self: &Arc<Self>, context: &Arc<Context>, callback: Callbacks) -> Option<Entry<'_>> {
        let running = Running { context: Arc::clone(context), callback, since: Instant::now(), passed: 0 };
        let mut register = self.register.lock();
        if register.watcher.is_none() && !register.over {
            let watch = Arc::clone(self);
            match thread::spawn(c"milter-watch", thread::SMALL_STACK, move || watch.watch()) {
                Ok(watcher) => register.watcher = Some(watcher),
                Err(error) => context.server.trouble("start a thread that watches callbacks", &error),
            }
        }
        let place = match register.free.pop() {
            Some(place) => place,
            None => {
                register.running.try_reserve(1).ok()?;
                let places = register.running.len() + 1;
                // Every place gets free at some time, when nothing may fail.
                register.free.try_reserve(places).ok()?;
                register.running.push(None);
                places - 1
            }
        };
        register.running[place] = Some(running);
        Some(Entry { watch: self, place })
    }

    /// Ends the thread.
    pub(super) fn end(&self) {
        let mut register = self.register.lock();
        register.over = true;
        let watcher = register.watcher.take();
        drop(register);
        self.ended.notify_all();
        // Nothing in it fails but by panicking, which was logged then.
        watcher.map(JoinHandle::join);
    }

    fn watch(&self) {
        // Handlers of the program belong on its own threads.
        let _ = Mask::all().block();
        let mut register = self.register.lock();
        while !register.over {
            let now = Instant::now();
            let next = register.next_mark(&self.marks, now);
            if next > now {
                self.ended.wait_until(&mut register, next);
            } else {
                MutexGuard::unlocked(&mut register, || self.tell_overdue());
            }
        }
    }

    fn tell_overdue(&self) {
        let _telling = self.telling.lock();
        let overdue = self.register.lock().pass_marks(&self.marks, Instant::now());
        for running in overdue {
            let mark = self.marks[running.passed - 1];
            running.tell(mark);
            if mark.is_limit && self.ends_process {
                process::abort();
            }
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut register = self.watch.register.lock();
        let returned = register.running[self.place].take();
        register.free.push(self.place);
        drop(register);
        if let Some(running) = returned.filter(|running| running.passed > 0) {
            let _telling = self.watch.telling.lock();
            let seconds = running.since.elapsed().as_secs_f64();
            let text = format_args!("{} has returned after {seconds:.1} s", running.callback.c_name());
            running.context.report(Level::Warning, text);
        }
    }
}

impl Register {
    /// When to look again: nothing that begins after `now` is overdue earlier.
    fn next_mark(&self, marks: &[Mark], now: Instant) -> Instant {
        let running = self.running.iter().flatten();
        let next = running.filter_map(|running| Some(running.since + marks.get(running.passed)?.after)).min();
        next.unwrap_or(now + marks[0].after).min(now + marks[0].after)
    }

    /// Notes which callbacks have passed a mark, and gives a copy of them.
    fn pass_marks(&mut self, marks: &[Mark], now: Instant) -> Vec<Running> {
        let mut overdue = Vec::new();
        for running in self.running.iter_mut().flatten() {
            if marks.get(running.passed).is_some_and(|mark| running.since + mark.after <= now) {
                running.passed += 1;
                overdue.push(running.clone());
            }
        }
        overdue
    }
}

impl Running {
    /// Tells the operator that a mark is passed.
    fn tell(&self, mark: Mark) {
        let queue_id = self.context.queue_id().map(|id| format!(" for message {id}")).unwrap_or_default();
        let seconds = self.since.elapsed().as_secs();
        let callback = self.callback.c_name();
        let (level, remark) =
            if mark.is_limit { (Level::Error, ", longer than callback-limit") } else { (Level::Warning, "") };
        let text = format_args!("{callback}{queue_id} has been running for {seconds} s{remark}");
        self.context.report(level, text);
    }
}
