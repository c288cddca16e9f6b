//! What the conversations of one thread share, and what the threads share.

use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use milter_protocol::CommandCode;

use super::plan::Plan;
use super::script::{Script, Scripts};
use super::tally::Tally;
use crate::failure::Failure;
use crate::negotiation::Negotiation;
use crate::outcome::Fate;

/// Octets asked of the system at once.
const READ_AT_ONCE: usize = 64 << 10;

/// What all threads of a run go by.
#[derive(Debug)]
pub(super) struct Course {
    start: Instant,
    /// When counting begins.
    pub(super) counted_from: Instant,
    end: Option<Instant>,
    limit: u64,
    rate: Option<f64>,
    /// Messages that have been given out; sessions where these have no messages.
    begun: AtomicU64,
    /// Those of them that are done.
    done: AtomicU64,
    failures_in_a_row: AtomicU64,
    /// Whether the next message would be one too many, or too late.
    has_ended: AtomicBool,
    has_given_up: AtomicBool,
}

impl Course {
    pub(super) fn new(plan: &Plan, start: Instant) -> Self {
        let counted_from = start + plan.warmup;
        Course {
            start,
            counted_from,
            end: plan.duration.map(|duration| counted_from + duration),
            limit: plan.messages.unwrap_or(u64::MAX),
            rate: plan.rate,
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            failures_in_a_row: AtomicU64::new(0),
            has_ended: AtomicBool::new(false),
            has_given_up: AtomicBool::new(false),
        }
    }

    /// When the next message is to be sent; `None` when there are enough.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        if self.is_over(now) {
            return None;
        }
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let at = self.rate.map_or(now, |rate| self.start + Duration::from_secs_f64(number as f64 / rate));
        if number >= self.limit || self.end.is_some_and(|end| at >= end) {
            self.has_ended.store(true, Ordering::Relaxed);
            return None;
        }
        Some(at)
    }

    /// Whether no more messages are to be begun.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.has_given_up()
            || self.has_ended.load(Ordering::Relaxed)
            || self.end.is_some_and(|end| now >= end)
            || self.begun.load(Ordering::Relaxed) >= self.limit
    }

    /// Messages that are done, or sessions where these have no messages.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn count_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.failures_in_a_row.store(0, Ordering::Relaxed);
    }

    /// Notes a failure; after `limit` in a row the run ends.
    fn count_failure(&self, limit: u64) {
        if self.failures_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= limit {
            self.has_given_up.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn has_given_up(&self) -> bool {
        self.has_given_up.load(Ordering::Relaxed)
    }
}

/// What a conversation does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Sends a message at this moment.
    Message(Instant),
    /// Waits until it is told to.
    Rest,
    /// Ends.
    Quit,
}

/// What the conversations of one thread share.
#[derive(Debug)]
pub(super) struct World<'a> {
    pub(super) plan: &'a Plan,
    pub(super) course: &'a Course,
    pub(super) tally: Tally,
    /// For whoever reads at the moment.
    pub(super) buffer: Vec<u8>,
    /// Whether conversations rest until they are told to go on.
    rests: bool,
    is_counting: bool,
    offer: Rc<Script>,
    /// What is said under each agreement so far. Filters rarely make more than one.
    agreements: Vec<(Negotiation, Rc<Scripts>)>,
}

impl<'a> World<'a> {
    pub(super) fn new(plan: &'a Plan, course: &'a Course, rests: bool) -> Self {
        World {
            plan,
            course,
            tally: Tally::default(),
            buffer: vec![0; READ_AT_ONCE],
            rests,
            is_counting: plan.warmup.is_zero(),
            offer: Rc::new(Script::offer(plan.workload.mta)),
            agreements: Vec::new(),
        }
    }

    pub(super) fn rests(&self) -> bool {
        self.rests
    }

    pub(super) fn offer(&self) -> Rc<Script> {
        Rc::clone(&self.offer)
    }

    pub(super) fn scripts(&mut self, negotiation: &Negotiation) -> Rc<Scripts> {
        if let Some((_, scripts)) = self.agreements.iter().find(|(known, _)| known == negotiation) {
            return Rc::clone(scripts);
        }
        let scripts = Rc::new(Scripts::new(&self.plan.workload, negotiation));
        self.agreements.push((negotiation.clone(), Rc::clone(&scripts)));
        scripts
    }

    pub(super) fn turn(&self, messages: u64, now: Instant) -> Turn {
        if self.rests {
            return Turn::Rest;
        }
        let next = if messages < self.plan.per_session { self.course.next(now) } else { None };
        next.map_or(Turn::Quit, Turn::Message)
    }

    /// Whether another session is worth opening.
    pub(super) fn wants_session(&self, now: Instant) -> bool {
        match self.plan.per_session {
            0 => self.course.next(now).is_some(),
            _ => self.rests || !self.course.is_over(now),
        }
    }

    /// Begins to count once the warm-up is over.
    pub(super) fn set_time(&mut self, now: Instant) {
        self.is_counting = self.is_counting || now >= self.course.counted_from;
    }

    pub(super) fn count_command(&mut self, code: CommandCode, latency: Duration) {
        if self.is_counting {
            self.tally.command_latencies.entry(code).or_default().record(latency);
        }
    }

    pub(super) fn count_session(&mut self, latency: Duration) {
        self.tally.all_sessions += 1;
        if self.is_counting {
            self.tally.sessions += 1;
            self.tally.session_latencies.record(latency);
        }
        if self.plan.per_session == 0 {
            self.course.count_done();
        }
    }

    /// A verdict; `latency` of the message, if there was one.
    pub(super) fn count_message(&mut self, fate: Fate, latency: Option<Duration>) {
        self.course.count_done();
        self.tally.all_messages += 1;
        if self.is_counting {
            self.tally.messages += 1;
            *self.tally.fates.entry(fate).or_default() += 1;
            latency.into_iter().for_each(|latency| self.tally.message_latencies.record(latency));
        }
    }

    pub(super) fn count_modification(&mut self) {
        self.tally.modifications += u64::from(self.is_counting);
    }

    pub(super) fn count_failure(&mut self, failure: Failure) {
        // As often as every connection could fail once and try again.
        let limit = 10 + 2 * self.plan.connections as u64;
        self.course.count_failure(if self.tally.all_sessions == 0 && is_fatal(&failure) { 1 } else { limit });
        self.tally.count_failure(failure, 1);
    }

    pub(super) fn cannot_connect(&self, error: &io::Error) -> Failure {
        Failure::Connect { reason: self.plan.target.explain(error) }
    }
}

/// Whether there is no point in trying again, if nothing has worked before.
fn is_fatal(failure: &Failure) -> bool {
    matches!(failure, Failure::Connect { .. } | Failure::Stranger { .. } | Failure::Negotiation { .. })
}
