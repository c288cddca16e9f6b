//! A thread for each connection, for its whole life. Threads are used again.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::{Admission, Model, Next, PAUSE, RETIREMENT, Service, Session, start_thread};
use crate::sys::poll::{self, Interest};

/// The model `threads`.
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
    stopping: bool,
}

impl Model for Threads {
    fn run<V: Service>(service: Arc<V>, listener: OwnedFd) -> io::Result<()> {
        let shared = Arc::new(Shared {
            service,
            state: Mutex::new(State { waiting: Vec::new(), idle: 0, unfinished: 0, stopping: false }),
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
                Admission::Session(session) => self.hand(session),
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
            self.service.trouble("start a thread", &error);
        }
    }

    fn work(&self, first: V::Session) {
        let mut scratch = Default::default();
        let mut session = Some(first);
        while let Some(current) = session {
            self.serve(current, &mut scratch);
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

    fn serve(&self, mut session: V::Session, scratch: &mut <V::Session as Session>::Scratch) {
        let mut in_message = false;
        loop {
            let ready = poll::wait([(session.connection(), Interest::Read)], self.service.timeout());
            self.begin_step(in_message);
            let next = match ready {
                Ok([true]) => session.serve(scratch, false),
                _ => {
                    session.expire();
                    Next::End
                }
            };
            in_message = next != Next::End && session.in_message();
            if next == Next::End {
                drop(session);
                return self.end_step(in_message);
            }
            self.end_step(in_message);
        }
    }

    fn begin_step(&self, in_message: bool) {
        if !in_message {
            self.state.lock().unfinished += 1;
        }
    }

    fn end_step(&self, in_message: bool) {
        if !in_message {
            let mut state = self.state.lock();
            state.unfinished -= 1;
            if state.stopping {
                self.finished.notify_all();
            }
        }
    }

    fn drain(&self) {
        let deadline = Instant::now() + self.service.drain();
        let mut state = self.state.lock();
        state.stopping = true;
        self.handed.notify_all();
        while state.unfinished > 0 && !self.finished.wait_until(&mut state, deadline).timed_out() {}
    }
}
