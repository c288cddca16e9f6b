//! From sessions to wherever a trace goes: lines wait in memory, and a thread writes them.
//!
//! The thread starts with the first line in the process that runs sessions, which may be a child of the one that opened
//! the outlet. While nothing can be written, lines wait; when there is no more room they are left out and counted.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{START_LENGTH, is_start};
use crate::server::log::{self, Episode, Level};
use crate::sys::append::AppendFile;
use crate::sys::error::Reason;
use crate::sys::path;
use crate::sys::poll::{self, Interest};
use crate::sys::signal::Mask;
use crate::sys::{process, syslog, thread};

/// Where a trace goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) enum Target {
    /// An absolute path.
    Path(PathBuf),
    /// The standard error.
    Stderr,
    /// The system log.
    Syslog,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Path(path) => path.display().fmt(f),
            Target::Stderr => f.write_str("stderr"),
            Target::Syslog => f.write_str("syslog"),
        }
    }
}

/// Room for lines that wait, in octets.
const ROOM: usize = 1 << 20;

/// How long to wait before trying again what has failed, and before looking again whether the file is still in place.
const INTERVAL: Duration = Duration::from_secs(1);

/// Opens a file for lines. What is in it already has to be a trace.
fn open(path: &Path) -> io::Result<AppendFile> {
    AppendFile::open(path, START_LENGTH, is_start)
}

/// Takes lines, of whichever session and thread.
pub(super) struct Outlet {
    sink: Arc<Sink>,
    /// The queue of a process.
    queue: Mutex<Option<(i32, Arc<Queue>)>>,
}

impl Outlet {
    /// Opens it, for the filter called `name`.
    pub(super) fn open(target: Target, name: CString) -> io::Result<Self> {
        let file = match &target {
            Target::Path(path) => match open(path) {
                // A FIFO that nobody reads yet, or a disk that may have room again later.
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) || path::is_full(&error) => None,
                opened => Some(opened?),
            },
            Target::Stderr => Some(AppendFile::stream(libc::STDERR_FILENO)?),
            Target::Syslog => None,
        };
        let place = Mutex::new(Place { file: file.map(Arc::new), looked: Instant::now() });
        let sink = Sink { target, name, place, trouble: Episode::new()? };
        Ok(Outlet { sink: Arc::new(sink), queue: Mutex::new(None) })
    }

    /// Has a line written, with its line end; if there is no room it is counted. `left_out` words how many were.
    pub(super) fn put(&self, line: &str, left_out: impl FnOnce(u64) -> String) {
        self.queue().put(line, left_out);
    }

    /// Counts a line for which there is no memory.
    pub(super) fn leave_out(&self) {
        self.queue().waiting.lock().left_out += 1;
    }

    /// Waits until everything is written, or nothing can be, or the time is up.
    pub(super) fn flush(&self, limit: Duration, left_out: impl FnOnce(u64) -> String) {
        let queue =
            self.queue.lock().as_ref().filter(|(owner, _)| *owner == process::id()).map(|(_, queue)| queue.clone());
        if let Some(queue) = queue {
            queue.put("", left_out);
            queue.wait_until_written(Instant::now() + limit);
        }
    }

    /// The queue of this process.
    fn queue(&self) -> Arc<Queue> {
        let me = process::id();
        let mut queue = self.queue.lock();
        match &*queue {
            Some((owner, queue)) if *owner == me => Arc::clone(queue),
            _ => {
                let fresh = Queue::start(&self.sink);
                *queue = Some((me, Arc::clone(&fresh)));
                fresh
            }
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if let Some((_, queue)) = self.queue.get_mut() {
            queue.close();
        }
    }
}

/// Bytes for the line that says how many were left out.
const LEFT_OUT_ROOM: usize = 4096;

/// Lines on their way to the thread that writes them.
struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    written: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: String,
    left_out: u64,
    /// The thread is writing what it has taken.
    writing: bool,
    /// It could not, and will try again in a while.
    stalled: bool,
    closed: bool,
}

impl Queue {
    fn start(sink: &Arc<Sink>) -> Arc<Self> {
        let queue = Arc::new(Queue { waiting: Mutex::default(), filled: Condvar::new(), written: Condvar::new() });
        let (lines, told, sink) = (Arc::clone(&queue), sink, Arc::clone(sink));
        let write = move || {
            // Handlers of the program belong on its own threads.
            let _ = Mask::all().block();
            while let Some(batch) = lines.take() {
                sink.write(&batch, &lines);
                lines.waiting.lock().writing = false;
                lines.written.notify_all();
            }
        };
        if let Err(error) = thread::spawn(c"milter-trace", thread::SMALL_STACK, write) {
            told.tell(&error);
            queue.close();
        }
        queue
    }

    fn put(&self, line: &str, left_out: impl FnOnce(u64) -> String) {
        let mut waiting = self.waiting.lock();
        let more = line.len() + LEFT_OUT_ROOM;
        let has_room = waiting.lines.len() + line.len() <= ROOM && waiting.lines.try_reserve(more).is_ok();
        if !has_room || waiting.closed {
            waiting.left_out += 1;
            return;
        }
        match std::mem::take(&mut waiting.left_out) {
            0 => {}
            count => waiting.lines.push_str(&left_out(count)),
        }
        waiting.lines.push_str(line);
        self.filled.notify_one();
    }

    /// Waits for lines; `None` when there will be no more.
    fn take(&self) -> Option<String> {
        let mut waiting = self.waiting.lock();
        while waiting.lines.is_empty() {
            if waiting.closed {
                return None;
            }
            self.filled.wait(&mut waiting);
        }
        waiting.writing = true;
        Some(std::mem::take(&mut waiting.lines))
    }

    /// Has the thread wait after an attempt that has failed; not for those who wait for it.
    fn pause(&self) {
        let deadline = Instant::now() + INTERVAL;
        let mut waiting = self.waiting.lock();
        waiting.stalled = true;
        self.written.notify_all();
        while waiting.stalled && !waiting.closed {
            if self.filled.wait_until(&mut waiting, deadline).timed_out() {
                break;
            }
        }
        waiting.stalled = false;
    }

    fn wait_until_written(&self, deadline: Instant) {
        let mut waiting = self.waiting.lock();
        // What has failed before is tried once more.
        waiting.stalled = false;
        self.filled.notify_one();
        while (waiting.writing || !waiting.lines.is_empty()) && !waiting.stalled {
            if self.written.wait_until(&mut waiting, deadline).timed_out() {
                return;
            }
        }
    }

    fn close(&self) {
        self.waiting.lock().closed = true;
        self.filled.notify_one();
    }
}

/// What the thread writes to.
struct Sink {
    target: Target,
    name: CString,
    place: Mutex<Place>,
    trouble: Episode,
}

/// The file, and when it was last compared with what is at its path.
struct Place {
    file: Option<Arc<AppendFile>>,
    looked: Instant,
}

impl Sink {
    /// Writes whole lines; tries again until they are written or their queue is closed.
    fn write(&self, lines: &str, queue: &Queue) {
        if self.target == Target::Syslog {
            return lines.lines().for_each(|line| syslog::write(Level::Info, line.as_bytes()));
        }
        let mut done = 0;
        let mut last: Option<Arc<AppendFile>> = None;
        while done < lines.len() {
            let file = self.file();
            if let (Some(last), Some(file)) = (last.take(), &file)
                && !Arc::ptr_eq(&last, file)
            {
                // The new file begins with a whole line.
                done = lines[..done].rfind('\n').map_or(0, |end| end + 1);
            }
            last.clone_from(&file);
            let outcome = file.as_ref().map(|file| (file, file.append(&lines.as_bytes()[done..])));
            match outcome {
                Some((_, Ok(len))) => {
                    done += len;
                    continue;
                }
                Some((_, Err(error))) if error.kind() == io::ErrorKind::Interrupted => continue,
                Some((file, Err(error))) if error.kind() == io::ErrorKind::WouldBlock => {
                    let _ = poll::wait([(file.as_fd(), Interest::Write)], Some(INTERVAL));
                }
                Some((_, Err(error))) => {
                    self.tell(&error);
                    queue.pause();
                }
                None => queue.pause(),
            }
            if queue.waiting.lock().closed {
                return;
            }
        }
    }

    /// The file, opened again if it has been moved away.
    fn file(&self) -> Option<Arc<AppendFile>> {
        let mut place = self.place.lock();
        if let Target::Path(path) = &self.target
            && (place.file.is_none() || place.looked.elapsed() >= INTERVAL)
        {
            place.looked = Instant::now();
            if !place.file.as_ref().is_some_and(|file| file.is_at(path)) {
                match open(path) {
                    Ok(file) => place.file = Some(Arc::new(file)),
                    // The former one is better than none.
                    Err(error) => self.tell(&error),
                }
            }
        }
        place.file.clone()
    }

    fn tell(&self, error: &io::Error) {
        if self.trouble.begins() {
            let text = format_args!(
                "cannot write the trace to {}: {}; lines wait or are left out",
                self.target,
                Reason(error)
            );
            log::error(&self.name, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A FIFO that nobody reads: the end does not wait for lines that cannot be written, and those that can be are.
    #[test]
    fn the_end_waits_only_for_what_can_be_written() {
        const LONG: Duration = Duration::from_secs(60);
        let path = std::env::temp_dir().join(format!("milter-trace-{}", process::id()));
        let _ = std::fs::remove_file(&path);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let outlet = Outlet::open(Target::Path(path.clone()), c"test".into()).unwrap();
        outlet.put("first\n", |_| String::new());
        let start = Instant::now();
        outlet.flush(LONG, |_| String::new());
        assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
        let reader = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        outlet.put("second\n", |_| String::new());
        outlet.flush(LONG, |_| String::new());
        let mut written = [0; 13];
        std::io::Read::read_exact(&mut &reader, &mut written).unwrap();
        assert_eq!(&written, b"first\nsecond\n");
        std::fs::remove_file(&path).unwrap();
    }
}
