//! The figures to reach, beside Debian's library in the same run.

use crate::contestant::FLOOR;
use crate::measure::Measure;
use crate::results::{Results, Spread};

/// How a figure is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// The ratio to the reference, at most.
    RatioAtMost(f64),
    /// The ratio to the reference, at least.
    RatioAtLeast(f64),
    /// The ratio to the server without a library, at most.
    FloorAtMost(f64),
    /// The figure itself, at most.
    AtMost(f64),
}

/// A figure to reach.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The scenario.
    pub scenario: &'static str,
    /// What is measured.
    pub measure: Measure,
    /// What is to be reached.
    pub bound: Bound,
}

const fn target(scenario: &'static str, measure: Measure, bound: Bound) -> Target {
    Target { scenario, measure, bound }
}

/// All of them. 10,000 connections, 10 MB and the like are in the names of scenarios.
pub const TARGETS: &[Target] = &[
    target("a unix c1 sendmail", Measure::CpuPerMessage, Bound::RatioAtMost(0.58)),
    target("a unix c1 postfix", Measure::CpuPerMessage, Bound::RatioAtMost(0.47)),
    target("a unix c8 sendmail", Measure::MessagesPerCoreSecond, Bound::RatioAtLeast(1.9)),
    target("a unix c8 postfix", Measure::MessagesPerCoreSecond, Bound::RatioAtLeast(1.9)),
    target("a unix c64 sendmail", Measure::MessagesPerCoreSecond, Bound::RatioAtLeast(2.3)),
    target("a unix c64 postfix", Measure::MessagesPerCoreSecond, Bound::RatioAtLeast(2.3)),
    target("a unix c64 sendmail", Measure::MessageP99, Bound::RatioAtMost(0.1)),
    target("a unix c64 postfix", Measure::MessageP99, Bound::RatioAtMost(0.1)),
    target("a unix c8 sendmail", Measure::CpuPerMessage, Bound::FloorAtMost(1.15)),
    target("a unix c8 postfix", Measure::CpuPerMessage, Bound::FloorAtMost(1.15)),
    target("a unix c64 sendmail", Measure::CpuPerMessage, Bound::FloorAtMost(1.15)),
    target("a unix c64 postfix", Measure::CpuPerMessage, Bound::FloorAtMost(1.15)),
    target("g nr postfix", Measure::CallsPerMessage, Bound::AtMost(3.0)),
    target("g noop sendmail", Measure::CallsPerMessage, Bound::AtMost(52.0)),
    target("b 10 MB unix sendmail", Measure::CpuPerMessage, Bound::RatioAtMost(0.75)),
    target("b 10 MB unix postfix", Measure::CpuPerMessage, Bound::RatioAtMost(0.95)),
    target("b 10 MB tcp sendmail", Measure::CpuPerMessage, Bound::RatioAtMost(0.75)),
    target("b 10 MB tcp postfix", Measure::CpuPerMessage, Bound::RatioAtMost(0.75)),
    target("c negotiation unix c1", Measure::CpuPerConnection, Bound::RatioAtMost(0.5)),
    target("c negotiation unix c8", Measure::CpuPerConnection, Bound::RatioAtMost(0.5)),
    target("c one message unix c8", Measure::CpuPerConnection, Bound::RatioAtMost(0.5)),
    target("d 10000 idle", Measure::MemoryPerConnection, Bound::AtMost(0.6)),
    target("d 10000 idle", Measure::Threads, Bound::AtMost(6.0)),
    target("d 10000 idle", Measure::WakeUp, Bound::RatioAtMost(0.03)),
    target("e 64 x 20 ms", Measure::TimeOverIdeal, Bound::AtMost(1.2)),
    target("f headers tcp sendmail", Measure::Messages, Bound::RatioAtLeast(60.0)),
    target("h stop", Measure::StopTime, Bound::AtMost(5.0)),
    target("i start", Measure::StartTime, Bound::RatioAtMost(1.1)),
    target("j 50 paced", Measure::CpuPerMessage, Bound::RatioAtMost(0.2)),
    target("j 400 paced", Measure::CpuPerMessage, Bound::RatioAtMost(0.15)),
];

impl Target {
    /// What a contestant has reached, in the terms of the bound.
    pub fn figure(&self, results: &Results, contestant: usize) -> Option<Spread> {
        let row = results.row(self.scenario, self.measure)?;
        match self.bound {
            Bound::AtMost(_) => row.value(contestant),
            Bound::FloorAtMost(_) => row.ratio(contestant, results.contestant(FLOOR)?),
            Bound::RatioAtMost(_) | Bound::RatioAtLeast(_) => row.ratio(contestant, 0),
        }
    }

    /// Whether a figure is good enough.
    pub fn is_reached(&self, figure: Spread) -> bool {
        match self.bound {
            Bound::AtMost(limit) | Bound::FloorAtMost(limit) | Bound::RatioAtMost(limit) => figure.median <= limit,
            Bound::RatioAtLeast(limit) => figure.median >= limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;

    #[test]
    fn every_target_is_measured_in_the_short_run_too() {
        for quick in [false, true] {
            let scenarios = scenario::all(quick);
            for target in TARGETS {
                let measured = scenarios.iter().find(|scenario| scenario.name == target.scenario);
                // The short run leaves out what takes long beyond what it shows.
                let left_out = quick && target.scenario == "b 10 MB tcp postfix";
                assert!(
                    left_out || measured.is_some_and(|scenario| scenario.measures.contains(&target.measure)),
                    "{} {:?}",
                    target.scenario,
                    target.measure
                );
            }
        }
    }
}
