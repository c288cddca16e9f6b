//! An event loop that runs callbacks in line, and hands itself to another thread as soon as a callback blocks.
//!
//! # Who does what
//!
//! A *leader* waits for events and serves ready sessions one after another, callbacks included. Usually there is one;
//! while it is quick, no other thread wakes up. The *manager* is the thread that runs [`Model::run`], and after that one
//! that looks after the sessions that are left; it never runs a callback. It looks at the clock: a leader that has been
//! in one step for longer than the delay is *detached*, which means that it goes on with that one session only, and
//! another thread is made leader in its place. So a callback that blocks delays the other sessions by the delay and never
//! by its own duration. When the detached thread comes back it leads again if nobody else does, or *parks*, ready to be
//! the next leader.
//!
//! # Who holds what
//!
//! One mutex guards [`State`]. It is never held over a callback, a wait or a write. A session is a value: it lies in its
//! slot while idle, and whoever serves it has taken it out, so no two threads can serve one session. Sessions are
//! registered once for edges; an edge for a session that is out of its slot is noted in the slot, and the session gets
//! another step when it comes back. Slots are numbered and count generations, so an event that was fetched before its
//! session ended means nothing to the next session in the slot.

mod habits;
mod slots;
mod state;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use self::habits::Habit;
use self::state::{DISSOLVE, Done, Errands, Job, LISTENERS, NUDGE, State, Then, Turn};
use super::{
    Admission, Model, Next, PAUSE, Pace, RETIREMENT, Service, Session, pause_after, sooner, start_thread, wait_out,
};
use crate::sys::epoll::{Epoll, Events};
use crate::sys::poll::{self, Interest};
use crate::sys::process;
use crate::sys::socket::Acceptor;
use crate::sys::thread::JoinHandle;
use crate::sys::timer::Timer;
use crate::sys::wake::{self, Wake};

/// Connections taken before other sessions get their turn.
const ADMISSIONS: usize = 64;

/// The model `pool`.
#[derive(Default)]
pub(crate) struct Pool;

struct Shared<V: Service> {
    service: Arc<V>,
    epoll: Epoll,
    /// Wakes the manager.
    timer: Timer,
    /// Wakes whoever waits for events, when the pool is dissolved.
    dissolve: Wake,
    /// Wakes one that waits for events.
    nudge: Wake,
    /// By kind of callback.
    habits: Box<[Habit]>,
    state: Mutex<State<V::Session>>,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    started: u64,
    handles: Vec<JoinHandle<()>>,
}

/// What a thread is after a step.
struct After {
    leads: bool,
    /// It has to end.
    exit: bool,
}

type Guard<'a, V> = MutexGuard<'a, State<<V as Service>::Session>>;

impl Model for Pool {
    fn run<V: Service>(self, service: Arc<V>, listeners: Vec<Acceptor>) -> io::Result<()> {
        let epoll = Epoll::new()?;
        let dissolve = Wake::new()?;
        epoll.add_level(dissolve.as_fd(), DISSOLVE)?;
        let nudge = Wake::new()?;
        // Never read: each call is an edge.
        epoll.add_edge(nudge.as_fd(), NUDGE)?;
        for listener in &listeners {
            epoll.add_edge(listener.as_fd(), LISTENERS)?;
        }
        let shared = Arc::new(Shared {
            epoll,
            dissolve,
            nudge,
            timer: Timer::new()?,
            state: Mutex::new(State::new(listeners, process::processors(), service.threads())),
            threads: Mutex::default(),
            habits: (0..V::Session::KINDS).map(|_| Habit::default()).collect(),
            service,
        });
        let outcome = shared.manage();
        shared.stop_listening();
        let drained = shared.drain();
        shared.take_leave();
        outcome.and(drained)
    }
}

impl<V: Service> Shared<V> {
    // ---- the threads

    /// Does what a decision asks for. The caller has released the mutex.
    fn run_errands(self: &Arc<Self>, errands: Errands) {
        if let Some(delay) = errands.timer {
            self.timer.set(delay);
        }
        if errands.nudge {
            wake::call(self.nudge.number());
        }
        if errands.start {
            self.start();
        }
    }

    /// Starts a thread for a role that has been taken.
    fn start(self: &Arc<Self>) {
        let mut threads = self.threads.lock();
        threads.handles.retain(|handle| !handle.is_finished());
        threads.started += 1;
        let thread = threads.started;
        let room = threads.handles.try_reserve(1);
        drop(threads);
        let shared = Arc::clone(self);
        match room.map_err(io::Error::from).and_then(|()| start_thread(c"milter-pool", move || shared.work(thread))) {
            Ok(handle) => self.threads.lock().handles.push(handle),
            Err(error) => {
                self.service.trouble("start a thread", &error);
                let mut state = self.state.lock();
                state.forget_leader();
                // The manager tries again.
                self.timer.set(state.look_in(PAUSE));
            }
        }
    }

    /// The life of a thread: it begins as a leader.
    fn work(self: &Arc<Self>, thread: u64) {
        let engaged = Arc::new(Condvar::new());
        let mut events = Events::new();
        let mut scratch = Default::default();
        let mut state = self.state.lock();
        loop {
            let Some(free) = self.lead(state, thread, &mut events, &mut scratch) else { return };
            state = free;
            if state.dissolved || !Self::park(&mut state, thread, &engaged) {
                return;
            }
        }
    }

    /// Leads until there is nothing to do, or until detached; `None` when the thread has to end.
    fn lead<'a>(
        self: &'a Arc<Self>,
        mut state: Guard<'a, V>,
        thread: u64,
        events: &mut Events,
        scratch: &mut <V::Session as Session>::Scratch,
    ) -> Option<Guard<'a, V>> {
        let mut fetched = false;
        loop {
            match state.turn(fetched) {
                Turn::Run(job) => {
                    let after;
                    (state, after) = self.step(state, thread, job, scratch);
                    match after {
                        After { exit: true, leads } => {
                            let errands = state.exit(leads);
                            drop(state);
                            self.run_errands(errands);
                            return None;
                        }
                        After { leads: false, .. } if !state.rejoin() => return Some(state),
                        After { .. } => fetched = false,
                    }
                }
                Turn::Poll { wait } => {
                    state = self.poll(state, events, wait);
                    fetched = true;
                }
                Turn::Leave => return Some(state),
            }
        }
    }

    /// Waits to be made leader again; false when nobody has done so for a while.
    fn park(state: &mut Guard<'_, V>, thread: u64, engaged: &Arc<Condvar>) -> bool {
        let retirement = Instant::now() + RETIREMENT;
        state.park(thread, engaged);
        loop {
            let timed_out = engaged.wait_until(state, retirement).timed_out();
            if !state.is_parked(thread) {
                return true;
            }
            if timed_out || state.dissolved {
                state.retire(thread);
                return false;
            }
        }
    }

    /// Fetches events and makes ready what they are for; `wait` says to wait for some.
    fn poll<'a>(self: &'a Arc<Self>, mut state: Guard<'a, V>, events: &mut Events, wait: bool) -> Guard<'a, V> {
        let (timeout, introduction) = (self.service.timeout(), self.service.introduction());
        // A session that falls silent, or comes, meanwhile cannot expire before a whole timeout has passed.
        let left = |timeout: Duration, since: Option<Instant>| match since {
            Some(since) => (since + timeout).saturating_duration_since(Instant::now()),
            None => timeout,
        };
        let silence = timeout.map(|timeout| left(timeout, state.slots.silent_since()));
        let strangeness = introduction.map(|timeout| left(timeout, state.stranger_since()));
        state.begin_poll();
        drop(state);
        let turn = self.service.turn();
        let limit = if wait { sooner(turn, sooner(silence, strangeness)) } else { Some(Duration::ZERO) };
        let events = self.epoll.wait(events, limit);
        let lost = events.as_ref().err().filter(|error| !pause_after(&*self.service, error));
        let is_deaf = lost.inspect(|error| self.service.broken(error)).is_some();
        let now = Instant::now();
        let mut state = self.state.lock();
        state.end_poll();
        match events {
            Ok(events) => events.for_each(|event| state.note(event.token, event.hang_up)),
            Err(_) if is_deaf => state.go_deaf(now),
            Err(_) => {}
        }
        if let Some(timeout) = timeout {
            state.expire(now, timeout);
        }
        if let Some(timeout) = introduction {
            state.expire_strangers(now, timeout);
        }
        state
    }

    /// Does one job.
    fn step<'a>(
        self: &'a Arc<Self>,
        mut state: Guard<'a, V>,
        thread: u64,
        job: Job<V::Session>,
        scratch: &mut <V::Session as Session>::Scratch,
    ) -> (Guard<'a, V>, After) {
        let started = Instant::now();
        let errands = state.enter_step(thread, started);
        drop(state);
        self.run_errands(errands);
        let mut pace = InLine { shared: self, thread, began: started, busy: None, switches: None };
        let done = self.run(job, scratch, &mut pace);
        let exit = matches!(done, Done::Over { exit: true, .. });
        let busy = pace.busy;
        // Sending the replies may have taken its time.
        let now = Instant::now();
        let mut state = self.state.lock();
        state.end(done, now);
        let leads = state.leave_step(thread, busy, now);
        if state.is_stopping() {
            self.close_listeners(&mut state);
            if state.is_quiet() || state.slots.sessions() == 0 {
                self.timer.set(state.look_in(Duration::ZERO));
            }
        } else if matches!(state.listeners, state::Listeners::Paused(..))
            && let Some(delay) = state.next_look(now)
        {
            self.timer.set(delay);
        }
        (state, After { leads, exit })
    }

    fn run(
        &self,
        job: Job<V::Session>,
        scratch: &mut <V::Session as Session>::Scratch,
        pace: &mut InLine<'_, V>,
    ) -> Done<V::Session> {
        match job {
            Job::Serve { token, mut session, hang_up, .. } => match session.serve(scratch, pace, hang_up) {
                // Dropped here, without the mutex: that closes the connection and takes it out of the set.
                next if next.is_over() => Done::Over { token, exit: next == Next::Exit },
                next => Done::Served { token, session, hang_up, next },
            },
            Job::Expire { token, mut session } => Done::Over { token, exit: session.expire(pace) == Next::Exit },
            Job::Admit(listeners) => {
                let then = listeners.iter().map(|listener| self.admit(listener)).max().unwrap_or(Then::Wait);
                Done::Admitted { listeners, then }
            }
        }
    }

    fn admit(&self, listener: &Acceptor) -> Then {
        for _ in 0..ADMISSIONS {
            if self.service.stopping() {
                break;
            }
            if self.state.lock().make_room().is_err() {
                self.service.exhausted(&io::ErrorKind::OutOfMemory.into());
                return Then::Pause;
            }
            match self.service.admit(listener) {
                Admission::Taken(session) => self.take_in(session),
                Admission::Again => {}
                Admission::Empty => return Then::Wait,
                Admission::Pause => return Then::Pause,
            }
        }
        Then::GoOn
    }

    fn take_in(&self, session: V::Session) {
        let token = self.state.lock().reserve(self.service.introduction().map(|_| Instant::now()));
        let done = match self.epoll.add_edge(session.connection(), token.into()) {
            Ok(()) => Done::Served { token, session, hang_up: false, next: Next::Wait },
            Err(error) => {
                self.service.trouble("watch a connection", &error);
                drop(session);
                Done::Over { token, exit: false }
            }
        };
        self.state.lock().end(done, Instant::now());
    }

    // ---- the manager

    /// Looks after the leaders until the service is to stop.
    fn manage(self: &Arc<Self>) -> io::Result<()> {
        self.look_after();
        while !self.service.stopping() {
            let stop = (self.service.stop_descriptor(), Interest::Read);
            // Unlike an epoll set, poll keeps alive what it waits for: where a filter has closed descriptors that are not
            // its own, the timer still expires once more, and the manager learns that nothing can be served.
            let ready = poll::wait([(self.timer.as_fd(), Interest::Read), stop], None);
            if let [true, _] = wait_out(&*self.service, ready)? {
                self.look_after();
            }
        }
        Ok(())
    }

    /// Looks after the leaders until no callback runs and no message is in progress, but not for ever.
    fn drain(self: &Arc<Self>) -> io::Result<()> {
        let deadline = Instant::now() + self.service.drain();
        while !self.state.lock().is_quiet() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let ready = poll::wait([(self.timer.as_fd(), Interest::Read)], Some(left));
            if let [true] = wait_out(&*self.service, ready)? {
                self.look_after();
            }
        }
        Ok(())
    }

    fn look_after(self: &Arc<Self>) {
        self.timer.clear();
        let errands = self.state.lock().look_after(Instant::now());
        self.run_errands(errands);
    }

    fn stop_listening(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.stop(Instant::now());
        self.close_listeners(&mut state);
        drop(state);
        self.look_after();
    }

    /// Closes the listeners; while a leader takes connections that is left to the end of its step.
    fn close_listeners(&self, state: &mut Guard<'_, V>) {
        for listener in state.take_listeners() {
            // The program may have another descriptor for the socket, so closing ours is not enough.
            let _ = self.epoll.remove(listener.as_fd());
        }
    }

    /// Leaves the pool to itself: it is dissolved when its last session has ended.
    fn take_leave(self: &Arc<Self>) {
        if self.state.lock().slots.sessions() == 0 {
            return self.dissolve();
        }
        let shared = Arc::clone(self);
        let caretaker = move || {
            while shared.state.lock().slots.sessions() > 0
                && wait_out(&*shared.service, poll::wait([(shared.timer.as_fd(), Interest::Read)], None)).is_ok()
            {
                shared.look_after();
            }
            shared.dissolve();
        };
        if let Err(error) = start_thread(c"milter-manager", caretaker) {
            self.service.trouble("start a thread for the sessions that are left", &error);
        }
    }

    fn dissolve(&self) {
        self.state.lock().dissolve();
        wake::call(self.dissolve.number());
        loop {
            let handle = self.threads.lock().handles.pop();
            match handle {
                // A thread cannot end with an error: what could panic in it is caught by the session.
                Some(handle) => drop(handle.join()),
                None => return,
            }
        }
    }
}

/// Follows the callbacks of one step.
struct InLine<'a, V: Service> {
    shared: &'a Arc<Shared<V>>,
    thread: u64,
    /// When the callback began.
    began: Instant,
    /// How long the callbacks took so far, if there were any.
    busy: Option<Duration>,
    /// How often the thread had gone to sleep before the callback, where that is of interest.
    switches: Option<i64>,
}

impl<V: Service> Pace for InLine<'_, V> {
    fn begin(&mut self, kind: usize) {
        let habit = &self.shared.habits[kind];
        if habit.blocks() {
            let errands = self.shared.state.lock().hand_over(self.thread);
            self.shared.run_errands(errands);
        }
        self.switches = habit.is_long().then(process::voluntary_switches);
        self.began = Instant::now();
    }

    fn end(&mut self, kind: usize) {
        let duration = self.began.elapsed();
        let slept = self.switches.take().is_some_and(|before| process::voluntary_switches() > before);
        self.shared.habits[kind].note(duration, slept);
        self.busy = Some(self.busy.unwrap_or_default() + duration);
    }
}
