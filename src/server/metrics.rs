//! Numbers about a run, for monitoring.
//!
//! Sessions count in atomics that all processes of a run share; nothing on their way is locked or allocated. Without the
//! option there are no numbers, and each place that would count looks at a null pointer.

mod exposition;
mod outlet;

use std::ffi::c_int;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use milter_protocol::{Callbacks, Failure, Modification, Verdict};

pub(super) use outlet::{Outlet, Publisher, Target};

use super::service::Server;
use crate::sys::shared::Shared;

/// The numbers of a run, and where they are shown.
pub(super) struct Metrics {
    counters: Shared<Counters>,
    outlet: Outlet,
}

/// What is counted.
#[derive(Default)]
struct Counters {
    sessions: AtomicU64,
    messages: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    suppressed: AtomicU64,
    callbacks: [Calls; Callbacks::COUNT],
    modifications: [AtomicU64; MODIFICATIONS.len()],
    failures: [AtomicU64; FAILURES.len()],
}

/// The calls of one callback.
#[derive(Default)]
struct Calls {
    verdicts: [AtomicU64; VERDICTS.len()],
    /// How many took at most as long as the bound of the same place, and longer than the one before; the last place is
    /// for those above all bounds.
    durations: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

const VERDICTS: [&str; 8] = ["continue", "reject", "discard", "accept", "tempfail", "noreply", "skip", "other"];

/// Upper bounds of durations: nanoseconds, and the same in seconds as monitoring wants to read it.
const BOUNDS: [(u64, &str); 12] = [
    (100_000, "0.0001"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
    (5_000_000_000, "5"),
    (10_000_000_000, "10"),
    (60_000_000_000, "60"),
];

const MODIFICATIONS: [&str; 9] = [
    "add_header",
    "insert_header",
    "change_header",
    "change_sender",
    "add_recipient",
    "add_recipient_with_arguments",
    "delete_recipient",
    "quarantine",
    "replace_body",
];

const FAILURES: [&str; 8] = [
    "frame",
    "unknown_command",
    "out_of_order",
    "missing_payload",
    "payload",
    "negotiation",
    "undefined_verdict",
    "no_memory",
];

/// Callbacks whose return value is a verdict about mail.
const DECIDING: Callbacks = Callbacks::NEGOTIATE.union(Callbacks::ABORT).union(Callbacks::CLOSE).complement();

/// Measures one call of a callback.
pub(super) struct Timer<'a> {
    calls: &'a Calls,
    decides: bool,
    start: Instant,
}

impl Metrics {
    /// Counts from zero.
    pub(super) fn new(outlet: Outlet) -> io::Result<Self> {
        Ok(Metrics { counters: Shared::new(Counters::default())?, outlet })
    }

    /// A session has begun.
    pub(super) fn session(&self) {
        count(&self.counters.sessions, 1);
    }

    /// A message has come to its end.
    pub(super) fn message(&self) {
        count(&self.counters.messages, 1);
    }

    /// Octets have come.
    pub(super) fn received(&self, octets: usize) {
        count(&self.counters.received, octets as u64);
    }

    /// Octets have gone.
    pub(super) fn sent(&self, octets: usize) {
        count(&self.counters.sent, octets as u64);
    }

    /// A line was left out of the log.
    pub(super) fn suppressed(&self) {
        count(&self.counters.suppressed, 1);
    }

    /// A callback is about to run.
    pub(super) fn timer(&self, callback: Callbacks) -> Timer<'_> {
        let calls = &self.counters.callbacks[callback.index()];
        Timer { calls, decides: DECIDING.contains(callback), start: Instant::now() }
    }

    /// The filter has changed a message.
    pub(super) fn modified(&self, modification: &Modification<'_>) {
        let place = match modification {
            Modification::AddHeader { .. } => 0,
            Modification::InsertHeader { .. } => 1,
            Modification::ChangeHeader { .. } => 2,
            Modification::ChangeSender { .. } => 3,
            Modification::AddRecipient { .. } => 4,
            Modification::AddRecipientWithArguments { .. } => 5,
            Modification::DeleteRecipient { .. } => 6,
            Modification::Quarantine { .. } => 7,
        };
        count(&self.counters.modifications[place], 1);
    }

    /// The filter has replaced a body, or a part of it.
    pub(super) fn replaced_body(&self) {
        count(&self.counters.modifications[MODIFICATIONS.len() - 1], 1);
    }

    /// A session has failed.
    pub(super) fn failed(&self, failure: Failure) {
        let place = match failure {
            // It may merely have ended so.
            Failure::Connection => return,
            Failure::Frame(_) => 0,
            Failure::UnknownCommand(_) => 1,
            Failure::OutOfOrder { .. } => 2,
            Failure::MissingPayload(_) => 3,
            Failure::Payload(..) => 4,
            Failure::Negotiation(_) => 5,
            Failure::UndefinedVerdict { .. } => 6,
            Failure::NoMemory => 7,
        };
        count(&self.counters.failures[place], 1);
    }

    /// Shows the numbers if it is time to, where no thread does that. Says when to come again.
    pub(super) fn turn(&self, server: &Server) -> Option<Duration> {
        self.outlet.turn(server)
    }

    fn text(&self, server: &Server) -> String {
        exposition::text(&self.counters, server.filter().name(), server.lobby().sessions())
    }
}

impl Timer<'_> {
    /// The callback has returned, or ended its thread.
    pub(super) fn stop(self, value: Option<c_int>) {
        let nanoseconds = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        count(&self.calls.nanoseconds, nanoseconds);
        count(&self.calls.durations[BOUNDS.partition_point(|(bound, _)| *bound < nanoseconds)], 1);
        if self.decides {
            let place = match value.and_then(Verdict::from_c) {
                Some(Verdict::Continue) => 0,
                Some(Verdict::Reject) => 1,
                Some(Verdict::Discard) => 2,
                Some(Verdict::Accept) => 3,
                Some(Verdict::Tempfail) => 4,
                Some(Verdict::NoReply) => 5,
                Some(Verdict::Skip) => 6,
                None => 7,
            };
            count(&self.calls.verdicts[place], 1);
        }
    }
}

fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_belong_to_the_first_bound_that_is_not_below() {
        let place = |nanoseconds| BOUNDS.partition_point(|(bound, _)| *bound < nanoseconds);
        assert_eq!([0, 100_000, 100_001, 60_000_000_000, u64::MAX].map(place), [0, 0, 1, 11, 12]);
        for (nanoseconds, seconds) in BOUNDS {
            assert_eq!(seconds.parse(), Ok(nanoseconds as f64 / 1e9));
        }
    }
}
