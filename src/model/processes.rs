//! Several worker processes, each with a thread model of its own: a callback that crashes costs its worker's sessions.
//!
//! This process is the supervisor. It takes connections and passes each to the worker with the fewest sessions; what a
//! worker listens on is a channel in which connections arrive. A channel belongs to a *post* that one worker after
//! another holds. The end of the channel is the workers' stop: everything that was passed comes before it.
//!
//! A worker may be unable to serve: stopped by a signal, without descriptors or threads, or busy in a callback with all
//! the threads it may have. Only the worker knows, and only by taking a connection does it say that it can serve one. So:
//!
//! - A worker has one connection at most that it has not taken. What it does not take in time the supervisor takes back, as
//!   it has the other end of the channel, too: the kernel gives the connection to one of both, and no copy of a descriptor
//!   is kept that would have to be closed in the end.
//! - In its place lies a probe then, and the worker gets nothing more before it has taken that. Taking a probe needs all
//!   that taking a connection needs. The operator is told of a worker that does not do so for a while.
//! - A connection that no worker can take waits here for the first one that can, and the next ones wait in the listener's
//!   backlog.
//! - A worker of `threads` takes nothing before it has a thread for it; the threads of a pool take for themselves.
//!
//! So no connection waits while another worker could take it, but for the time it may lie in a channel. A session that a
//! worker has taken stays there.
//!
//! A queue from which all workers take would do without a supervisor that decides, but the kernel wakes whom it wants: not
//! the worker with the fewest sessions.

mod post;
mod worker;

use std::collections::VecDeque;
use std::io;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::post::{Findings, Holder, News, Post, vacancy};
use super::children::{Children, Departed, Kind, Standing, Then};
use super::{Admission, Connection, Model, PAUSE, Service, Ticket};
use crate::sys::child::{self, Alone};
use crate::sys::shared::Shared;
use crate::sys::socket::Acceptor;

/// Worker processes that run a model each.
pub(crate) struct Processes<M> {
    pub(crate) alone: Alone,
    pub(crate) workers: NonZero<u16>,
    pub(crate) model: M,
}

impl<M: Model> Model for Processes<M> {
    fn run<V: Service>(self, service: Arc<V>, listeners: Vec<Acceptor>) -> io::Result<()> {
        let posts = (0..self.workers.get()).map(|_| Post::new()).collect::<io::Result<_>>()?;
        // One that has just been taken, and one from each post.
        let mut queue = VecDeque::new();
        queue.try_reserve(usize::from(self.workers.get()) + 1)?;
        let children = Children::gather(self.alone)?;
        let mut supervisor = Supervisor { service: &*service, children, posts, queue };
        let outcome = match supervisor.run(&listeners) {
            Ok(Role::Worker(post, standing)) => {
                let Supervisor { children, mut posts, queue, .. } = supervisor;
                let Post { taking, tally, .. } = posts.swap_remove(post);
                drop((listeners, posts, queue));
                let parent = children.into_parent(standing);
                let work = || worker::work(self.model, &service, taking, tally, parent);
                // Not even a panic may lead back into the program's code, which goes on in the parent.
                let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(io::ErrorKind::Other.into()));
                child::leave(outcome.map_or(1, |()| 0))
            }
            Ok(Role::Supervisor) => {
                supervisor.pass_the_rest();
                Ok(())
            }
            Err(error) => Err(error),
        };
        let Supervisor { mut children, posts, queue, .. } = supervisor;
        drop((listeners, posts, queue));
        let drained = children.drain(&*service);
        children.take_leave(&service);
        outcome.and(drained)
    }
}

/// Connections taken before ends of workers get their turn.
const ADMISSIONS: usize = 64;

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
    /// Taken, but no worker can serve them yet; in their order.
    queue: VecDeque<Connection>,
}

impl<V: Service> Supervisor<'_, V> {
    fn run(&mut self, listeners: &[Acceptor]) -> io::Result<Role> {
        while !self.service.stopping() {
            if let Some(worker) = self.fill_post() {
                return Ok(worker);
            }
            // Without any worker new connections wait.
            let then = if self.posts.iter().any(Post::is_held) { self.take(listeners) } else { Then::Pause };
            let limit = self.until_next_look();
            for departed in self.children.wait(self.service, listeners, then, limit)? {
                self.bury(&departed);
            }
        }
        Ok(Role::Supervisor)
    }

    /// Starts a worker for a post that has been vacant for long enough; gives its role to a worker. One at a time: with
    /// many to start, a stop or a connection is not to wait for the last of them.
    fn fill_post(&mut self) -> Option<Role> {
        let now = Instant::now();
        let is_due = |post: &Post| matches!(post.holder, Holder::Nobody { until } if until <= now);
        let index = self.posts.iter().position(is_due)?;
        let post = &mut self.posts[index];
        match self.children.fork(Kind::Worker(index + 1)) {
            Ok(Some(standing)) => return Some(Role::Worker(index, standing)),
            Ok(None) => post.holder = Holder::Worker { since: now },
            Err(error) => {
                self.service.trouble("start a process", &error);
                post.short_lives = post.short_lives.saturating_add(1);
                post.holder = Holder::Nobody { until: now + vacancy(post.short_lives).max(PAUSE) };
            }
        }
        None
    }

    /// How long nothing is to be done for a post unless something happens.
    fn until_next_look(&self) -> Option<Duration> {
        let now = Instant::now();
        let moments = self.posts.iter().filter_map(|post| match post.holder {
            Holder::Nobody { until } => Some(until),
            Holder::Worker { .. } => post.next_look(now),
        });
        moments.min().map(|moment| moment.saturating_duration_since(now))
    }

    /// Takes connections and passes them on.
    fn take(&mut self, listeners: &[Acceptor]) -> Then {
        if !self.pass_on() {
            return Then::Pause;
        }
        listeners.iter().map(|listener| self.take_from(listener)).max().unwrap_or(Then::Listen)
    }

    fn take_from(&mut self, listener: &Acceptor) -> Then {
        for _ in 0..ADMISSIONS {
            // The others may as well wait where they are.
            if !self.queue.is_empty() {
                return Then::Wait;
            }
            match self.service.accept(listener) {
                Admission::Taken(connection) => self.queue.push_back(connection),
                Admission::Again => continue,
                Admission::Empty => return Then::Listen,
                Admission::Pause => return Then::Pause,
            }
            if !self.pass_on() {
                return Then::Pause;
            }
        }
        Then::GoOn
    }

    /// Passes connections of the queue to workers, each to the one with the fewest sessions of those that are ready; sees
    /// to it that this process is called when another one is. False if passing fails.
    fn pass_on(&mut self) -> bool {
        self.look_at_workers();
        let mut is_awaited = false;
        while !self.queue.is_empty() {
            let ready = self.posts.iter_mut().filter(|post| post.is_ready()).min_by_key(|post| post.load());
            if let (Some(post), Some(connection)) = (ready, self.queue.front()) {
                if let Err(error) = post.pass(connection, Instant::now()) {
                    self.service.trouble("pass a connection to a worker", &error);
                    return false;
                }
                self.queue.pop_front();
            } else if is_awaited {
                break;
            } else {
                // In this order: who has answered before it could know of that is seen now.
                self.posts.iter().for_each(Post::await_answer);
                is_awaited = true;
                self.look_at_workers();
            }
        }
        true
    }

    /// Takes back what workers have not taken in time, and tells the operator of those that do not answer.
    fn look_at_workers(&mut self) {
        let now = Instant::now();
        for (index, post) in self.posts.iter_mut().enumerate() {
            let Findings { returned, news } = post.look(self.service.stop_descriptor(), now);
            if let Some(connection) = returned {
                self.queue.push_front(connection);
            }
            let Some(news) = news else { continue };
            let (number, process) = (index + 1, self.children.worker(index + 1).unwrap_or_default());
            match news {
                News::Stuck(time) => self.service.warn(format_args!(
                    "worker {number} (process {process}) has not taken a connection for {} s; it gets no other one until \
                     it does",
                    time.as_secs()
                )),
                News::Answers => {
                    self.service.warn(format_args!("worker {number} (process {process}) takes connections again"));
                }
            }
        }
    }

    /// Passes on what waits, at the stop, to workers that are ready or to others: nothing is taken back afterwards.
    fn pass_the_rest(&mut self) {
        for connection in self.queue.drain(..) {
            let open = self.posts.iter_mut().filter(|post| post.may_get_more());
            let best = open.min_by_key(|post| (!post.is_ready(), post.load()));
            if best.is_none_or(|post| post.pass(&connection, Instant::now()).is_err()) {
                let Ticket { number, refused, .. } = connection.ticket;
                self.service.depart(usize::from(!refused));
                self.service.lost(format_args!("[{number}] no worker is left at the stop, the session is lost"));
            }
        }
    }

    /// Notes that a worker has ended.
    fn bury(&mut self, departed: &Departed) {
        let Some(number) = departed.worker() else {
            // Left from an earlier run.
            return departed.bury(self.service);
        };
        let (lost, left, vacancy) = self.posts[number - 1].vacate(Instant::now());
        if let Some(connection) = left {
            self.queue.push_front(connection);
        }
        self.service.depart(lost as usize);
        let sessions = if lost == 1 { "1 session is" } else { &format!("{lost} sessions are") };
        let next = match vacancy.as_millis() {
            0 => "at once".into(),
            milliseconds => format!("in {milliseconds} ms"),
        };
        self.service.lost(format_args!("{departed}, {sessions} lost; another one starts {next}"));
    }
}
