//! The figures that tell the models apart, for somebody who has to choose one.

use crate::measure::Measure;

/// Scenarios and what is shown of them.
pub const CHOICE: &[(&str, &[Measure])] = &[
    ("a unix c1 sendmail", &[Measure::CpuPerMessage]),
    ("a unix c1 postfix", &[Measure::CpuPerMessage]),
    ("a unix c8 sendmail", &[Measure::CpuPerMessage, Measure::MessagesPerCoreSecond]),
    ("a unix c8 postfix", &[Measure::CpuPerMessage, Measure::MessagesPerCoreSecond]),
    ("a unix c64 sendmail", &[Measure::CpuPerMessage, Measure::MessagesPerCoreSecond, Measure::MessageP99]),
    ("a unix c64 postfix", &[Measure::CpuPerMessage, Measure::MessagesPerCoreSecond, Measure::MessageP99]),
    ("c negotiation unix c8", &[Measure::CpuPerConnection, Measure::Connections]),
    ("c one message unix c8", &[Measure::CpuPerConnection, Measure::Connections]),
    ("d 1000 idle", &[Measure::MemoryPerConnection, Measure::Threads, Measure::WakeUp]),
    ("d 10000 idle", &[Measure::MemoryPerConnection, Measure::Threads, Measure::WakeUp]),
    ("e 64 x 20 ms", &[Measure::TimeOverIdeal]),
];

/// Whether a scenario has some of them.
pub fn has_scenario(name: &str) -> bool {
    CHOICE.iter().any(|(scenario, _)| *scenario == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;

    #[test]
    fn every_figure_is_measured_in_the_short_run_too() {
        for quick in [false, true] {
            let scenarios = scenario::all(quick);
            for (name, measures) in CHOICE {
                let measured = scenarios.iter().find(|scenario| scenario.name == *name);
                let measured = measured.unwrap_or_else(|| panic!("{name} is not measured"));
                assert!(measures.iter().all(|measure| measured.measures.contains(measure)), "{name}");
            }
        }
    }
}
