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

/// Which part of all runs is played.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Share {
    /// All of them: `LIBMILTER_FAULTS=all`.
    Everything,
    /// So many, at even distances.
    Sample(usize),
}

impl Share {
    /// Everything if that is asked for, otherwise a sample of so many.
    pub(crate) fn or_sample(runs: usize) -> Share {
        let is_complete = env::var_os("LIBMILTER_FAULTS").is_some_and(|value| value == "all");
        if is_complete { Share::Everything } else { Share::Sample(runs) }
    }

    /// What belongs to it of what there is.
    pub(crate) fn of<T: Clone>(self, all: &[T]) -> Vec<T> {
        let stride = match self {
            Share::Everything => 1,
            Share::Sample(runs) => all.len().div_ceil(runs).max(1),
        };
        // Not always the first.
        all.iter().skip(stride / 2).step_by(stride).cloned().collect()
    }
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

    /// All have been; `bad` is what was found.
    pub(crate) fn end(&self, what: impl Display, bad: &[String]) {
        tell(format_args!("{}: {} runs in {} s: {what}", self.name, self.count, self.start.elapsed().as_secs()));
        bad.iter().for_each(tell);
    }
}

fn tell(text: impl Display) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}
