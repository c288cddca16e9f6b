//! Telling a service manager how the filter is, where it asks for that: `NOTIFY_SOCKET`, `WATCHDOG_USEC`.
//!
//! A thread of its own tells what changes, so that neither callbacks nor the loop that serves them wait for the manager.
//! Only the sign of life comes from that loop itself: it would be worth nothing from anybody else. Where the process runs
//! no callbacks but forks, it has no such thread: the loop that takes connections tells everything.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::log::{self, Episode};
use super::service::Server;
use crate::model::{self, Service};
use crate::sys::datagram::Datagrams;
use crate::sys::error::Reason;
use crate::sys::poll::{self, Interest};
use crate::sys::process;
use crate::sys::signal::Mask;
use crate::sys::thread::{self, JoinHandle};
use crate::sys::wake::{self, Wake};

/// The way to the service manager.
pub(super) struct Notifier {
    manager: Datagrams,
    watchdog: Option<Watchdog>,
    news: Wake,
    /// Somebody has called [`Self::news`] since it was cleared.
    has_news: AtomicBool,
    over: AtomicBool,
    /// There is no thread that tells what changes.
    alone: bool,
    told: Mutex<Told>,
    trouble: Episode,
}

/// What the manager knows.
struct Told {
    /// `None` until it has taken the first message.
    sessions: Option<usize>,
    stopping: bool,
    /// When it was told something, or could not be.
    when: Option<Instant>,
}

impl Notifier {
    /// The one that the environment asks for, if it does.
    pub(super) fn from_environment(alone: bool) -> io::Result<Option<Self>> {
        let Some(name) = process::environment(c"NOTIFY_SOCKET") else { return Ok(None) };
        Self::to(Datagrams::to(name.to_bytes())?, alone).map(Some)
    }

    fn to(manager: Datagrams, alone: bool) -> io::Result<Self> {
        Ok(Notifier {
            manager,
            watchdog: Watchdog::from_environment(),
            news: Wake::new()?,
            has_news: AtomicBool::new(false),
            over: AtomicBool::new(false),
            alone,
            told: Mutex::new(Told { sessions: None, stopping: false, when: None }),
            trouble: Episode::new()?,
        })
    }

    /// Notes that the number of sessions has changed.
    pub(super) fn note(&self) {
        if !self.alone && !self.has_news.swap(true, SeqCst) {
            wake::call(self.news.number());
        }
    }

    /// Gives a sign of life if one is due. Says how soon the loop has to come again for the next.
    pub(super) fn turn(&self, server: &Server) -> Option<Duration> {
        let life = self.watchdog.as_ref().map(|watchdog| watchdog.turn(&self.manager));
        let news = self.alone.then(|| {
            // Sessions end in other processes, and nobody says so.
            let rest = (server.lobby().sessions() > 0).then_some(PAUSE);
            self.report(server).or(rest)
        });
        life.into_iter().chain(news.flatten()).min()
    }

    /// Tells what is new, up to the stop: states at once, the number of sessions and what the manager has not taken now
    /// and then. Says how long that has to wait.
    fn report(&self, server: &Server) -> Option<Duration> {
        let mut told = self.told.lock();
        let sessions = server.lobby().sessions();
        let (ready, stopping) = (told.sessions.is_none(), server.stopping());
        if told.stopping || !ready && !stopping && told.sessions == Some(sessions) {
            return None;
        }
        let wait = told.when.map_or(Duration::ZERO, |when| PAUSE.saturating_sub(when.elapsed()));
        if !(stopping || wait.is_zero()) {
            return Some(wait);
        }
        let states = [(ready, "READY=1\n"), (stopping, "STOPPING=1\n")];
        let states: String = states.into_iter().filter(|(holds, _)| *holds).map(|(_, state)| state).collect();
        let text = format!("{states}STATUS={sessions} session{}", if sessions == 1 { "" } else { "s" });
        // The loop that takes connections has no time for a manager that does not read, and comes again.
        let sent = if self.alone { self.manager.try_send(text.as_bytes()) } else { self.manager.send(text.as_bytes()) };
        let sent = sent.inspect_err(|error| {
            if self.trouble.begins() {
                log::error(
                    server.filter().name(),
                    format_args!("cannot notify the service manager: {}", Reason(error)),
                );
            }
        });
        *told =
            Told { sessions: sent.map_or(told.sessions, |()| Some(sessions)), stopping, when: Some(Instant::now()) };
        (told.sessions != Some(sessions)).then_some(PAUSE)
    }

    fn forget_news(&self) {
        self.news.clear();
        self.has_news.store(false, SeqCst);
    }
}

/// When to give signs of life.
struct Watchdog {
    interval: Duration,
    start: Instant,
    /// When the next one is due, in nanoseconds from the start.
    due: AtomicU64,
}

impl Watchdog {
    /// The one that the environment asks for, if it is for this process.
    fn from_environment() -> Option<Self> {
        let number = |name| process::environment(name)?.to_str().ok()?.parse::<u64>().ok();
        let limit = number(c"WATCHDOG_USEC").filter(|limit| *limit > 0)?;
        let mine = process::environment(c"WATCHDOG_PID")
            .is_none_or(|_| number(c"WATCHDOG_PID").is_some_and(|pid| i64::try_from(pid) == Ok(process::id().into())));
        // Twice as often as it has to be.
        let interval = Duration::from_micros((limit / 2).max(1));
        mine.then(|| Watchdog { interval, start: Instant::now(), due: AtomicU64::new(0) })
    }

    fn turn(&self, manager: &Datagrams) -> Duration {
        let now = self.start.elapsed();
        let due = self.due.load(SeqCst);
        let left = Duration::from_nanos(due).saturating_sub(now);
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let next = nanoseconds(now.saturating_add(self.interval));
        // Of several threads that come at once, one does it.
        if !left.is_zero() || self.due.compare_exchange(due, next, SeqCst, SeqCst).is_err() {
            return left.max(Duration::from_millis(1));
        }
        if manager.try_send(b"WATCHDOG=1").is_ok() {
            return self.interval;
        }
        // There is time for another attempt.
        let soon = self.interval / 4;
        self.due.store(nanoseconds(now.saturating_add(soon)), SeqCst);
        soon
    }
}

/// The thread that tells what changes, while this exists.
pub(super) struct Reporter {
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
}

impl Reporter {
    /// Tells the manager, if there is one, that the filter is ready, and from now on what changes.
    pub(super) fn start(server: &Arc<Server>) -> io::Result<Self> {
        let thread = server.notifier().filter(|notifier| !notifier.alone).map(|_| {
            let server = Arc::clone(server);
            thread::spawn(c"milter-reporter", thread::SMALL_STACK, move || report(&server))
        });
        Ok(Reporter { server: Arc::clone(server), thread: thread.transpose()? })
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if let (Some(notifier), Some(thread)) = (self.server.notifier(), self.thread.take()) {
            notifier.over.store(true, SeqCst);
            // Whether or not it knows of news.
            wake::call(notifier.news.number());
            // Nothing in it fails but by panicking, which was logged then.
            thread.join();
        }
    }
}

/// The shortest time between two reports.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells what changes, until the filter is to stop.
fn report(server: &Server) {
    let Some(notifier) = server.notifier() else { return };
    // Handlers of the program belong on its own threads.
    let _ = Mask::all().block();
    let stop = (server.stop_descriptor(), Interest::Read);
    loop {
        // Before anything is looked at, so that what comes after the look is not forgotten.
        notifier.forget_news();
        let over = server.stopping() || notifier.over.load(SeqCst);
        let pause = notifier.report(server);
        if over {
            return;
        }
        // Sessions can wait, a stop cannot.
        let waited = match pause {
            Some(_) => poll::wait([stop], pause).map(drop),
            None => poll::wait([stop, (notifier.news.as_fd(), Interest::Read)], None).map(drop),
        };
        if model::wait_out(server, waited).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::server::admission::Refusal;

    /// The loop that takes connections goes on, whether or not the manager reads.
    #[test]
    fn nobody_waits_where_there_is_no_thread() {
        let path = std::env::temp_dir().join(format!("milter-manager-{}", process::id()));
        let _ = std::fs::remove_file(&path);
        let manager = UnixDatagram::bind(&path).unwrap();
        let to_manager = || Datagrams::to(path.as_os_str().as_bytes()).unwrap();
        let flood = to_manager();
        while flood.try_send(b"full").is_ok() {}
        let server = Server::for_test(Arc::new(Refusal));
        let report = |_| {
            let notifier = Notifier::to(to_manager(), true).unwrap();
            let start = Instant::now();
            assert_eq!(notifier.report(&server), Some(PAUSE));
            start.elapsed()
        };
        // What holds one up might be the machine.
        let quickest = (0..5).map(report).min();
        std::fs::remove_file(&path).unwrap();
        assert!(quickest < Some(Duration::from_millis(500)), "{quickest:?}");
        drop(manager);
    }
}
