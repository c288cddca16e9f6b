//! An event loop that runs callbacks in line, and hands itself to another thread as soon as a callback blocks.
//!
//! # Who does what
//!
//! A *leader* waits for events and serves ready sessions one after another, callbacks included. Usually there is one;
//! while it is quick, no other thread wakes up. The *manager* is the thread that runs [`Model::run`]; it never runs a
//! callback. It looks at the clock: a leader that has been in one step for longer than the delay is *detached*, which
//! means that it goes on with that one session only, and another thread is made leader in its place. So a callback that
//! blocks delays the other sessions by the delay and never by its own duration. When the detached thread comes back it
//! leads again if nobody else does, or *parks*, ready to be the next leader.
//!
//! # Who holds what
//!
//! One mutex guards [`State`]. It is never held over a callback, a wait or a write. A session is a value: it lies in its
//! slot while idle, and whoever serves it has taken it out, so no two threads can serve one session. Sessions are
//! registered once for edges; an edge for a session that is out of its slot is noted in the slot, and the session gets
//! another step when it comes back. Slots are numbered and count generations, so an event that was fetched before its
//! session ended means nothing to the next session in the slot.

mod slots;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use self::slots::{Slots, Token};
use super::{Admission, Model, Next, PAUSE, RETIREMENT, Service, Session, start_thread};
use crate::sys::epoll::{Epoll, Events};
use crate::sys::poll::{self, Interest};
use crate::sys::timer::Timer;
use crate::sys::wake::{self, Wake};

/// How long a step may last before its leader is detached, while callbacks are quick.
const PATIENCE: Duration = Duration::from_millis(1);

/// The same after a callback has blocked: others are likely to.
const IMPATIENCE: Duration = Duration::from_micros(200);

/// How long the shorter delay stays in force.
const ALERT: Duration = Duration::from_millis(200);

/// Work that waits for longer than this is worth another thread.
const BACKLOG: Duration = Duration::from_micros(100);

/// With steps of this length it pays to have somebody wait for events while everybody else is in a step.
const LONG_STEP: Duration = Duration::from_micros(60);

/// Connections taken before other sessions get their turn.
const ADMISSIONS: usize = 64;

/// The model `pool`.
pub(crate) struct Pool;

struct Shared<V: Service> {
    service: Arc<V>,
    epoll: Epoll,
    /// Wakes the manager.
    timer: Timer,
    /// Wakes whoever waits for events, when the pool is dissolved.
    dissolve: Wake,
    /// Leaders at most: as many as can run at once.
    processors: usize,
    state: Mutex<State<V::Session>>,
}

type Guard<'a, V> = MutexGuard<'a, State<<V as Service>::Session>>;

struct State<S> {
    slots: Slots<S>,
    ready: VecDeque<Job<S>>,
    listener: Listener,
    /// Leaders, whether in a step or waiting for events.
    leaders: usize,
    /// Leaders waiting for events.
    pollers: usize,
    /// The steps that leaders are in.
    steps: Vec<Step>,
    parked: Vec<Parked>,
    threads: Threads,
    /// The manager's timer is set.
    watched: bool,
    /// Until when the shorter delay is in force.
    alert_until: Option<Instant>,
    /// Mean duration of a step.
    mean_step: Duration,
    /// Sessions in a step or in a message.
    unfinished: usize,
    stopping: bool,
    dissolved: bool,
}

/// Something to do for a leader.
enum Job<S> {
    Serve { token: Token, session: S, hang_up: bool },
    Expire { token: Token, session: S },
    Admit(OwnedFd),
}

/// What came of a job.
enum Done<S> {
    Served { token: Token, session: S, hang_up: bool, next: Next },
    Over(Token),
    Admitted { listener: OwnedFd, then: Then },
}

/// What to do with a listener after connections were taken from it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Wait,
    GoOn,
    Pause,
}

enum Listener {
    /// Waiting for an edge.
    Idle(OwnedFd),
    /// A leader takes connections; `again` says that an edge came meanwhile.
    Busy {
        again: bool,
    },
    /// Left alone until the time given.
    Paused(OwnedFd, Instant),
    Closed,
}

struct Step {
    thread: u64,
    since: Instant,
}

struct Parked {
    thread: u64,
    engaged: Arc<Condvar>,
}

#[derive(Default)]
struct Threads {
    started: u64,
    handles: Vec<JoinHandle<()>>,
}

/// What events are reported with besides the tokens of sessions.
const LISTENER: u64 = u64::MAX;
const DISSOLVE: u64 = u64::MAX - 1;

impl Model for Pool {
    fn run<V: Service>(service: Arc<V>, listener: OwnedFd) -> io::Result<()> {
        let shared = Arc::new(Shared {
            epoll: Epoll::new()?,
            timer: Timer::new()?,
            dissolve: Wake::new()?,
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            state: Mutex::new(State::new()),
            service,
        });
        shared.epoll.add_level(shared.dissolve.as_fd(), DISSOLVE)?;
        shared.epoll.add_edge(listener.as_fd(), LISTENER)?;
        shared.state.lock().listener = Listener::Idle(listener);
        let outcome = shared.manage();
        shared.take_leave();
        outcome
    }
}

impl<S: Session> State<S> {
    fn new() -> Self {
        State {
            slots: Slots::new(),
            ready: VecDeque::new(),
            listener: Listener::Closed,
            leaders: 0,
            pollers: 0,
            steps: Vec::new(),
            parked: Vec::new(),
            threads: Threads::default(),
            watched: false,
            alert_until: None,
            mean_step: Duration::ZERO,
            unfinished: 0,
            stopping: false,
            dissolved: false,
        }
    }

    /// Takes note of an event: what was idle becomes ready, what is in a step gets another one.
    fn note(&mut self, token: u64, hang_up: bool) {
        if token == LISTENER {
            self.note_connection();
        } else if token != DISSOLVE
            && let Some(session) = self.slots.claim(Token::from(token), hang_up)
        {
            self.begin(&session);
            self.ready.push_back(Job::Serve { token: Token::from(token), session, hang_up });
        }
    }

    fn note_connection(&mut self) {
        self.listener = match std::mem::replace(&mut self.listener, Listener::Closed) {
            Listener::Idle(listener) => {
                self.ready.push_back(Job::Admit(listener));
                Listener::Busy { again: false }
            }
            Listener::Busy { .. } => Listener::Busy { again: true },
            other => other,
        };
    }

    /// Has sessions expire that have been silent for too long.
    fn expire(&mut self, now: Instant, timeout: Duration) {
        while let Some((token, session)) = self.slots.claim_expired(now, timeout) {
            self.begin(&session);
            self.ready.push_back(Job::Expire { token, session });
        }
    }

    fn begin(&mut self, session: &S) {
        if !session.in_message() {
            self.unfinished += 1;
        }
    }

    /// Takes back what a job was about.
    fn end(&mut self, done: Done<S>, now: Instant) {
        match done {
            Done::Over(token) => {
                self.slots.free(token);
                self.unfinished -= 1;
            }
            Done::Served { token, session, hang_up, next } => match (self.slots.take_news(token), next) {
                (None, Next::Wait) => {
                    if !session.in_message() {
                        self.unfinished -= 1;
                    }
                    self.slots.put_back(token, session, now);
                }
                (news, _) => {
                    // A hang-up is told once, but it is over only when everything before it has been read.
                    let hang_up = hang_up || news.unwrap_or(false);
                    self.ready.push_back(Job::Serve { token, session, hang_up });
                }
            },
            Done::Admitted { listener, then } => {
                let again = matches!(self.listener, Listener::Busy { again: true });
                self.listener = match then {
                    _ if self.stopping => Listener::Idle(listener),
                    Then::Pause => Listener::Paused(listener, now + PAUSE),
                    Then::Wait if !again => Listener::Idle(listener),
                    Then::Wait | Then::GoOn => {
                        self.ready.push_back(Job::Admit(listener));
                        Listener::Busy { again: false }
                    }
                };
            }
        }
    }

    /// Notes how long a step took.
    fn measure(&mut self, started: Instant, now: Instant) {
        let duration = now - started;
        // How long a callback blocks says nothing about how soon the queue will be empty.
        self.mean_step = (self.mean_step * 15 + duration.min(PATIENCE)) / 16;
        if duration >= PATIENCE {
            self.alert_until = Some(now + ALERT);
        }
    }

    fn delay(&self, now: Instant) -> Duration {
        if self.alert_until.is_some_and(|until| now < until) { IMPATIENCE } else { PATIENCE }
    }

    /// Whether something waits that no leader will come to: there is none, or all of them wait for events.
    fn lacks_leader(&self, processors: usize) -> bool {
        let asleep = self.steps.is_empty();
        self.leaders == 0 || (!self.ready.is_empty() && (asleep || self.leaders < processors))
    }

    /// Whether another leader would be of use to one that has work.
    fn wants_help(&self) -> bool {
        let queue = u32::try_from(self.ready.len()).unwrap_or(u32::MAX);
        self.pollers == 0 && (self.mean_step > LONG_STEP || self.mean_step.saturating_mul(queue) > BACKLOG)
    }

    fn pollers_allowed(&self, processors: usize) -> usize {
        if self.mean_step > LONG_STEP { processors } else { 1 }
    }

    /// Makes a parked thread a leader. If there is none, the caller has to start a thread once it has released the
    /// mutex; the role is taken already.
    #[must_use]
    fn engage(&mut self) -> bool {
        self.leaders += 1;
        match self.parked.pop() {
            Some(parked) => {
                parked.engaged.notify_one();
                false
            }
            None => true,
        }
    }
}

impl<V: Service> Shared<V> {
    // ---- the threads

    /// Starts a thread for a role that [`State::engage`] has taken.
    fn start(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        let mut state = self.state.lock();
        state.threads.handles.retain(|handle| !handle.is_finished());
        state.threads.started += 1;
        let thread = state.threads.started;
        drop(state);
        match start_thread("milter-pool", move || shared.work(thread)) {
            Ok(handle) => self.state.lock().threads.handles.push(handle),
            Err(error) => {
                self.service.no_thread(&error);
                let mut state = self.state.lock();
                state.leaders -= 1;
                state.watched = true;
                drop(state);
                // The manager tries again.
                self.timer.set(PAUSE);
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
            state = self.lead(state, thread, &mut events, &mut scratch);
            if state.dissolved || !Self::park(&mut state, thread, &engaged) {
                return;
            }
        }
    }

    /// Leads until there is nothing to do, or until detached.
    fn lead<'a>(
        self: &'a Arc<Self>,
        mut state: Guard<'a, V>,
        thread: u64,
        events: &mut Events,
        scratch: &mut <V::Session as Session>::Scratch,
    ) -> Guard<'a, V> {
        while !state.dissolved {
            if let Some(job) = state.ready.pop_front() {
                let detached;
                (state, detached) = self.step(state, thread, job, scratch);
                if detached {
                    if state.dissolved || !state.lacks_leader(self.processors) {
                        return state;
                    }
                    state.leaders += 1;
                }
            } else if state.pollers < state.pollers_allowed(self.processors) {
                state = self.poll(state, events);
            } else {
                break;
            }
        }
        state.leaders -= 1;
        state
    }

    /// Waits to be made leader again; false when nobody has done so for a while.
    fn park(state: &mut Guard<'_, V>, thread: u64, engaged: &Arc<Condvar>) -> bool {
        let retirement = Instant::now() + RETIREMENT;
        state.parked.push(Parked { thread, engaged: Arc::clone(engaged) });
        loop {
            let timed_out = engaged.wait_until(state, retirement).timed_out();
            match state.parked.iter().position(|parked| parked.thread == thread) {
                None => return true,
                Some(place) if timed_out || state.dissolved => {
                    state.parked.remove(place);
                    return false;
                }
                Some(_) => {}
            }
        }
    }

    /// Waits for events and makes ready what they are for.
    fn poll<'a>(self: &'a Arc<Self>, mut state: Guard<'a, V>, events: &mut Events) -> Guard<'a, V> {
        let timeout = self.service.timeout();
        // A session that comes meanwhile cannot expire before a whole timeout has passed.
        let limit = timeout.map(|timeout| match state.slots.next_deadline() {
            Some(deadline) => deadline.saturating_duration_since(Instant::now()),
            None => timeout,
        });
        state.pollers += 1;
        drop(state);
        let events = self.epoll.wait(events, limit);
        let mut state = self.state.lock();
        state.pollers -= 1;
        match events {
            Ok(events) => events.for_each(|event| state.note(event.token, event.hang_up)),
            Err(error) => {
                self.service.broken(&error);
                state.dissolved = true;
            }
        }
        if let Some(timeout) = timeout {
            state.expire(Instant::now(), timeout);
        }
        state
    }

    /// Does one job. Says whether the thread was detached meanwhile.
    fn step<'a>(
        self: &'a Arc<Self>,
        mut state: Guard<'a, V>,
        thread: u64,
        job: Job<V::Session>,
        scratch: &mut <V::Session as Session>::Scratch,
    ) -> (Guard<'a, V>, bool) {
        let started = Instant::now();
        state.steps.push(Step { thread, since: started });
        let watched = std::mem::replace(&mut state.watched, true);
        let delay = state.delay(started);
        let start = state.leaders < self.processors && state.wants_help() && state.engage();
        drop(state);
        if !watched {
            self.timer.set(delay);
        }
        if start {
            self.start();
        }
        let done = self.run(job, scratch);
        let now = Instant::now();
        let mut state = self.state.lock();
        state.measure(started, now);
        state.end(done, now);
        if state.stopping {
            self.close_listener(&mut state);
            if state.unfinished == 0 || state.slots.sessions() == 0 {
                self.timer.set(Duration::ZERO);
            }
        }
        match state.steps.iter().position(|step| step.thread == thread) {
            Some(place) => {
                state.steps.swap_remove(place);
                (state, false)
            }
            None => (state, true),
        }
    }

    fn run(&self, job: Job<V::Session>, scratch: &mut <V::Session as Session>::Scratch) -> Done<V::Session> {
        match job {
            Job::Serve { token, mut session, hang_up } => match session.serve(scratch, hang_up) {
                // Dropped here, without the mutex: that closes the connection and takes it out of the set.
                Next::End => Done::Over(token),
                next => Done::Served { token, session, hang_up, next },
            },
            Job::Expire { token, mut session } => {
                session.expire();
                Done::Over(token)
            }
            Job::Admit(listener) => {
                let then = self.admit(&listener);
                Done::Admitted { listener, then }
            }
        }
    }

    fn admit(&self, listener: &OwnedFd) -> Then {
        for _ in 0..ADMISSIONS {
            if self.service.stopping() {
                break;
            }
            match self.service.admit(listener.as_fd()) {
                Admission::Session(session) => self.take_in(session),
                Admission::Again => {}
                Admission::Empty => return Then::Wait,
                Admission::Pause => return Then::Pause,
            }
        }
        Then::GoOn
    }

    /// Gives a new session its slot. It counts as in a step until it is registered, so that nothing happens to it.
    fn take_in(&self, session: V::Session) {
        let mut state = self.state.lock();
        state.unfinished += 1;
        let token = state.slots.reserve(Instant::now(), self.service.timeout());
        drop(state);
        let done = match self.epoll.add_edge(session.connection(), token.into()) {
            Ok(()) => Done::Served { token, session, hang_up: false, next: Next::Wait },
            Err(error) => {
                self.service.broken_session(&error);
                drop(session);
                Done::Over(token)
            }
        };
        self.state.lock().end(done, Instant::now());
    }

    // ---- the manager

    /// Looks after the leaders until the service is to stop, then until there is nothing left to wait for.
    fn manage(self: &Arc<Self>) -> io::Result<()> {
        self.watch();
        while !self.service.stopping() {
            let stop = (self.service.stop_descriptor(), Interest::Read);
            let [expired, _] = poll::wait([(self.timer.as_fd(), Interest::Read), stop], None)?;
            if expired {
                self.watch();
            }
        }
        self.stop_listening();
        let deadline = Instant::now() + self.service.drain();
        while self.state.lock().unfinished > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if let [true] = poll::wait([(self.timer.as_fd(), Interest::Read)], Some(left))? {
                self.watch();
            }
        }
        Ok(())
    }

    /// Detaches leaders that are in one step for too long, and sees that somebody leads and that the listener comes
    /// back after a pause. Sets the timer for the next look if there is anything to look at.
    fn watch(self: &Arc<Self>) {
        self.timer.clear();
        let mut state = self.state.lock();
        let now = Instant::now();
        let delay = state.delay(now);
        let in_step = state.steps.len();
        state.steps.retain(|step| now.saturating_duration_since(step.since) < delay);
        let detached = in_step - state.steps.len();
        state.leaders -= detached;
        if matches!(&state.listener, Listener::Paused(_, until) if *until <= now)
            && let Listener::Paused(listener, _) = std::mem::replace(&mut state.listener, Listener::Closed)
        {
            state.listener = Listener::Idle(listener);
            state.note_connection();
        }
        let unattended = detached > 0 && state.pollers == 0 && state.leaders < self.processors;
        let start = !state.dissolved && (unattended || state.lacks_leader(self.processors)) && state.engage();
        let step = state.steps.iter().map(|step| step.since + delay).min();
        let pause = match &state.listener {
            Listener::Paused(_, until) => Some(*until),
            _ => None,
        };
        let next = step.into_iter().chain(pause).min();
        state.watched = next.is_some();
        drop(state);
        if let Some(next) = next {
            self.timer.set(next.saturating_duration_since(now));
        }
        if start {
            self.start();
        }
    }

    fn stop_listening(&self) {
        let mut state = self.state.lock();
        state.stopping = true;
        self.close_listener(&mut state);
    }

    /// Closes the listener; while a leader takes connections that is left to the end of its step.
    fn close_listener(&self, state: &mut Guard<'_, V>) {
        match std::mem::replace(&mut state.listener, Listener::Closed) {
            Listener::Idle(listener) | Listener::Paused(listener, _) => {
                // The program may have another descriptor for the socket, so closing ours is not enough.
                let _ = self.epoll.remove(listener.as_fd());
            }
            other => state.listener = other,
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
                && poll::wait([(shared.timer.as_fd(), Interest::Read)], None).is_ok()
            {
                shared.watch();
            }
            shared.dissolve();
        };
        if let Err(error) = start_thread("milter-manager", caretaker) {
            self.service.no_thread(&error);
        }
    }

    /// Ends all threads. There are no sessions any more, so none of them is in a callback.
    fn dissolve(&self) {
        let mut state = self.state.lock();
        state.dissolved = true;
        for parked in &state.parked {
            parked.engaged.notify_one();
        }
        drop(state);
        wake::call(self.dissolve.number());
        loop {
            let handle = self.state.lock().threads.handles.pop();
            match handle {
                // A thread cannot end with an error: what could panic in it is caught by the session.
                Some(handle) => drop(handle.join()),
                None => return,
            }
        }
    }
}
