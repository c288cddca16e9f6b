//! The figures that are taken.

use serde::{Deserialize, Serialize};

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Measure {
    /// Messages a second.
    Messages,
    /// Messages for each second of processor time, that of the load generator included.
    MessagesPerCoreSecond,
    /// Processor time of the filter for a message, in microseconds.
    CpuPerMessage,
    /// Processor time of the load generator for a message, in microseconds.
    GeneratorCpu,
    /// Context switches of the filter for a message.
    SwitchesPerMessage,
    /// System calls of the filter for a message.
    CallsPerMessage,
    /// Half of the messages take less, in microseconds.
    MessageP50,
    /// One message in a hundred takes more, in microseconds.
    MessageP99,
    /// One RCPT in a hundred takes more, in microseconds.
    RcptP99,
    /// MiB a second.
    Throughput,
    /// Connections a second.
    Connections,
    /// Processor time of the filter for a connection, in microseconds.
    CpuPerConnection,
    /// Resident memory of the filter under load, in MiB.
    Memory,
    /// Resident memory of the filter for each idle connection, in KiB.
    MemoryPerConnection,
    /// Threads of the filter.
    Threads,
    /// Seconds until all connections are open.
    OpenTime,
    /// Time for one message on a connection that was idle, in microseconds.
    WakeUp,
    /// Time, divided by what it would be if no callback waited for another.
    TimeOverIdeal,
    /// From SIGTERM to the return of `smfi_main`, in milliseconds.
    StopTime,
    /// From exec to the first connection, in milliseconds.
    StartTime,
}

impl Measure {
    /// How tables call it.
    pub fn label(self) -> &'static str {
        match self {
            Measure::Messages => "messages/s",
            Measure::MessagesPerCoreSecond => "messages per core second",
            Measure::CpuPerMessage => "CPU us/message",
            Measure::GeneratorCpu => "generator CPU us/message",
            Measure::SwitchesPerMessage => "context switches/message",
            Measure::CallsPerMessage => "system calls/message",
            Measure::MessageP50 => "message p50 us",
            Measure::MessageP99 => "message p99 us",
            Measure::RcptP99 => "RCPT p99 us",
            Measure::Throughput => "MiB/s",
            Measure::Connections => "connections/s",
            Measure::CpuPerConnection => "CPU us/connection",
            Measure::Memory => "memory MiB",
            Measure::MemoryPerConnection => "memory KiB/connection",
            Measure::Threads => "threads",
            Measure::OpenTime => "seconds to open all",
            Measure::WakeUp => "us/message on an idle one",
            Measure::TimeOverIdeal => "time/ideal",
            Measure::StopTime => "ms to stop",
            Measure::StartTime => "ms to accept",
        }
    }
}
