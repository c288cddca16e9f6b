//! What the pool's mutex guards, and every decision about it: who is idle, what is ready, who leads. No system calls
//! but those of waking a parked thread.

use std::collections::{TryReserveError, VecDeque};
use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Condvar;

use super::slots::{Slots, Token};
use crate::model::{Next, PAUSE, Session};
use crate::sys::socket::Acceptor;

/// How long a step may last before its leader is detached, while callbacks are quick.
pub(super) const PATIENCE: Duration = Duration::from_millis(1);

/// The same after a callback has blocked: others are likely to.
const IMPATIENCE: Duration = Duration::from_micros(200);

/// How long the shorter delay stays in force.
const ALERT: Duration = Duration::from_millis(200);

/// Work that waits for longer than this is worth another thread.
const BACKLOG: Duration = Duration::from_micros(100);

/// What a step takes besides its callbacks: receiving, decoding, sending. Measured: `make bench` shows 45 to 50 us of
/// processor time for a message of 16 steps whose callbacks do nothing, with 64 connections.
const OVERHEAD: Duration = Duration::from_micros(3);

/// With steps of this length it pays to have somebody wait for events while everybody else is in a step.
const LONG_STEP: Duration = Duration::from_micros(60);

/// What events are reported with besides the tokens of sessions.
pub(super) const LISTENERS: u64 = u64::MAX;
pub(super) const DISSOLVE: u64 = u64::MAX - 1;
pub(super) const NUDGE: u64 = u64::MAX - 2;

pub(super) struct State<S> {
    pub(super) slots: Slots<S>,
    pub(super) listeners: Listeners,
    /// Leaders at most: as many as can run at once.
    processors: usize,
    /// Threads at most, whatever they do.
    limit: usize,
    /// Threads there are.
    threads: usize,
    ready: VecDeque<Job<S>>,
    /// New sessions, where these have a time limit, and since when it counts. Some may have introduced themselves by
    /// now, or be over.
    strangers: VecDeque<(Token, Instant)>,
    /// Leaders, whether in a step or waiting for events.
    leaders: usize,
    /// Leaders waiting for events.
    pollers: usize,
    /// The steps that leaders are in.
    steps: Vec<Step>,
    parked: Vec<Parked>,
    /// When the manager will look again; `None` when it sleeps.
    watch: Option<Instant>,
    /// Until when the shorter delay is in force.
    alert_until: Option<Instant>,
    /// Mean duration of the callbacks of a step.
    mean_step: Duration,
    /// Sessions in a step or in a message.
    unfinished: usize,
    /// No events can be had any more.
    deaf: bool,
    stopping: bool,
    pub(super) dissolved: bool,
}

/// Something to do for a leader.
pub(super) enum Job<S> {
    /// `continued` says that the session has asked for it itself.
    Serve {
        token: Token,
        session: S,
        hang_up: bool,
        continued: bool,
    },
    Expire {
        token: Token,
        session: S,
    },
    Admit(Vec<Acceptor>),
}

/// What came of a job.
pub(super) enum Done<S> {
    Served {
        token: Token,
        session: S,
        hang_up: bool,
        next: Next,
    },
    /// `exit` says that the thread that served the session has to end.
    Over {
        token: Token,
        exit: bool,
    },
    Admitted {
        listeners: Vec<Acceptor>,
        then: Then,
    },
}

/// What to do with the listeners after connections were taken from them.
/// The last of these wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Then {
    Wait,
    GoOn,
    Pause,
}

/// The listeners, which are always together.
pub(super) enum Listeners {
    /// Waiting for an edge.
    Idle(Vec<Acceptor>),
    /// A leader takes connections, or will; `again` says that an edge came meanwhile.
    Busy {
        again: bool,
    },
    /// Left alone until the time given.
    Paused(Vec<Acceptor>, Instant),
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

/// What a leader does next.
pub(super) enum Turn<S> {
    Run(Job<S>),
    /// Wait for events, or only fetch those that are there when work is waiting, too.
    Poll {
        wait: bool,
    },
    Leave,
}

/// A thread that was made a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engaged {
    /// It was parked.
    Parked,
    /// It has to be started.
    New,
}

/// What has to be done without the mutex after a decision.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub(super) struct Errands {
    /// Start a thread: its role as a leader is taken already.
    pub(super) start: bool,
    /// Have a leader return from waiting for events: there is work.
    pub(super) nudge: bool,
    /// Set the manager's timer.
    pub(super) timer: Option<Duration>,
}

impl<S: Session> State<S> {
    pub(super) fn new(listeners: Vec<Acceptor>, processors: usize, limit: Option<NonZero<u16>>) -> Self {
        let limit = limit.map_or(usize::MAX, |limit| limit.get().into());
        State {
            slots: Slots::new(),
            listeners: Listeners::Idle(listeners),
            processors: processors.min(limit),
            limit,
            threads: 0,
            ready: VecDeque::new(),
            strangers: VecDeque::new(),
            leaders: 0,
            pollers: 0,
            steps: Vec::new(),
            parked: Vec::new(),
            watch: None,
            alert_until: None,
            mean_step: Duration::ZERO,
            unfinished: 0,
            deaf: false,
            stopping: false,
            dissolved: false,
        }
    }

    // ---- events and sessions

    /// Takes note of an event: what was idle becomes ready, what is in a step gets another one.
    pub(super) fn note(&mut self, token: u64, hang_up: bool) {
        if token == LISTENERS {
            self.note_connection();
        } else if token != DISSOLVE
            && token != NUDGE
            && let Some(session) = self.slots.claim(Token::from(token), hang_up)
        {
            self.begin(&session);
            let token = Token::from(token);
            self.ready.push_back(Job::Serve { token, session, hang_up, continued: false });
        }
    }

    fn note_connection(&mut self) {
        self.listeners = match std::mem::replace(&mut self.listeners, Listeners::Closed) {
            Listeners::Idle(listeners) => {
                self.ready.push_back(Job::Admit(listeners));
                Listeners::Busy { again: false }
            }
            Listeners::Busy { .. } => Listeners::Busy { again: true },
            other => other,
        };
    }

    /// Has connections be taken again if they were not.
    fn end_pause(&mut self) {
        self.listeners = match std::mem::replace(&mut self.listeners, Listeners::Closed) {
            Listeners::Paused(listeners, _) => Listeners::Idle(listeners),
            other => return self.listeners = other,
        };
        self.note_connection();
    }

    /// Has sessions expire that have been silent for too long.
    #[inline]
    pub(super) fn expire(&mut self, now: Instant, timeout: Duration) {
        while let Some((token, session)) = self.slots.claim_silent(now, timeout) {
            self.begin(&session);
            self.ready.push_back(Job::Expire { token, session });
        }
    }

    /// Since when the oldest session that has not introduced itself has been waited for.
    pub(super) fn stranger_since(&mut self) -> Option<Instant> {
        loop {
            let &(token, since) = self.strangers.front()?;
            if self.slots.may_be(token, |session| !session.is_introduced()) {
                return Some(since);
            }
            self.strangers.pop_front();
        }
    }

    /// Has sessions expire that have not introduced themselves in time.
    pub(super) fn expire_strangers(&mut self, now: Instant, timeout: Duration) {
        while self.stranger_since().is_some_and(|since| since + timeout <= now)
            && let Some((token, _)) = self.strangers.pop_front()
        {
            match self.slots.claim(token, false) {
                Some(session) => {
                    self.begin(&session);
                    self.ready.push_back(Job::Expire { token, session });
                }
                // It is in a step, perhaps the one that tells.
                None => self.strangers.push_back((token, now)),
            }
        }
    }

    /// There will be no events any more: every session is as good as silent for ever.
    pub(super) fn go_deaf(&mut self, now: Instant) {
        self.deaf = true;
        self.expire(now, Duration::ZERO);
    }

    /// Makes room for one more session wherever sessions are kept. Fails when there is no memory.
    pub(super) fn make_room(&mut self) -> Result<(), TryReserveError> {
        self.slots.make_room()?;
        // A job for each session, and one to accept connections.
        let jobs = self.slots.sessions() + 2;
        self.ready.try_reserve(jobs.saturating_sub(self.ready.len()))?;
        self.strangers.try_reserve(1)
    }

    /// A slot for a new session, which counts as in a step until it is registered for events: nothing happens to it.
    /// `strange_since` is when its time to introduce itself begins, if that is limited.
    pub(super) fn reserve(&mut self, strange_since: Option<Instant>) -> Token {
        self.unfinished += 1;
        let token = self.slots.reserve();
        self.strangers.extend(strange_since.map(|since| (token, since)));
        token
    }

    fn begin(&mut self, session: &S) {
        if !session.in_message() {
            self.unfinished += 1;
        }
    }

    /// Takes back what a job was about.
    pub(super) fn end(&mut self, done: Done<S>, now: Instant) {
        match done {
            Done::Over { token, .. } => {
                self.slots.free(token);
                self.unfinished -= 1;
                self.end_pause();
            }
            Done::Served { token, session, hang_up, next } => match (self.slots.take_news(token), next) {
                (None, Next::Wait) if self.deaf => self.ready.push_back(Job::Expire { token, session }),
                (None, Next::Wait) if hang_up || !self.stopping => {
                    if !session.in_message() {
                        self.unfinished -= 1;
                    }
                    self.slots.put_back(token, session, now);
                }
                (news, _) => {
                    // A hang-up is told once, but it is over only when everything before it has been read. After a stop
                    // there may be more than a step has read that began before it.
                    let hang_up = hang_up || self.stopping || news.unwrap_or(false);
                    self.ready.push_back(Job::Serve { token, session, hang_up, continued: true });
                }
            },
            Done::Admitted { listeners, then } => {
                let again = matches!(self.listeners, Listeners::Busy { again: true });
                self.listeners = match then {
                    _ if self.stopping => Listeners::Idle(listeners),
                    Then::Pause => Listeners::Paused(listeners, now + PAUSE),
                    Then::Wait if !again => Listeners::Idle(listeners),
                    Then::Wait | Then::GoOn => {
                        self.ready.push_back(Job::Admit(listeners));
                        Listeners::Busy { again: false }
                    }
                };
            }
        }
    }

    // ---- leaders

    /// What a leader does next. One that has nothing to do gives the role up.
    pub(super) fn turn(&mut self, fetched: bool) -> Turn<S> {
        if self.dissolved {
            self.leaders -= 1;
            return Turn::Leave;
        }
        // Work that makes more work must not keep events from being fetched.
        let overdue =
            !fetched && self.pollers == 0 && matches!(self.ready.front(), Some(Job::Serve { continued: true, .. }));
        if overdue && !self.deaf {
            return Turn::Poll { wait: false };
        }
        if let Some(job) = self.ready.pop_front() {
            return Turn::Run(job);
        }
        let pollers = if self.mean_step > LONG_STEP { self.processors } else { 1 };
        if self.pollers < pollers && !self.deaf {
            return Turn::Poll { wait: true };
        }
        self.leaders -= 1;
        Turn::Leave
    }

    /// Starts a leader's step.
    pub(super) fn enter_step(&mut self, thread: u64, now: Instant) -> Errands {
        self.steps.push(Step { thread, since: now });
        // Nobody could take over from an only thread.
        let timer = (self.watch.is_none() && self.limit > 1).then(|| self.delay(now));
        if let Some(delay) = timer {
            self.watch = Some(now + delay);
        }
        let start = self.wants_help() && self.engage() == Some(Engaged::New);
        Errands { start, nudge: false, timer }
    }

    /// Ends a step; false when its leader was detached meanwhile. `busy` is how long its callbacks took: sending the reply
    /// wakes the peer, who may take the processor first, and that says nothing about the filter.
    pub(super) fn leave_step(&mut self, thread: u64, busy: Option<Duration>, now: Instant) -> bool {
        if let Some(busy) = busy {
            self.measure(busy, now);
        }
        let place = self.steps.iter().position(|step| step.thread == thread);
        place.map(|place| self.steps.swap_remove(place)).is_some()
    }

    /// Has a detached thread lead again if there is work that nobody would come to.
    pub(super) fn rejoin(&mut self) -> bool {
        let needed = !self.dissolved && self.lacks_leader();
        self.leaders += usize::from(needed);
        needed
    }

    /// A thread ends after its step. Another one does what it would have done.
    pub(super) fn exit(&mut self, leads: bool) -> Errands {
        let leaders = usize::from(leads);
        self.threads -= 1;
        self.leaders -= leaders;
        self.replace(leaders)
    }

    pub(super) fn begin_poll(&mut self) {
        self.pollers += 1;
    }

    pub(super) fn end_poll(&mut self) {
        self.pollers -= 1;
    }

    /// A leader could not be started.
    pub(super) fn forget_leader(&mut self) {
        self.leaders -= 1;
        self.threads -= 1;
    }

    /// Detaches a leader whose callback is likely to block, if another thread can take its place.
    pub(super) fn hand_over(&mut self, thread: u64) -> Errands {
        let Some(place) = self.steps.iter().position(|step| step.thread == thread) else { return Errands::default() };
        if self.parked.is_empty() && self.threads == self.limit && self.pollers == 0 {
            return Errands::default();
        }
        self.steps.swap_remove(place);
        self.leaders -= 1;
        self.replace(1)
    }

    /// After leaders were detached, sees that somebody leads.
    fn replace(&mut self, detached: usize) -> Errands {
        let unattended = detached > 0 && self.pollers == 0 && self.leaders < self.processors;
        if self.dissolved || !(unattended || self.lacks_leader()) {
            return Errands::default();
        }
        match self.engage() {
            Some(engaged) => Errands { start: engaged == Engaged::New, ..Errands::default() },
            // When there is none to wait for events either, the next that has finished its callback will lead.
            None => Errands { nudge: self.pollers > 0, ..Errands::default() },
        }
    }

    /// Notes how long the callbacks of a step took.
    fn measure(&mut self, duration: Duration, now: Instant) {
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
    fn lacks_leader(&self) -> bool {
        let asleep = self.pollers == self.leaders;
        self.leaders == 0 || (!self.ready.is_empty() && (asleep || self.leaders < self.processors))
    }

    /// Whether another leader would be of use to one that has work.
    fn wants_help(&self) -> bool {
        let queue = u32::try_from(self.ready.len()).unwrap_or(u32::MAX);
        self.pollers == 0 && (self.mean_step > LONG_STEP || (self.mean_step + OVERHEAD).saturating_mul(queue) > BACKLOG)
    }

    /// Makes a thread a leader, unless there are as many leaders as can run at once, or all threads that there may be
    /// have something else to do.
    fn engage(&mut self) -> Option<Engaged> {
        if self.leaders >= self.processors {
            return None;
        }
        let engaged = match self.parked.pop() {
            Some(parked) => {
                parked.engaged.notify_one();
                Engaged::Parked
            }
            None if self.threads < self.limit && self.make_room_for_thread().is_ok() => {
                self.threads += 1;
                Engaged::New
            }
            None => return None,
        };
        self.leaders += 1;
        Some(engaged)
    }

    /// Makes room for one more thread, in a step or parked. Fails when there is no memory.
    fn make_room_for_thread(&mut self) -> Result<(), TryReserveError> {
        let threads = self.threads + 1;
        self.steps.try_reserve(threads.saturating_sub(self.steps.len()))?;
        self.parked.try_reserve(threads.saturating_sub(self.parked.len()))
    }

    // ---- parked threads

    pub(super) fn park(&mut self, thread: u64, engaged: &Arc<Condvar>) {
        self.parked.push(Parked { thread, engaged: Arc::clone(engaged) });
    }

    pub(super) fn is_parked(&self, thread: u64) -> bool {
        self.parked.iter().any(|parked| parked.thread == thread)
    }

    /// A parked thread ends.
    pub(super) fn retire(&mut self, thread: u64) {
        self.parked.retain(|parked| parked.thread != thread);
        self.threads -= 1;
    }

    // ---- the manager

    /// Detaches leaders that are in one step for too long, ends a pause of the listeners, and sees that somebody leads.
    pub(super) fn look_after(&mut self, now: Instant) -> Errands {
        let delay = self.delay(now);
        let in_step = self.steps.len();
        self.steps.retain(|step| now.saturating_duration_since(step.since) < delay);
        let detached = in_step - self.steps.len();
        self.leaders -= detached;
        if matches!(&self.listeners, Listeners::Paused(_, until) if *until <= now) {
            self.end_pause();
        }
        let errands = self.replace(detached);
        self.watch = None;
        Errands { timer: self.next_look(now), ..errands }
    }

    /// When the manager has to look, unless it will anyway.
    pub(super) fn next_look(&mut self, now: Instant) -> Option<Duration> {
        let delay = self.delay(now);
        let step = self.steps.iter().map(|step| step.since + delay).min();
        let pause = match &self.listeners {
            Listeners::Paused(_, until) => Some(*until),
            _ => None,
        };
        let next = step.into_iter().chain(pause).min()?;
        if self.watch.is_some_and(|watch| watch <= next) {
            return None;
        }
        self.watch = Some(next);
        Some(next.saturating_duration_since(now))
    }

    /// Has the manager look soon although there is nothing to see yet.
    pub(super) fn look_in(&mut self, delay: Duration) -> Duration {
        self.watch = Some(Instant::now() + delay);
        delay
    }

    /// Begins to stop. What every session has received is served first: a peer that has said its last word is not
    /// merely open.
    pub(super) fn stop(&mut self, now: Instant) {
        self.stopping = true;
        while let Some((token, session)) = self.slots.claim_silent(now, Duration::ZERO) {
            self.begin(&session);
            self.ready.push_back(Job::Serve { token, session, hang_up: true, continued: true });
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether a stop has nothing to wait for.
    pub(super) fn is_quiet(&self) -> bool {
        self.unfinished == 0 && matches!(self.listeners, Listeners::Closed)
    }

    /// Takes the listeners out unless a leader has them.
    pub(super) fn take_listeners(&mut self) -> Vec<Acceptor> {
        match std::mem::replace(&mut self.listeners, Listeners::Closed) {
            Listeners::Idle(listeners) | Listeners::Paused(listeners, _) => listeners,
            other => {
                self.listeners = other;
                Vec::new()
            }
        }
    }

    /// Has all threads end once they have nothing to do.
    pub(super) fn dissolve(&mut self) {
        self.dissolved = true;
        for parked in &self.parked {
            parked.engaged.notify_one();
        }
    }
}

#[cfg(test)]
mod check;
#[cfg(test)]
mod tests;
