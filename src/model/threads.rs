//! A thread for each connection, for its whole life. Threads are used again.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::{Admission, Model, Next, PAUSE, RETIREMENT, Service, Session, serve_the_rest, start_thread};
use crate::sys::poll::{self, Interest};

/// The model `threads`.
#[derive(Default)]
pub(crate) struct Threads;

struct Shared<V: Service> {
    service: Arc<V>,
    state: Mutex<State<V::Session>>,
    /// A session waits for a thread.
    handed: Condvar,
    /// A step or message has ended while stopping.
    finished: Condvar,
}

struct State<S> {
    /// Sessions for which a waiting thread has been woken.
    waiting: Vec<S>,
    /// Threads without a session.
    idle: usize,
    /// Sessions in a step or in a message.
    unfinished: usize,
    /// Sessions that have not served, since the stop, what they had received before: a peer that has said its last word
    /// is not merely open.
    unsettled: usize,
    stopping: bool,
}

impl Model for Threads {
    fn run<V: Service>(self, service: Arc<V>, listener: OwnedFd) -> io::Result<()> {
        let shared = Arc::new(Shared {
            service,
            state: Mutex::new(State { waiting: Vec::new(), idle: 0, unfinished: 0, unsettled: 0, stopping: false }),
            handed: Condvar::new(),
            finished: Condvar::new(),
        });
        let outcome = shared.accept(&listener);
        drop(listener);
        shared.drain();
        outcome
    }
}

impl<V: Service> Shared<V> {
    fn accept(self: &Arc<Self>, listener: &OwnedFd) -> io::Result<()> {
        let stop = self.service.stop_descriptor();
        while !self.service.stopping() {
            match self.service.admit(listener.as_fd()) {
                Admission::Taken(session) => self.hand(session),
                Admission::Empty => {
                    poll::wait([(listener.as_fd(), Interest::Read), (stop, Interest::Read)], None)?;
                }
                Admission::Again => {}
                Admission::Pause => {
                    poll::wait([(stop, Interest::Read)], Some(PAUSE))?;
                }
            }
        }
        Ok(())
    }

    /// Gives a session to a thread that has none, or to a new one.
    fn hand(self: &Arc<Self>, session: V::Session) {
        let mut state = self.state.lock();
        state.unsettled += 1;
        if state.idle > 0 {
            state.idle -= 1;
            state.waiting.push(session);
            drop(state);
            self.handed.notify_one();
            return;
        }
        drop(state);
        let shared = Arc::clone(self);
        if let Err(error) = start_thread("milter-session", move || shared.work(session)) {
            self.state.lock().unsettled -= 1;
            self.service.trouble("start a thread", &error);
        }
    }

    fn work(&self, first: V::Session) {
        let mut scratch = Default::default();
        let mut session = Some(first);
        while let Some(current) = session {
            if self.serve(current, &mut scratch) == Next::Exit {
                return;
            }
            session = self.next();
        }
    }

    /// Waits for another session, but not forever.
    fn next(&self) -> Option<V::Session> {
        let mut state = self.state.lock();
        state.idle += 1;
        let retirement = Instant::now() + RETIREMENT;
        loop {
            if let Some(session) = state.waiting.pop() {
                return Some(session);
            }
            if state.stopping || self.handed.wait_until(&mut state, retirement).timed_out() {
                // Whoever handed a session over has counted its thread as no longer idle.
                return state.waiting.pop().or_else(|| {
                    state.idle -= 1;
                    None
                });
            }
        }
    }

    /// Serves a session until it is over, and says how it ended.
    fn serve(&self, mut session: V::Session, scratch: &mut <V::Session as Session>::Scratch) -> Next {
        let stop = (self.service.stop_descriptor(), Interest::Read);
        let mut in_message = false;
        let mut settled = false;
        loop {
            let connection = (session.connection(), Interest::Read);
            let ready = if settled {
                poll::wait([connection], self.service.timeout()).map(|[readable]| [readable, false])
            } else {
                poll::wait([connection, stop], self.service.timeout())
            };
            self.begin_step(in_message);
            let was_settled = settled;
            let next = match ready {
                Ok([_, true]) => {
                    settled = true;
                    serve_the_rest(&mut session, scratch)
                }
                Ok([true, _]) => session.serve(scratch, &mut (), false),
                _ => session.expire(&mut ()),
            };
            if next.is_over() {
                drop(session);
                self.end_step(false, !was_settled);
                return next;
            }
            in_message = session.in_message();
            self.end_step(in_message, settled && !was_settled);
        }
    }

    fn begin_step(&self, in_message: bool) {
        if !in_message {
            self.state.lock().unfinished += 1;
        }
    }

    /// `settles` says that the session was not settled before, and is now or is over.
    fn end_step(&self, in_message: bool, settles: bool) {
        if in_message && !settles {
            return;
        }
        let mut state = self.state.lock();
        state.unfinished -= usize::from(!in_message);
        state.unsettled -= usize::from(settles);
        if state.stopping {
            self.finished.notify_all();
        }
    }

    fn drain(&self) {
        let deadline = Instant::now() + self.service.drain();
        let mut state = self.state.lock();
        state.stopping = true;
        self.handed.notify_all();
        let quiet = |state: &State<_>| state.unfinished == 0 && state.unsettled == 0;
        while !quiet(&state) && !self.finished.wait_until(&mut state, deadline).timed_out() {}
    }
}
