//! How much of a sweep is played, and how it is told about.

use std::{
    env,
    fmt::Display,
    io::{self, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

/// Runs at the same time: they mostly wait.
const WORKERS: usize = 4;

/// Which part of all runs is played: every `stride`-th, from `first` on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    first: u64,
    stride: u64,
}

impl Share {
    /// Everything if `LIBMILTER_FAULTS=all`, otherwise a sample, from `offset` on.
    pub(crate) fn from_environment(offset: u64, stride: u64) -> Share {
        if is_complete() { Share { first: 0, stride: 1 } } else { Share { first: offset % stride, stride } }
    }

    /// The numbers from 1 to `count` that belong to it.
    pub(crate) fn of(self, count: u64) -> impl Iterator<Item = u64> {
        (1..=count).skip(self.first as usize).step_by(self.stride as usize)
    }
}

/// Whether `LIBMILTER_FAULTS=all`.
pub(crate) fn is_complete() -> bool {
    env::var_os("LIBMILTER_FAULTS").is_some_and(|value| value == "all")
}

/// Plays `run` for each of `cases` and returns what came of them, in their order.
pub(crate) fn in_parallel<C: Sync, R: Send>(cases: &[C], run: impl Fn(&C) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, R)>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Relaxed);
                    let Some(case) = cases.get(at) else { return };
                    let result = run(case);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Tells how far a part of a sweep is, past the capture of the test runner.
#[derive(Debug)]
pub(crate) struct Progress {
    name: String,
    count: usize,
    done: AtomicUsize,
    start: Instant,
}

impl Progress {
    /// Of so many runs.
    pub(crate) fn new(name: &str, count: usize) -> Progress {
        Progress { name: name.to_owned(), count, done: AtomicUsize::new(0), start: Instant::now() }
    }

    /// One more has been played.
    pub(crate) fn step(&self) {
        let done = self.done.fetch_add(1, Relaxed) + 1;
        if done.is_multiple_of(500) {
            tell(format_args!("{}: {done} of {}", self.name, self.count));
        }
    }

    /// All have been.
    pub(crate) fn end(&self, what: impl Display) {
        tell(format_args!("{}: {} runs in {} s: {what}", self.name, self.count, self.start.elapsed().as_secs()));
    }
}

fn tell(text: impl Display) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}
