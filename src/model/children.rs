//! The processes that this one has forked to run sessions, from the first fork to the last end.
//!
//! No signal tells of their ends, and nobody else's children are waited for: the program may have a handler for SIGCHLD
//! and children of its own. They end with this process: the kernel kills them, even in the middle of a callback
//! unless that has changed the user of its process, and those that only wait see the end of their *lifeline*, a pipe in
//! which nothing is ever written.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{PAUSE, Service, Ticket, sooner, start_thread, wait_out};
use crate::sys::child::{self, Alone, Child, Exit};
use crate::sys::descriptor;
use crate::sys::epoll::{Epoll, Events};
use crate::sys::poll::{self, Interest};
use crate::sys::process;
use crate::sys::shared::Shared;
use crate::sys::socket::Acceptor;
use crate::sys::thread::JoinHandle;
use crate::sys::wake::{self, Wake};

/// The children of this process.
pub(crate) struct Children {
    alone: Alone,
    /// By their tokens.
    living: HashMap<u64, Member>,
    /// Says which have ended, and that one has called.
    ended: Epoll,
    events: Events,
    /// Called by those that have nothing unfinished any more, and by others that have something for this process to see.
    quiet: Wake,
    lifeline: OwnedFd,
    /// Its other end, which is in this process only.
    _life: OwnedFd,
}

/// The token of a call by a child; no child has it.
const CALL: u64 = u64::MAX;

struct Member {
    child: Child,
    kind: Kind,
    standing: Shared<Standing>,
    /// It is left from an earlier run.
    is_left: bool,
}

impl Member {
    /// Whether a stop waits for it: for what is unfinished in this run, and for whoever ends in no time.
    fn delays_stop(&self) -> bool {
        let Standing { unfinished, over } = &*self.standing;
        over.load(SeqCst) || !self.is_left && unfinished.load(SeqCst) > 0
    }
}

/// What a child tells its parent, who sees it in memory that both have. No descriptor says it: a process that a callback
/// forks has copies of them all.
pub(super) struct Standing {
    /// Sessions in a step or in a message, and one more from the start until the child has nothing to do after the stop.
    /// A child with nothing unfinished may be killed: the program may exit then.
    unfinished: AtomicU64,
    /// Its only session is over. How a process ends says less: a callback may exit with status 0, and a program that
    /// ignores SIGCHLD keeps its parent from learning more than the end.
    over: AtomicBool,
}

/// What a child has of its parent's.
pub(super) struct Parent {
    /// Ends with the parent.
    pub(super) lifeline: OwnedFd,
    quiet: Wake,
    standing: Shared<Standing>,
}

impl Parent {
    /// Something has begun that a stop waits for.
    pub(super) fn begin(&self) {
        self.standing.unfinished.fetch_add(1, SeqCst);
    }

    /// It has ended.
    pub(super) fn end<V: Service>(&self, service: &V) {
        // The program may exit as soon as nothing is unfinished, which cannot be before the stop: what it has printed is
        // written first.
        if service.stopping() {
            service.leaving();
            child::flush_stdio();
        }
        if self.standing.unfinished.fetch_sub(1, SeqCst) == 1 {
            self.call();
        }
    }

    /// Has the parent look again at what it shares with this process.
    pub(super) fn call(&self) {
        wake::call(self.quiet.number());
    }

    /// The only session is over, and this process is about to end. What is unfinished stays so until it has.
    pub(super) fn end_session(&self) {
        self.standing.over.store(true, SeqCst);
    }
}

/// What a child is there for.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// One session.
    Session(Ticket),
    /// The worker of this number, from 1.
    Worker(usize),
}

/// A child that has ended.
pub(super) struct Departed {
    id: i32,
    kind: Kind,
    is_left: bool,
    /// Its only session was over.
    is_over: bool,
    exit: Exit,
}

/// What came of taking connections, for whoever waits next; the greater, the more it says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Then {
    /// None is left: for the next one.
    Listen,
    /// There may be more: for nothing.
    GoOn,
    /// There is no room for any: for a child that makes some.
    Wait,
    /// None can be taken: for a while.
    Pause,
}

impl fmt::Display for Departed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Departed { id, kind, exit, .. } = self;
        match kind {
            Kind::Session(ticket) => write!(f, "[{}] process {id} {exit}, the session is lost", ticket.number),
            Kind::Worker(number) => write!(f, "worker {number} (process {id}) {exit}"),
        }
    }
}

impl Departed {
    /// The number of the worker that it was in this run.
    pub(super) fn worker(&self) -> Option<usize> {
        match self.kind {
            Kind::Worker(number) if !self.is_left => Some(number),
            _ => None,
        }
    }

    /// Counts its session as over, and tells the operator, unless it went as it should.
    pub(super) fn bury<V: Service>(&self, service: &V) {
        if let Kind::Session(Ticket { refused: false, .. }) = self.kind
            && !self.is_left
        {
            service.depart(1);
        }
        let is_orderly = match self.kind {
            Kind::Session(_) => self.is_over,
            Kind::Worker(_) => matches!(self.exit, Exit::Status(0) | Exit::Unknown),
        };
        if !is_orderly {
            service.lost(format_args!("{self}"));
        }
    }
}

/// Makes sure that this process may fork: only the thread that forks would go on in a child. Fails with the number of
/// threads.
pub(crate) fn alone() -> Result<Alone, usize> {
    Alone::check(|| usize::from(Caretaker::is_at_work()))
}

impl Children {
    /// Those that are left from earlier runs, if there are any. Who has gathered them sees to it that somebody looks after
    /// them: nothing may fail from here to the run.
    pub(super) fn gather(alone: Alone) -> io::Result<Self> {
        // What waits in the buffers of stdio now would be written by each child. From here on nobody adds to it: no code of
        // the program's runs in this process.
        child::flush_stdio();
        if let Some(mut left) = Caretaker::relieve() {
            left.living.values_mut().for_each(|member| member.is_left = true);
            return Ok(left);
        }
        let [lifeline, life] = descriptor::pipe()?;
        let (ended, events, quiet) = (Epoll::new()?, Events::new(), Wake::new()?);
        // Each call is an edge, so nobody has to clear it for the next.
        ended.add_edge(quiet.as_fd(), CALL)?;
        Ok(Children { alone, living: HashMap::new(), ended, events, quiet, lifeline, _life: life })
    }

    /// Forks; gives, in the child, what it has for [`Self::into_parent`].
    pub(super) fn fork(&mut self, kind: Kind) -> io::Result<Option<Shared<Standing>>> {
        self.living.try_reserve(1)?;
        let standing = Shared::new(Standing { unfinished: AtomicU64::new(1), over: AtomicBool::new(false) })?;
        let adopt = |child: &Child| self.ended.add_level(child.as_fd(), child.token());
        let Some(child) = child::fork(&self.alone, adopt)? else { return Ok(Some(standing)) };
        self.living.insert(child.token(), Member { child, kind, standing, is_left: false });
        Ok(None)
    }

    /// The process that is the worker of this number in this run.
    pub(super) fn worker(&self, number: usize) -> Option<i32> {
        let is_it = |member: &&Member| !member.is_left && matches!(member.kind, Kind::Worker(it) if it == number);
        self.living.values().find(is_it).map(|member| member.child.id())
    }

    /// Becomes a child's view of its parent. Nothing else of the parent's stays open.
    pub(super) fn into_parent(self, standing: Shared<Standing>) -> Parent {
        Parent { lifeline: self.lifeline, quiet: self.quiet, standing }
    }

    /// Waits for what there is to do for the process that takes connections: for the stop, for children that have ended,
    /// and for what was found when connections were taken; at most `limit`.
    pub(super) fn wait<V: Service>(
        &mut self,
        service: &V,
        listeners: &[Acceptor],
        then: Then,
        limit: Option<Duration>,
    ) -> io::Result<Vec<Departed>> {
        let limit = sooner(limit, service.turn());
        let others = [service.stop_descriptor(), self.ended.as_fd()];
        let outcome = match then {
            Then::Listen => poll::wait_for_any(listeners.iter().map(Acceptor::as_fd).chain(others), limit),
            Then::Wait => poll::wait_for_any(others, limit),
            Then::Pause => poll::wait_for_any(others, sooner(limit, Some(PAUSE))),
            Then::GoOn => Ok(true),
        };
        if wait_out(service, outcome)? { self.reap(service) } else { Ok(Vec::new()) }
    }

    /// Readable while some have ended that nobody knows of.
    fn ended(&self) -> (BorrowedFd<'_>, Interest) {
        (self.ended.as_fd(), Interest::Read)
    }

    /// Finds those that have ended.
    fn reap<V: Service>(&mut self, service: &V) -> io::Result<Vec<Departed>> {
        let mut departed = Vec::new();
        let ended = wait_out(service, self.ended.wait(&mut self.events, Some(Duration::ZERO)).map(Some))?;
        for event in ended.into_iter().flatten() {
            if let Some(Member { child, kind, standing, is_left }) = self.living.get(&event.token)
                && let Some(exit) = child.reap()
            {
                let (id, is_over) = (child.id(), standing.over.load(SeqCst));
                departed.push(Departed { id, kind: *kind, is_left: *is_left, is_over, exit });
                // A process of the program's may have a copy of its descriptor, so closing it is not enough.
                let _ = self.ended.remove(child.as_fd());
                self.living.remove(&event.token);
            }
        }
        Ok(departed)
    }

    /// Waits until nothing is unfinished in any child, and whose session is over has ended, but not for ever.
    pub(super) fn drain<V: Service>(&mut self, service: &V) -> io::Result<()> {
        let deadline = Instant::now() + service.drain();
        service.turn();
        loop {
            // Before the look: a call after it is one to look again.
            self.quiet.clear();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.living.values().any(Member::delays_stop) {
                return Ok(());
            }
            wait_out(service, poll::wait([(self.quiet.as_fd(), Interest::Read), self.ended()], Some(left)))?;
            self.reap(service)?.iter().for_each(|departed| departed.bury(service));
        }
    }

    /// Leaves those who still serve somebody to a thread: they live as long as this process, and none becomes a zombie.
    pub(super) fn take_leave<V: Service>(self, service: &Arc<V>) {
        if self.living.is_empty() {
            return;
        }
        let left = Arc::new(Mutex::new(Some(self)));
        let employed = Wake::new().map(Arc::new).and_then(|recall| {
            let (of_caretaker, left, service) = (Arc::clone(&recall), Arc::clone(&left), Arc::clone(service));
            let body = move || left.lock().take().and_then(|left| left.look_after(&*service, &of_caretaker));
            let thread = start_thread(c"milter-manager", body)?;
            *CARETAKER.lock() = Some(Caretaker { process: process::id(), thread, recall });
            Ok(())
        });
        if let Err(error) = employed {
            // They are not to end for want of a lifeline.
            std::mem::forget(left);
            service.trouble("start a thread for the processes that are left", &error);
        }
    }

    /// Buries children until there are none, or until `recall`.
    fn look_after<V: Service>(mut self, service: &V, recall: &Wake) -> Option<Self> {
        while !self.living.is_empty() {
            let ready = poll::wait([self.ended(), (recall.as_fd(), Interest::Read)], None);
            match wait_out(service, ready) {
                Ok([_, true]) | Err(_) => return Some(self),
                Ok(_) => self.reap(service).into_iter().flatten().for_each(|departed| departed.bury(service)),
            }
        }
        None
    }
}

/// A thread that looks after children between runs.
struct Caretaker {
    process: i32,
    thread: JoinHandle<Option<Children>>,
    recall: Arc<Wake>,
}

static CARETAKER: Mutex<Option<Caretaker>> = Mutex::new(None);

impl Caretaker {
    /// Whether this process has such a thread.
    fn is_at_work() -> bool {
        let caretaker = CARETAKER.lock();
        caretaker.as_ref().is_some_and(|it| it.process == process::id() && !it.thread.is_finished())
    }

    /// Ends the caretaker, if there is one, and takes over from it.
    fn relieve() -> Option<Children> {
        let caretaker = CARETAKER.lock().take()?;
        if caretaker.process != process::id() {
            // It, and the children, are those of the process that forked this one.
            std::mem::forget(caretaker);
            return None;
        }
        wake::call(caretaker.recall.number());
        caretaker.thread.join().flatten()
    }
}
