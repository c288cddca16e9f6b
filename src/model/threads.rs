//! A thread for each connection, for its whole life. Threads are used again.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{
    Admission, Model, Next, PAUSE, RETIREMENT, Service, Session, patience, serve_the_rest, sooner, start_thread,
    wait_out, wait_out_for_session,
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
    /// A session has ended, or one that waited has its thread, while no connections could be taken.
    freed: Wake,
}

struct State<S> {
    /// Sessions without a thread; more than `idle` only while no thread can be started.
    waiting: VecDeque<S>,
    /// Threads without a session, also those that are about to take one.
    idle: usize,
    /// Idle threads that stay for a session that is about to be taken.
    reserved: usize,
    /// Sessions in a step or in a message.
    unfinished: usize,
    /// Sessions that have not served, since the stop, what they had received before: a peer that has said its last word
    /// is not merely open.
    unsettled: usize,
    /// No connections can be taken until a session ends.
    paused: bool,
    stopping: bool,
}

impl<S> State<S> {
    fn new() -> Self {
        State {
            waiting: VecDeque::new(),
            idle: 0,
            reserved: 0,
            unfinished: 0,
            unsettled: 0,
            paused: false,
            stopping: false,
        }
    }

    /// Whether a stop has nothing to wait for.
    fn is_quiet(&self) -> bool {
        self.unfinished == 0 && self.unsettled == 0
    }
}

impl Model for Threads {
    fn run<V: Service>(self, service: Arc<V>, listeners: Vec<Acceptor>) -> io::Result<()> {
        let shared = Arc::new(Shared {
            service,
            state: Mutex::new(State::new()),
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
        let mut pause = false;
        while !self.service.stopping() {
            let limit = self.service.turn();
            if pause {
                self.state.lock().paused = true;
                let free = poll::wait_for_any([self.freed.as_fd(), stop], sooner(limit, Some(PAUSE)));
                wait_out(&*self.service, free)?;
                self.state.lock().paused = false;
                self.freed.clear();
            } else {
                let ready = poll::wait_for_any(listeners.iter().map(Acceptor::as_fd).chain([stop]), limit);
                wait_out(&*self.service, ready)?;
            }
            pause = self.take(listeners);
        }
        Ok(())
    }

    /// Takes all connections that wait; true if a pause is due before the next.
    fn take(self: &Arc<Self>, listeners: &[Acceptor]) -> bool {
        if !self.staff() {
            return true;
        }
        let mut pause = false;
        for listener in listeners {
            while !self.service.stopping() {
                if self.state.lock().waiting.try_reserve(1).is_err() {
                    self.service.exhausted(&io::ErrorKind::OutOfMemory.into());
                    return true;
                }
                if V::HAS_PEERS && !self.reserve() {
                    return true;
                }
                let admission = self.service.admit(listener);
                if V::HAS_PEERS && !matches!(admission, Admission::Taken(_)) {
                    self.state.lock().reserved = 0;
                }
                match admission {
                    Admission::Taken(session) => {
                        if !self.hand(session) {
                            return true;
                        }
                        if V::HAS_PEERS {
                            // Seldom is there another one, and a thread would be started to find out.
                            break;
                        }
                    }
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

    /// Sees to it that there is a thread for the next session; false if that is not possible.
    fn reserve(self: &Arc<Self>) -> bool {
        self.state.lock().reserved = 1;
        let done = self.staff();
        if !done {
            self.state.lock().reserved = 0;
        }
        done
    }

    /// Gives a session to a thread that has none, or to a new one; false if it has to wait for one.
    fn hand(self: &Arc<Self>, session: V::Session) -> bool {
        let mut state = self.state.lock();
        state.reserved = 0;
        state.unsettled += 1;
        state.waiting.push_back(session);
        drop(state);
        self.handed.notify_one();
        self.staff()
    }

    /// Starts threads until there is one for each session that waits or is to come; false if that is not possible. A session that is left
    /// is for the next thread that is free.
    fn staff(self: &Arc<Self>) -> bool {
        loop {
            let mut state = self.state.lock();
            if state.waiting.len() + state.reserved <= state.idle {
                return true;
            }
            state.idle += 1;
            drop(state);
            let shared = Arc::clone(self);
            if let Err(error) = start_thread(c"milter-session", move || shared.work()) {
                self.state.lock().idle -= 1;
                self.service.trouble("start a thread for a session, which waits", &error);
                return false;
            }
        }
    }

    /// The life of a thread: it begins without a session.
    fn work(&self) {
        let mut scratch = Default::default();
        while let Some(session) = self.next() {
            if self.serve(session, &mut scratch) == Next::Exit {
                return;
            }
            self.state.lock().idle += 1;
        }
    }

    /// Waits for a session, but not forever.
    fn next(&self) -> Option<V::Session> {
        let mut retirement = Instant::now() + RETIREMENT;
        let mut state = self.state.lock();
        while state.waiting.is_empty() && !state.stopping {
            if self.handed.wait_until(&mut state, retirement).timed_out() {
                if state.idle > state.reserved {
                    break;
                }
                retirement = Instant::now() + RETIREMENT;
            }
        }
        state.idle -= 1;
        let session = state.waiting.pop_front();
        if state.paused && session.is_some() {
            wake::call(self.freed.number());
        }
        session
    }

    /// Serves a session until it is over, and says how it ended.
    fn serve(&self, mut session: V::Session, scratch: &mut <V::Session as Session>::Scratch) -> Next {
        let stop = (self.service.stop_descriptor(), Interest::Read);
        let mut in_message = false;
        let mut settled = false;
        let mut failed = 0;
        let began = Instant::now();
        loop {
            let connection = (session.connection(), Interest::Read);
            let limit = patience(&*self.service, &session, began);
            let ready = match limit {
                Some(Duration::ZERO) => Ok([false, false]),
                _ if settled => poll::wait([connection], limit).map(|[readable]| [readable, false]),
                _ => poll::wait([connection, stop], limit),
            };
            let ready = match wait_out_for_session(&*self.service, ready, &mut failed) {
                Ok(Some(ready)) => Ok(ready),
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            self.begin_step(in_message);
            let was_settled = settled;
            let next = match ready {
                Ok([_, true]) => {
                    settled = true;
                    serve_the_rest(&mut session, scratch)
                }
                Ok([true, _]) => session.serve(scratch, &mut (), false),
                Ok(_) => session.expire(&mut ()),
                Err(error) => session.fail(&error, &mut ()),
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

    fn drain(self: &Arc<Self>) {
        let deadline = Instant::now() + self.service.drain();
        self.state.lock().stopping = true;
        self.handed.notify_all();
        loop {
            let limit = if self.staff() { deadline } else { deadline.min(Instant::now() + PAUSE) };
            let mut state = self.state.lock();
            while !state.is_quiet() && !self.finished.wait_until(&mut state, limit).timed_out() {}
            if state.is_quiet() || Instant::now() >= deadline {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_waits_for_callbacks_and_messages_and_for_what_has_been_received() {
        let state = State::<()>::new();
        assert!(state.is_quiet());
        assert!(!State { unfinished: 1, ..State::<()>::new() }.is_quiet());
        assert!(!State { unsettled: 1, ..state }.is_quiet());
    }
}
