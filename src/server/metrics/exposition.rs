//! The numbers as Prometheus reads them: its text format, version 0.0.4.

use std::ffi::CStr;
use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use milter_protocol::{Callbacks, Escaped};

use super::{BOUNDS, Calls, Counters, FAILURES, MODIFICATIONS, VERDICTS};

/// How the first line of every such file begins.
pub(super) const HEADING: &str = "# Numbers about the filter ";

/// The line with which all numbers of a filter begin, and by which its file is known.
pub(super) fn heading(filter: &CStr) -> String {
    format!("{HEADING}{}.\n", label(filter))
}

/// All of them, each with the filter's name, so that those of several filters can be put together.
pub(super) fn text(counters: &Counters, filter: &CStr, open: usize) -> String {
    let mut page = Page { text: heading(filter), filter: label(filter) };
    page.text.reserve(16 * 1024);
    let one = |counter: &AtomicU64| counter.load(Relaxed);

    page.heading("sessions_total", "counter", "Sessions with MTAs that have begun.");
    page.sample("sessions_total", "", one(&counters.sessions));
    page.heading("sessions_open", "gauge", "Sessions with MTAs at the moment.");
    page.sample("sessions_open", "", open);
    page.heading("messages_total", "counter", "Messages that came to their end.");
    page.sample("messages_total", "", one(&counters.messages));

    page.heading("verdicts_total", "counter", "What callbacks returned about mail.");
    for (callback, calls) in by_name(counters) {
        for (verdict, counter) in VERDICTS.iter().zip(&calls.verdicts).filter(|(_, counter)| one(counter) > 0) {
            let labels = format!(",callback=\"{callback}\",verdict=\"{verdict}\"");
            page.sample("verdicts_total", &labels, one(counter));
        }
    }

    page.heading("callback_duration_seconds", "histogram", "How long callbacks ran.");
    for (callback, calls) in by_name(counters) {
        page.histogram("callback_duration_seconds", callback, calls);
    }

    page.heading("modifications_total", "counter", "Changes of messages that the filter asked for.");
    for (kind, counter) in MODIFICATIONS.iter().zip(&counters.modifications) {
        page.sample("modifications_total", &format!(",kind=\"{kind}\""), one(counter));
    }
    page.heading("received_bytes_total", "counter", "Octets that came from MTAs.");
    page.sample("received_bytes_total", "", one(&counters.received));
    page.heading("sent_bytes_total", "counter", "Octets that were sent to MTAs.");
    page.sample("sent_bytes_total", "", one(&counters.sent));
    page.heading("protocol_errors_total", "counter", "Sessions that failed, by what was wrong.");
    for (kind, counter) in FAILURES.iter().zip(&counters.failures) {
        page.sample("protocol_errors_total", &format!(",kind=\"{kind}\""), one(counter));
    }
    page.heading("log_lines_suppressed_total", "counter", "Lines about sessions left out of the log.");
    page.sample("log_lines_suppressed_total", "", one(&counters.suppressed));
    #[cfg(target_os = "linux")]
    {
        page.heading("threads", "gauge", "Threads of the process that takes connections.");
        page.sample("threads", "", crate::sys::process::threads());
    }
    page.text
}

/// The callbacks that have run, by their names without `xxfi_`.
fn by_name(counters: &Counters) -> impl Iterator<Item = (&'static str, &Calls)> {
    let has_run = |calls: &&Calls| calls.durations.iter().any(|counter| counter.load(Relaxed) > 0);
    let calls = Callbacks::all().iter().zip(&counters.callbacks);
    calls.filter(move |(_, calls)| has_run(calls)).map(|(callback, calls)| (&callback.c_name()["xxfi_".len()..], calls))
}

/// A name as the value of a label, which has quotes and backslashes escaped once more.
fn label(name: &CStr) -> String {
    Escaped(name.to_bytes()).to_string().replace('\\', "\\\\").replace('"', "\\\"")
}

struct Page {
    text: String,
    filter: String,
}

impl Page {
    fn heading(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP milter_{name} {help}\n# TYPE milter_{name} {kind}"));
    }

    /// `labels` come after the first one, each with a comma before it.
    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let filter = std::mem::take(&mut self.filter);
        self.line(format_args!("milter_{name}{{filter=\"{filter}\"{labels}}} {value}"));
        self.filter = filter;
    }

    fn histogram(&mut self, name: &str, callback: &str, calls: &Calls) {
        let mut so_far = 0;
        let bounds = BOUNDS.iter().map(|(_, seconds)| *seconds).chain(["+Inf"]);
        for (bound, counter) in bounds.zip(&calls.durations) {
            so_far += counter.load(Relaxed);
            let labels = format!(",callback=\"{callback}\",le=\"{bound}\"");
            self.sample(&format!("{name}_bucket"), &labels, so_far);
        }
        let labels = format!(",callback=\"{callback}\"");
        self.sample(&format!("{name}_sum"), &labels, calls.nanoseconds.load(Relaxed) as f64 / 1e9);
        self.sample(&format!("{name}_count"), &labels, so_far);
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_label() {
        let name = c"a\"\\\n\x1b\xe4\u{202e}";
        assert_eq!(label(name), r#"a\"\\\\n\\u{1b}\\xe4\\u{202e}"#);
        assert_eq!(heading(c"\x1b"), "# Numbers about the filter \\\\u{1b}.\n");
    }
}
