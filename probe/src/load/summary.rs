//! What a load test has found, for people and for programs.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::plan::Plan;
use super::tally::{Latencies, Tally};
use crate::failure::stage_name;
use crate::palette::{BAD, HEADING, Palette};

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Summary {
    /// What was to be done.
    pub plan: Plan,
    /// How long it was counted.
    pub counted: Duration,
    /// What was counted.
    pub tally: Tally,
    /// Whether it ended early because nothing but failures came.
    pub gave_up: bool,
}

impl Summary {
    /// Messages a second.
    pub fn message_rate(&self) -> f64 {
        self.tally.messages as f64 / self.counted.as_secs_f64()
    }

    /// Sessions a second.
    pub fn session_rate(&self) -> f64 {
        self.tally.sessions as f64 / self.counted.as_secs_f64()
    }

    /// Status of the first failure, 0 without one.
    pub fn exit_status(&self) -> u8 {
        self.tally.failures.first().map_or(0, |(failure, _)| failure.exit_status())
    }

    /// Durations by what they are of.
    fn latencies(&self) -> Vec<(&'static str, Latencies)> {
        let tally = &self.tally;
        let mut all = vec![("session", tally.session_latencies.clone())];
        all.extend(tally.command_latencies.iter().map(|(code, latencies)| (stage_name(*code), latencies.clone())));
        all.push(("all commands", tally.all_commands()));
        all.push(("message", tally.message_latencies.clone()));
        all.retain(|(_, latencies)| latencies.count() > 0);
        all
    }

    /// Writes it for people.
    pub fn write(&self, out: &mut dyn Write, palette: Palette) -> io::Result<()> {
        let (plan, tally) = (&self.plan, &self.tally);
        writeln!(out, "{} as {}, {} at once", plan.target, plan.workload.mta.name(), plan.connections)?;
        let mut line = |what: &str, text: String| writeln!(out, "  {what:12} {text}");
        line("time", format!("{:.2} s", self.counted.as_secs_f64()))?;
        line("messages", format!("{}, {:.1} a second", tally.messages, self.message_rate()))?;
        line("sessions", format!("{}, {:.1} a second", tally.sessions, self.session_rate()))?;
        let fates: Vec<_> = tally.fates.iter().map(|(fate, count)| format!("{count} {fate}")).collect();
        line("verdicts", if fates.is_empty() { "none".to_owned() } else { fates.join(", ") })?;
        line("changes", tally.modifications.to_string())?;
        if tally.failures.is_empty() {
            line("failures", "none".to_owned())?;
        }
        for (failure, count) in &tally.failures {
            line("failures", format!("{} times {failure}", palette.paint(BAD, count)))?;
        }
        if self.gave_up {
            line("", palette.paint(BAD, "gave up: nothing but failures came").to_string())?;
        }
        let heading = format!(
            "\n  {:22} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "milliseconds", "count", "p50", "p90", "p99", "max"
        );
        writeln!(out, "{}", palette.paint(HEADING, heading))?;
        for (what, latencies) in self.latencies() {
            write!(out, "  {what:22} {:>10}", latencies.count())?;
            for duration in [50.0, 90.0, 99.0].map(|percent| latencies.percentile(percent)) {
                write!(out, " {:>10.3}", milliseconds(duration))?;
            }
            writeln!(out, " {:>10.3}", milliseconds(latencies.max()))?;
        }
        Ok(())
    }

    /// The same for programs. Durations are in milliseconds.
    pub fn json(&self) -> Value {
        let (plan, tally) = (&self.plan, &self.tally);
        let latencies = self.latencies().into_iter().map(|(what, latencies)| {
            let at = |percent| milliseconds(latencies.percentile(percent));
            let (p50, p90, p99, max) = (at(50.0), at(90.0), at(99.0), milliseconds(latencies.max()));
            (what.to_owned(), json!({"count": latencies.count(), "p50": p50, "p90": p90, "p99": p99, "max": max}))
        });
        let fates = tally.fates.iter().map(|(fate, count)| (fate.to_string(), json!(count)));
        let failures =
            tally.failures.iter().map(|(failure, count)| json!({"reason": failure.to_string(), "count": count}));
        json!({
            "socket": plan.target.to_string(),
            "mta": plan.workload.mta.name(),
            "connections": plan.connections,
            "seconds": self.counted.as_secs_f64(),
            "messages": tally.messages,
            "messages_per_second": self.message_rate(),
            "sessions": tally.sessions,
            "sessions_per_second": self.session_rate(),
            "verdicts": serde_json::Map::from_iter(fates),
            "modifications": tally.modifications,
            "octets_sent": tally.octets_sent,
            "octets_received": tally.octets_received,
            "failures": Value::from_iter(failures),
            "gave_up": self.gave_up,
            "milliseconds": serde_json::Map::from_iter(latencies),
        })
    }
}

/// To the microsecond.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
