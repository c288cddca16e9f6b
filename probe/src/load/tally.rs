//! What a load test counts and times.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use milter_protocol::CommandCode;

use crate::failure::Failure;
use crate::outcome::Fate;

/// Durations, each within one per cent.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u32>);

impl Default for Latencies {
    fn default() -> Self {
        const HOUR: u64 = 3_600_000_000_000;
        Latencies(Histogram::new_with_bounds(1, HOUR, 2).expect("the bounds are in order"))
    }
}

impl Latencies {
    pub(super) fn record(&mut self, duration: Duration) {
        self.0.saturating_record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    fn merge(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The duration that so many in a hundred do not exceed; zero when there are none.
    pub fn percentile(&self, percent: f64) -> Duration {
        // A histogram answers with the end of the range that a value fell into.
        Duration::from_nanos(self.0.value_at_percentile(percent).min(self.0.max()))
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }
}

/// What one thread, or all of them, have counted.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Messages with a verdict, after the warm-up.
    pub messages: u64,
    /// Messages with a verdict, from the start.
    pub all_messages: u64,
    /// Sessions that were opened, after the warm-up.
    pub sessions: u64,
    /// Sessions that were opened, from the start.
    pub all_sessions: u64,
    /// Verdicts, after the warm-up.
    pub fates: BTreeMap<Fate, u64>,
    /// Modifications, after the warm-up.
    pub modifications: u64,
    /// Octets sent, from the start.
    pub octets_sent: u64,
    /// Octets received, from the start.
    pub octets_received: u64,
    /// From connecting to the answer to HELO, or to the negotiation when there are no messages.
    pub session_latencies: Latencies,
    /// From MAIL to the verdict, without the pauses of the client.
    pub message_latencies: Latencies,
    /// From a command to its answer.
    pub command_latencies: BTreeMap<CommandCode, Latencies>,
    /// What went wrong, from the start, in the order in which it happened first.
    pub failures: Vec<(Failure, u64)>,
}

impl Tally {
    pub(super) fn count_failure(&mut self, failure: Failure, times: u64) {
        match self.failures.iter_mut().find(|(known, _)| *known == failure) {
            Some((_, count)) => *count += times,
            None => self.failures.push((failure, times)),
        }
    }

    /// The latencies of all commands.
    pub fn all_commands(&self) -> Latencies {
        let mut all = Latencies::default();
        self.command_latencies.values().for_each(|latencies| all.merge(latencies));
        all
    }

    pub(super) fn merge(&mut self, other: Tally) {
        self.messages += other.messages;
        self.all_messages += other.all_messages;
        self.sessions += other.sessions;
        self.all_sessions += other.all_sessions;
        self.modifications += other.modifications;
        self.octets_sent += other.octets_sent;
        self.octets_received += other.octets_received;
        self.session_latencies.merge(&other.session_latencies);
        self.message_latencies.merge(&other.message_latencies);
        for (fate, count) in other.fates {
            *self.fates.entry(fate).or_default() += count;
        }
        for (code, latencies) in other.command_latencies {
            self.command_latencies.entry(code).or_default().merge(&latencies);
        }
        for (failure, count) in other.failures {
            self.count_failure(failure, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_one_per_cent() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(50.0), Duration::ZERO);
        (1..=1000).for_each(|micros| latencies.record(Duration::from_micros(micros)));
        for (percent, micros) in [(50.0, 500.0), (90.0, 900.0), (99.0, 990.0)] {
            let found = latencies.percentile(percent).as_secs_f64() * 1e6;
            assert!((found / micros - 1.0).abs() < 0.01, "{percent}: {found}");
        }
        assert!((latencies.max().as_secs_f64() * 1e3 - 1.0).abs() < 0.01);
        latencies.record(Duration::from_secs(7200));
        assert_eq!(latencies.count(), 1001);
    }

    #[test]
    fn equal_failures_are_counted_together() {
        let closed = || Failure::Closed { stage: CommandCode::Mail };
        let mut tally = Tally::default();
        tally.count_failure(closed(), 1);
        let mut other = Tally::default();
        other.count_failure(Failure::Closed { stage: CommandCode::Rcpt }, 1);
        other.count_failure(closed(), 2);
        tally.merge(other);
        assert_eq!(tally.failures[0], (closed(), 3));
        assert_eq!(tally.failures.len(), 2);
    }
}
