//! Several worker processes, each with a thread model of its own: a callback that crashes costs its worker's sessions.
//!
//! This process is the supervisor. It takes connections and passes each to the worker with the fewest sessions; what a
//! worker listens on is a channel in which connections arrive. A channel belongs to a *post* that one worker after
//! another holds, so a connection that nobody has taken yet outlives a worker. The end of the channel is the workers'
//! stop: everything that was passed comes before it.

use std::io;
use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::children::{Children, Departed, Kind, Parent, Standing, Then};
use super::{Admission, Connection, Model, Next, PAUSE, Pace, Service, Session, Ticket};
use crate::sys::child::{self, Alone};
use crate::sys::poll::{self, Interest};
use crate::sys::shared::Shared;
use crate::sys::socket::{self, Acceptor, Family};
use crate::sys::wake::{self, Wake};

/// Worker processes that run a model each.
pub(crate) struct Processes<M> {
    pub(crate) alone: Alone,
    pub(crate) workers: NonZero<u16>,
    pub(crate) model: M,
}

impl<M: Model> Model for Processes<M> {
    fn run<V: Service>(self, service: Arc<V>, listeners: Vec<Acceptor>) -> io::Result<()> {
        let posts = (0..self.workers.get()).map(|_| Post::new()).collect::<io::Result<_>>()?;
        let children = Children::gather(self.alone)?;
        let mut supervisor = Supervisor { service: &*service, children, posts, undelivered: None };
        let outcome = match supervisor.run(&listeners) {
            Ok(Role::Worker(post, standing)) => {
                let Supervisor { children, mut posts, undelivered, .. } = supervisor;
                let Post { taking, tally, .. } = posts.swap_remove(post);
                drop((listeners, posts, undelivered));
                let parent = children.into_parent(standing);
                let work = || work(self.model, &service, taking, tally, parent);
                // Not even a panic may lead back into the program's code, which goes on in the parent.
                let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(io::ErrorKind::Other.into()));
                child::leave(outcome.map_or(1, |()| 0))
            }
            Ok(Role::Supervisor) => Ok(()),
            Err(error) => Err(error),
        };
        let Supervisor { mut children, posts, undelivered, .. } = supervisor;
        drop((listeners, posts, undelivered));
        let drained = children.drain(&*service);
        children.take_leave(&service);
        outcome.and(drained)
    }
}

// ---- the supervisor

/// Connections taken before ends of workers get their turn.
const ADMISSIONS: usize = 64;

/// A worker that lives shorter than this makes the next one wait.
const SHORT: Duration = Duration::from_secs(2);

/// The longest wait for a worker.
const LONGEST_VACANCY: Duration = Duration::from_secs(5);

/// Who comes back from supervising.
enum Role {
    /// The supervisor itself, because it is to stop.
    Supervisor,
    /// The process that holds the post with this index from now on.
    Worker(usize, Shared<Standing>),
}

struct Supervisor<'a, V> {
    service: &'a V,
    children: Children,
    posts: Vec<Post>,
    /// Taken, but no worker has room for it.
    undelivered: Option<Connection>,
}

/// What one worker after another does.
struct Post {
    passing: OwnedFd,
    taking: OwnedFd,
    tally: Shared<Tally>,
    /// Connections passed, less those that earlier workers took.
    passed: u64,
    holder: Holder,
    /// Workers in a row that lived a short time only.
    short_lives: u32,
}

enum Holder {
    Worker { since: Instant },
    Nobody { until: Instant },
}

impl Ticket {
    /// The ticket as it goes with a connection.
    fn label(self) -> u64 {
        self.number << 2 | u64::from(self.family == Family::Local) << 1 | u64::from(self.refused)
    }

    fn from_label(label: u64) -> Self {
        let family = if label & 2 == 0 { Family::Internet } else { Family::Local };
        Ticket { number: label >> 2, family, refused: label & 1 != 0 }
    }

    /// How much it counts: who is refused needs no callback.
    fn load(self) -> u64 {
        u64::from(!self.refused)
    }
}

/// What a worker has done.
#[derive(Default)]
struct Tally {
    taken: AtomicU64,
    ended: AtomicU64,
}

impl Tally {
    fn sessions(&self) -> u64 {
        self.taken.load(SeqCst) - self.ended.load(SeqCst)
    }
}

impl Post {
    fn new() -> io::Result<Self> {
        let [passing, taking] = socket::channel()?;
        let tally = Shared::new(Tally::default())?;
        let holder = Holder::Nobody { until: Instant::now() };
        Ok(Post { passing, taking, tally, passed: 0, holder, short_lives: 0 })
    }

    /// Sessions that the worker has, or will have when it has taken what was passed.
    fn load(&self) -> u64 {
        self.passed - self.tally.ended.load(SeqCst)
    }

    fn is_held(&self) -> bool {
        matches!(self.holder, Holder::Worker { .. })
    }

    /// Notes the end of the worker; says how many sessions it had and how long the post stays vacant.
    fn vacate(&mut self, now: Instant) -> (u64, Duration) {
        let Holder::Worker { since } = self.holder else { return (0, Duration::ZERO) };
        let lost = self.tally.sessions();
        self.passed -= self.tally.taken.swap(0, SeqCst);
        self.tally.ended.store(0, SeqCst);
        self.short_lives = if now - since < SHORT { self.short_lives.saturating_add(1) } else { 0 };
        let vacancy = vacancy(self.short_lives);
        self.holder = Holder::Nobody { until: now + vacancy };
        (lost, vacancy)
    }
}

/// How long a post stays vacant after so many workers in a row that lived a short time only.
fn vacancy(short_lives: u32) -> Duration {
    match short_lives {
        0 | 1 => Duration::ZERO,
        lives => Duration::from_millis(100 << (lives - 2).min(10)).min(LONGEST_VACANCY),
    }
}

impl<V: Service> Supervisor<'_, V> {
    fn run(&mut self, listeners: &[Acceptor]) -> io::Result<Role> {
        while !self.service.stopping() {
            if let Some(worker) = self.fill_posts() {
                return Ok(worker);
            }
            // Without any worker new connections wait.
            let then = if self.posts.iter().any(Post::is_held) { self.take(listeners) } else { Then::Pause };
            let limit = self.until_vacancy_ends();
            for departed in self.children.wait(self.service, listeners, then, limit)? {
                self.bury(&departed);
            }
        }
        Ok(Role::Supervisor)
    }

    /// Starts workers for posts that have been vacant for long enough; gives its role to a worker.
    fn fill_posts(&mut self) -> Option<Role> {
        let now = Instant::now();
        for (index, post) in self.posts.iter_mut().enumerate() {
            if !matches!(post.holder, Holder::Nobody { until } if until <= now) {
                continue;
            }
            match self.children.fork(Kind::Worker(index + 1)) {
                Ok(Some(standing)) => return Some(Role::Worker(index, standing)),
                Ok(None) => post.holder = Holder::Worker { since: now },
                Err(error) => {
                    self.service.trouble("start a process", &error);
                    post.short_lives = post.short_lives.saturating_add(1);
                    post.holder = Holder::Nobody { until: now + vacancy(post.short_lives).max(PAUSE) };
                }
            }
        }
        None
    }

    fn until_vacancy_ends(&self) -> Option<Duration> {
        let now = Instant::now();
        let vacancies = self.posts.iter().filter_map(|post| match post.holder {
            Holder::Nobody { until } => Some(until.saturating_duration_since(now)),
            Holder::Worker { .. } => None,
        });
        vacancies.min()
    }

    /// Takes connections and passes them on.
    fn take(&mut self, listeners: &[Acceptor]) -> Then {
        listeners.iter().map(|listener| self.take_from(listener)).max().unwrap_or(Then::Listen)
    }

    fn take_from(&mut self, listener: &Acceptor) -> Then {
        for _ in 0..ADMISSIONS {
            let connection = match self.undelivered.take() {
                Some(connection) => connection,
                None => match self.service.accept(listener) {
                    Admission::Taken(connection) => connection,
                    Admission::Again => continue,
                    Admission::Empty => return Then::Listen,
                    Admission::Pause => return Then::Pause,
                },
            };
            self.undelivered = self.deliver(connection);
            if self.undelivered.is_some() {
                return Then::Pause;
            }
        }
        Then::GoOn
    }

    /// Passes a connection to the worker with the fewest sessions that has room for it; gives it back when none has.
    fn deliver(&mut self, connection: Connection) -> Option<Connection> {
        let mut posts: Vec<&mut Post> = self.posts.iter_mut().filter(|post| post.is_held()).collect();
        posts.sort_by_key(|post| post.load());
        for post in posts {
            match socket::pass(post.passing.as_fd(), connection.descriptor.as_fd(), connection.ticket.label()) {
                Ok(()) => {
                    post.passed += connection.ticket.load();
                    return None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => self.service.trouble("pass a connection to a worker", &error),
            }
        }
        Some(connection)
    }

    /// Notes that a worker has ended.
    fn bury(&mut self, departed: &Departed) {
        let Some(number) = departed.worker() else {
            // Left from an earlier run.
            return departed.bury(self.service);
        };
        let (lost, vacancy) = self.posts[number - 1].vacate(Instant::now());
        self.service.depart(lost as usize);
        let sessions = if lost == 1 { "1 session is" } else { &format!("{lost} sessions are") };
        let next = match vacancy.as_millis() {
            0 => "at once".into(),
            milliseconds => format!("in {milliseconds} ms"),
        };
        self.service.lost(format_args!("{departed}, {sessions} lost; another one starts {next}"));
    }
}

// ---- a worker

/// The service as a worker has it: connections come from the supervisor, and the end of their channel is the stop.
struct Worker<V> {
    service: Arc<V>,
    tally: Shared<Tally>,
    parent: Parent,
    over: AtomicBool,
    stop: Wake,
    /// Readable from the moment when the channel has ended and no session is left.
    free: Wake,
}

/// A session in a worker.
struct Passed<V: Service> {
    session: V::Session,
    /// Declared after the session, and so dropped after it.
    counted: Counted<V>,
}

/// Counts a session's end when it is dropped.
struct Counted<V: Service> {
    worker: Arc<Worker<V>>,
    load: u64,
    /// The session is in a step or in a message.
    is_unfinished: bool,
}

/// The life of a worker.
fn work<M: Model, V: Service>(
    model: M,
    service: &Arc<V>,
    channel: OwnedFd,
    tally: Shared<Tally>,
    parent: Parent,
) -> io::Result<()> {
    service.forked();
    let (stop, free) = (Wake::new()?, Wake::new()?);
    let (service, over) = (Arc::clone(service), AtomicBool::new(false));
    let worker = Arc::new(Worker { service, tally, parent, over, stop, free });
    model
        .run(Arc::clone(&worker), vec![Acceptor { socket: channel, family: Family::Local }])
        .inspect_err(|error| worker.trouble("go on in a worker", error))?;
    worker.parent.end(&*worker);
    if worker.tally.sessions() > 0 {
        poll::wait([(worker.free.as_fd(), Interest::Read), (worker.parent.lifeline.as_fd(), Interest::Read)], None)?;
        worker.leaving();
    }
    Ok(())
}

impl<V> Worker<V> {
    /// Has the model stop.
    fn end(&self) {
        self.over.store(true, SeqCst);
        wake::call(self.stop.number());
    }
}

impl<V: Service> Counted<V> {
    fn begin_step(&mut self) {
        if !self.is_unfinished {
            self.is_unfinished = true;
            self.worker.parent.begin();
        }
    }

    fn end_step(&mut self, in_message: bool) {
        if self.is_unfinished && !in_message {
            self.is_unfinished = false;
            self.worker.parent.end(&*self.worker);
        }
    }
}

impl<V: Service> Drop for Counted<V> {
    fn drop(&mut self) {
        self.end_step(false);
        let Counted { worker, load, .. } = self;
        worker.tally.ended.fetch_add(*load, SeqCst);
        if worker.over.load(SeqCst) && worker.tally.sessions() == 0 {
            wake::call(worker.free.number());
        }
    }
}

impl<V: Service> Service for Worker<V> {
    type Session = Passed<V>;

    fn accept(&self, channel: &Acceptor) -> Admission<Connection> {
        let error = match socket::take_passed(channel.as_fd()) {
            Ok(Some((descriptor, label))) => {
                let ticket = Ticket::from_label(label);
                self.tally.taken.fetch_add(ticket.load(), SeqCst);
                return Admission::Taken(Connection { descriptor, ticket });
            }
            Ok(None) => {
                self.end();
                return Admission::Empty;
            }
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Admission::Empty,
            Some(libc::EINTR) => Admission::Again,
            // The filter has closed the channel.
            Some(libc::EBADF | libc::ENOTSOCK | libc::EINVAL) => {
                self.broken(&error);
                Admission::Pause
            }
            _ => {
                self.exhausted(&error);
                Admission::Pause
            }
        }
    }

    fn open(self: &Arc<Self>, connection: Connection) -> Passed<V> {
        let counted = Counted { worker: Arc::clone(self), load: connection.ticket.load(), is_unfinished: false };
        Passed { session: self.service.open(connection), counted }
    }

    fn depart(&self, sessions: usize) {
        self.service.depart(sessions);
    }

    /// The supervisor's loop is the one to watch.
    fn turn(&self) -> Option<Duration> {
        None
    }

    fn introduction(&self) -> Option<Duration> {
        self.service.introduction()
    }

    fn timeout(&self) -> Option<Duration> {
        self.service.timeout()
    }

    fn drain(&self) -> Duration {
        self.service.drain()
    }

    fn threads(&self) -> Option<NonZero<u16>> {
        self.service.threads()
    }

    fn stopping(&self) -> bool {
        self.over.load(SeqCst)
    }

    fn stop_descriptor(&self) -> BorrowedFd<'_> {
        self.stop.as_fd()
    }

    fn forked(&self) {
        self.service.forked();
    }

    fn leaving(&self) {
        self.service.leaving();
    }

    fn exhausted(&self, error: &io::Error) {
        self.service.exhausted(error);
    }

    fn lost(&self, what: std::fmt::Arguments<'_>) {
        self.service.lost(what);
    }

    fn trouble(&self, what: &str, error: &io::Error) {
        self.service.trouble(what, error);
    }

    /// The supervisor goes on with the other workers, and with another one in the place of this: connections that were
    /// passed here wait for that one, so this process ends as if a callback had crashed.
    fn broken(&self, error: &io::Error) {
        self.service.trouble("go on in a worker", error);
        child::leave(1);
    }
}

impl<V: Service> Session for Passed<V> {
    type Scratch = <V::Session as Session>::Scratch;

    const KINDS: usize = V::Session::KINDS;

    fn connection(&self) -> BorrowedFd<'_> {
        self.session.connection()
    }

    fn serve(&mut self, scratch: &mut Self::Scratch, pace: &mut dyn Pace, hang_up: bool) -> Next {
        self.counted.begin_step();
        let next = self.session.serve(scratch, pace, hang_up);
        // Whoever is over ends when it is dropped.
        self.counted.end_step(next.is_over() || self.session.in_message());
        next
    }

    fn expire(&mut self, pace: &mut dyn Pace) -> Next {
        self.counted.begin_step();
        self.session.expire(pace)
    }

    fn is_introduced(&self) -> bool {
        self.session.is_introduced()
    }

    fn in_message(&self) -> bool {
        self.session.in_message()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_keep_dying_are_replaced_more_and_more_slowly() {
        let vacancies: Vec<u128> = (0..10).map(|lives| vacancy(lives).as_millis()).collect();
        assert_eq!(vacancies, [0, 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(vacancy(u32::MAX), LONGEST_VACANCY);
    }

    #[test]
    fn tickets_go_with_connections() {
        for (family, refused) in [(Family::Internet, false), (Family::Local, false), (Family::Local, true)] {
            let ticket = Ticket { number: 1 << 40, family, refused };
            assert_eq!(Ticket::from_label(ticket.label()), ticket);
        }
    }

    #[test]
    fn what_no_worker_has_taken_is_left_to_the_next() {
        let mut post = Post::new().unwrap();
        let start = Instant::now();
        post.holder = Holder::Worker { since: start };
        post.passed = 7;
        post.tally.taken.store(5, SeqCst);
        post.tally.ended.store(3, SeqCst);
        assert_eq!(post.load(), 4);
        assert_eq!(post.vacate(start + SHORT), (2, Duration::ZERO));
        assert_eq!((post.load(), post.is_held()), (2, false));
    }
}
