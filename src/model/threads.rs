//! A thread for each connection, for its whole life. Threads are used again.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{
    Admission, Model, Next, PAUSE, RETIREMENT, Service, Session, patience, serve_the_rest, sooner, start_thread,
};
use crate::sys::poll::{self, Interest};
use crate::sys::socket::Acceptor;
use crate::sys::wake::{self, Wake};

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
    /// A session has ended while no connections could be taken.
    freed: Wake,
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
    /// No connections can be taken until a session ends.
    paused: bool,
    stopping: bool,
}

impl Model for Threads {
    fn run<V: Service>(self, service: Arc<V>, listeners: Vec<Acceptor>) -> io::Result<()> {
        let shared = Arc::new(Shared {
            service,
            state: Mutex::new(State {
                waiting: Vec::new(),
                idle: 0,
                unfinished: 0,
                unsettled: 0,
                paused: false,
                stopping: false,
            }),
            handed: Condvar::new(),
            finished: Condvar::new(),
            freed: Wake::new()?,
        });
        let outcome = shared.accept(&listeners);
        drop(listeners);
        shared.drain();
        outcome
    }
}

impl<V: Service> Shared<V> {
    fn accept(self: &Arc<Self>, listeners: &[Acceptor]) -> io::Result<()> {
        let stop = self.service.stop_descriptor();
        while !self.service.stopping() {
            let pause = self.take(listeners);
            let limit = self.service.turn();
            if pause {
                self.state.lock().paused = true;
                poll::wait_for_any([self.freed.as_fd(), stop], sooner(limit, Some(PAUSE)))?;
                self.state.lock().paused = false;
                self.freed.clear();
            } else {
                poll::wait_for_any(listeners.iter().map(Acceptor::as_fd).chain([stop]), limit)?;
            }
        }
        Ok(())
    }

    /// Takes all connections that wait; true if a pause is due before the next.
    fn take(self: &Arc<Self>, listeners: &[Acceptor]) -> bool {
        let mut pause = false;
        for listener in listeners {
            while !self.service.stopping() {
                match self.service.admit(listener) {
                    Admission::Taken(session) => self.hand(session),
                    Admission::Again => {}
                    Admission::Empty => break,
                    Admission::Pause => {
                        pause = true;
                        break;
                    }
                }
            }
        }
        pause
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
        let began = Instant::now();
        loop {
            let connection = (session.connection(), Interest::Read);
            let limit = patience(&*self.service, &session, began);
            let ready = match limit {
                Some(Duration::ZERO) => Ok([false, false]),
                _ if settled => poll::wait([connection], limit).map(|[readable]| [readable, false]),
                _ => poll::wait([connection, stop], limit),
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
                if self.state.lock().paused {
                    wake::call(self.freed.number());
                }
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
