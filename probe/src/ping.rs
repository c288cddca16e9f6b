//! The sub-command `ping`: whether a filter answers, for monitoring.
//!
//! One line on standard output and an exit status, as plugins of Nagios and its relatives have them.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use milter_protocol::Escaped;

use crate::arguments::Ping;
use crate::failure::Failure;
use crate::mta::Patience;
use crate::session::Session;

/// How a filter is; its number is the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers in time.
    Ok = 0,
    /// It answers late.
    Warning = 1,
    /// It answers too late or not as it should.
    Critical = 2,
    /// Nobody knows: the command line makes no sense.
    Unknown = 3,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Health::Ok => "OK",
            Health::Warning => "WARNING",
            Health::Critical => "CRITICAL",
            Health::Unknown => "UNKNOWN",
        })
    }
}

impl From<Health> for ExitCode {
    fn from(health: Health) -> Self {
        ExitCode::from(health as u8)
    }
}

/// Runs the sub-command.
pub fn run(options: &Ping) -> ExitCode {
    let start = Instant::now();
    let (health, text) = match options.warning.zip(options.critical) {
        Some((warning, critical)) if warning > critical => {
            (Health::Unknown, "--warning is above --critical; turn them round".to_owned())
        }
        _ => match negotiate(options, start) {
            Ok((version, took)) => (options.judge(took), options.measured(version, took)),
            Err(failure) => (Health::Critical, format!("{}: {failure}", options.socket)),
        },
    };
    // Whoever has closed the stream still gets the status.
    let _ = writeln!(io::stdout(), "MILTER {health} - {}", Escaped(text.as_bytes()));
    health.into()
}

/// Connects and negotiates. Gives the protocol version and the time that both took together.
fn negotiate(options: &Ping, start: Instant) -> Result<(u32, Duration), Failure> {
    let stream = options.socket.connect(options.timeout)?;
    let left = options.timeout.saturating_sub(start.elapsed());
    let session = Session::negotiate(stream, options.mta, Patience::uniform(left))?;
    let took = start.elapsed();
    let version = session.negotiation().version;
    session.quit()?;
    Ok((version, took))
}

impl Ping {
    fn judge(&self, took: Duration) -> Health {
        let is_above = |limit: Option<Duration>| limit.is_some_and(|limit| took > limit);
        match (is_above(self.critical), is_above(self.warning)) {
            (true, _) => Health::Critical,
            (_, true) => Health::Warning,
            _ => Health::Ok,
        }
    }

    /// What was found, then the same for programs: value, both thresholds, least value.
    fn measured(&self, version: u32, took: Duration) -> String {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        let threshold =
            |limit: Option<Duration>| limit.map(|limit| milliseconds(limit).to_string()).unwrap_or_default();
        let (socket, took) = (&self.socket, milliseconds(took));
        let (warning, critical) = (threshold(self.warning), threshold(self.critical));
        format!(
            "{socket} negotiates protocol version {version} in {took:.1} ms | time={took:.3}ms;{warning};{critical};0"
        )
    }
}
