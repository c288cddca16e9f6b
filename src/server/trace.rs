//! What MTA and filter say to each other, line by line, for people and programs.

mod json;
mod outlet;

use std::ffi::{CStr, CString};
use std::io;
use std::time::{Duration, Instant, SystemTime};

use milter_protocol::packet::{Field, Value, write_fields};

use self::outlet::Outlet;
pub(super) use self::outlet::Target;
use crate::sys::process;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

/// A place for lines of all sessions.
pub(super) struct Trace {
    outlet: Outlet,
    format: Format,
    /// Octets shown of each piece of a body.
    content: usize,
    filter: CString,
    start: Instant,
}

/// One line.
struct Line<'a> {
    wall: SystemTime,
    /// Since the run began.
    elapsed: Duration,
    filter: &'a str,
    process: i32,
    session: Option<u64>,
    event: &'static str,
    what: &'a str,
    fields: &'a [Field<'a>],
}

impl Trace {
    pub(super) fn open(target: Target, format: Format, content: usize, filter: &CStr) -> io::Result<Self> {
        let outlet = Outlet::open(target, filter.to_owned())?;
        Ok(Trace { outlet, format, content, filter: filter.to_owned(), start: Instant::now() })
    }

    /// Writes a line about a session: what kind of event, which one, and its details.
    pub(super) fn write(&self, session: u64, event: &'static str, what: &str, fields: &[Field<'_>]) {
        let line = self.line(Some(session), event, what, fields);
        self.outlet.put(&line, |count| self.left_out(count));
    }

    /// Counts a line that there is no memory for.
    pub(super) fn leave_out(&self) {
        self.outlet.leave_out();
    }

    /// Waits until everything is written, or the time is up.
    pub(super) fn flush(&self, limit: Duration) {
        self.outlet.flush(limit, |count| self.left_out(count));
    }

    fn left_out(&self, count: u64) -> String {
        self.line(None, "trace", "left-out", &[("lines", Value::Number(count))])
    }

    fn line(&self, session: Option<u64>, event: &'static str, what: &str, fields: &[Field<'_>]) -> String {
        let line = Line {
            wall: SystemTime::now(),
            elapsed: self.start.elapsed(),
            filter: &self.filter.to_string_lossy(),
            process: process::id(),
            session,
            event,
            what,
            fields,
        };
        match self.format {
            Format::Text => line.text(self.content),
            Format::Json => json::line(&line, self.content),
        }
    }
}

impl Line<'_> {
    fn text(&self, content: usize) -> String {
        let session = self.session.map_or("-".to_owned(), |session| session.to_string());
        let (time, elapsed) = (rfc3339(self.wall), self.elapsed.as_secs_f64());
        let filter = self.filter.replace(|letter: char| !letter.is_ascii_graphic(), "-");
        let process = self.process;
        let mut text = format!("{time} {elapsed:.6} {filter}[{process}] {session} {}: {}", self.event, self.what);
        write_fields(self.fields, &mut text, content);
        text.push('\n');
        text
    }
}

/// Octets of a trace that tell it from other files.
const START_LENGTH: u64 = 20;

/// Whether a file that begins with these octets, or has no more of them, can be a trace: each line begins with its time.
fn is_start(octets: &[u8]) -> bool {
    let time = octets.strip_prefix(json::START.as_bytes()).unwrap_or(octets);
    let is_like = |(octet, model): (&u8, &u8)| if *model == b'0' { octet.is_ascii_digit() } else { octet == model };
    time.iter().zip(b"0000-00-00T").all(is_like)
}

/// A time in UTC with microseconds.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (day, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since.subsec_micros())
}

/// Year, month and day of the month, by days since 1970-01-01.
fn date(mut day: u64) -> (u64, usize, u64) {
    let mut year = 1970;
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    (year, month + 1, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_in_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000007Z"),
            (951_782_399, "2000-02-28T23:59:59.000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000007Z"),
        ] {
            assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::new(seconds, 7000)), text);
        }
    }

    #[test]
    fn a_trace_begins_with_a_time() {
        let fields = [];
        let line = line("data", &fields);
        for trace in [String::new(), "2026-1".into(), line.text(0), json::line(&line, 0)] {
            assert!(is_start(&trace.as_bytes()[..trace.len().min(START_LENGTH as usize)]), "{trace}");
        }
        for other in ["root:x:0:0", "\n", "{\"a\":1}", "2026-11-22 10:11"] {
            assert!(!is_start(other.as_bytes()), "{other}");
        }
    }

    fn line<'a>(what: &'static str, fields: &'a [Field<'a>]) -> Line<'a> {
        let (wall, elapsed) = (SystemTime::UNIX_EPOCH, Duration::from_micros(1_000_002));
        Line { wall, elapsed, filter: "f \n", process: 7, session: Some(3), event: "command", what, fields }
    }

    #[test]
    fn lines_of_text() {
        let fields = [("name", Value::Text(b"S")), ("body", Value::Content(b"xyz"))];
        let text = line("header", &fields).text(2);
        let front = "1970-01-01T00:00:00.000000Z 1.000002 f--[7] 3 command: header";
        assert_eq!(text, format!("{front} name=\"S\" octets=3 body=\"xy\"\n"));
    }

    #[test]
    fn lines_of_json() {
        let macros = vec![(&b"i"[..], &b"Q\"1"[..]), (b"{x}", b"\xe4")];
        let fields = [
            ("macros", Value::Pairs(macros)),
            ("arguments", Value::Texts(vec![b"a\n", b""])),
            ("steps", Value::Flags(vec!["skip".into()])),
            ("seconds", Value::Seconds(Duration::from_micros(5))),
            ("body", Value::Content(b"xyz")),
        ];
        let front = r#"{"time":"1970-01-01T00:00:00.000000Z","elapsed":1.000002,"filter":"f \n","pid":7,"session":3,"event":"command","what":"mail","#;
        let back = "\"macros\":{\"i\":\"Q\\\"1\",\"{x}\":\"\u{fffd}\"},\"arguments\":[\"a\\n\",\"\"],\"steps\":[\"skip\"],\"seconds\":0.000005,\"octets\":3}\n";
        assert_eq!(json::line(&line("mail", &fields), 0), format!("{front}{back}"));
    }
}
