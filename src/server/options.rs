//! What can be set beyond the calls of the C interface: by the administrator with
//! `LIBMILTER_OPTIONS="model=threads, drain=10"`, by the program with `smfi_setopt("drain", "10")`.
//!
//! In the environment names and values are separated by `=`, settings by commas; blanks around each do not matter. The
//! administrator's word wins over the program's. What is not understood keeps the filter from starting: half a
//! configuration is worse than none.

use std::ffi::CString;
use std::fmt;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use milter_protocol::Steps;

use super::admission::Limits;
use super::metrics;
use super::socket_file::{Replace, Wanted};
use super::trace::{Format, Target};
use super::watch::Patience;
use crate::sys::process;

/// The settings of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// How sessions are run.
    pub(super) model: ModelName,
    /// How many worker processes there are, each with the model; `None` is none beside the program itself.
    pub(super) processes: Option<NonZero<u16>>,
    /// How many threads may run callbacks at once in each process; `None` is as many as are needed.
    pub(super) threads: Option<NonZero<u16>>,
    /// How long a stop waits for callbacks and messages in progress.
    pub(super) drain: Duration,
    /// Where to listen besides the place that the program names.
    pub(super) listen: Vec<CString>,
    /// How sockets appear in the file system, and disappear.
    pub(super) socket_file: Wanted,
    /// How many sessions there may be at once.
    pub(super) limits: Limits,
    /// How long a new connection may take to negotiate.
    pub(super) negotiate_timeout: Option<Duration>,
    /// How long a session may be silent, where that is not up to the program; the inner `None` is forever.
    pub(super) idle_timeout: Option<Option<Duration>>,
    /// How long a callback may run.
    pub(super) patience: Patience,
    /// Where numbers about the run are shown.
    pub(super) metrics: Option<metrics::Target>,
    /// Whether HUP, TERM and INT are the library's.
    pub(super) take_signals: bool,
    /// Where every command, callback, call and reply is written to.
    pub(super) trace: Option<Target>,
    pub(super) trace_format: Format,
    /// Octets of each piece of a body in the trace.
    pub(super) trace_body: usize,
    /// The directory where sessions are recorded.
    pub(super) record: Option<PathBuf>,
    /// Whether the log has advice about calls without the effect that their author expects.
    pub(super) hints: bool,
    /// The no-reply steps that the filter's author promises.
    pub(super) no_reply: Steps,
}

/// A concurrency model by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModelName {
    Pool,
    Threads,
    Fork,
}

/// One option.
struct Row {
    name: &'static str,
    /// The values it takes, for people who wrote another one.
    values: &'static str,
    who: Who,
    /// Sets it; `None` for a value that it does not take.
    set: fn(&mut Options, &str) -> Option<()>,
}

/// Who may set an option.
#[derive(PartialEq, Eq)]
enum Who {
    Anybody,
    /// It is a promise about the filter's code.
    Author,
}

const ROWS: &[Row] = &[
    Row {
        name: "model",
        values: if cfg!(target_os = "linux") { "pool, threads or fork" } else { "threads" },
        who: Who::Anybody,
        set: |options, value| {
            options.model = match value {
                "pool" if cfg!(target_os = "linux") => ModelName::Pool,
                "threads" => ModelName::Threads,
                "fork" if cfg!(target_os = "linux") => ModelName::Fork,
                _ => return None,
            };
            Some(())
        },
    },
    #[cfg(target_os = "linux")]
    Row {
        name: "processes",
        values: "a number up to 1024, or 0 for none",
        who: Who::Anybody,
        set: |options, value| {
            options.processes = NonZero::new(value.parse().ok().filter(|workers| *workers <= 1024)?);
            Some(())
        },
    },
    Row {
        name: "threads",
        values: "a number up to 65535, or 0 for as many as are needed",
        who: Who::Anybody,
        set: |options, value| {
            options.threads = NonZero::new(value.parse().ok()?);
            Some(())
        },
    },
    Row {
        name: "drain",
        values: "a number of seconds",
        who: Who::Anybody,
        set: |options, value| {
            options.drain = seconds(value)?;
            Some(())
        },
    },
    Row {
        name: "listen",
        values: "a socket description, such as inet6:8891@[::1]; given again, it adds another one",
        who: Who::Anybody,
        set: |options, value| {
            options.listen.push(CString::new(value).ok().filter(|value| !value.is_empty())?);
            Some(())
        },
    },
    Row {
        name: "socket-mode",
        values: "permission bits in octal, such as 0660",
        who: Who::Anybody,
        set: |options, value| {
            let mode = u16::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o777)?;
            options.socket_file.mode = Some(mode);
            Some(())
        },
    },
    Row {
        name: "socket-owner",
        values: "the name or number of a user",
        who: Who::Anybody,
        set: |options, value| {
            options.socket_file.owner = Some(account(value)?);
            Some(())
        },
    },
    Row {
        name: "socket-group",
        values: "the name or number of a group",
        who: Who::Anybody,
        set: |options, value| {
            options.socket_file.group = Some(account(value)?);
            Some(())
        },
    },
    Row {
        name: "socket-replace",
        values: "never, stale or always",
        who: Who::Anybody,
        set: |options, value| {
            let words = [("never", Replace::Never), ("stale", Replace::Stale), ("always", Replace::Always)];
            options.socket_file.replace = Some(word(value, &words)?);
            Some(())
        },
    },
    Row {
        name: "socket-remove",
        values: "yes or no",
        who: Who::Anybody,
        set: |options, value| {
            options.socket_file.remove = Some(word(value, &[("yes", true), ("no", false)])?);
            Some(())
        },
    },
    Row {
        name: "max-sessions",
        values: "a number up to 4294967295, or 0 for no limit",
        who: Who::Anybody,
        set: |options, value| {
            let sessions = NonZero::new(value.parse().ok()?);
            // Without a limit nobody waits for admission.
            options.limits = Limits { sessions, wait: options.limits.wait.filter(|_| sessions.is_some()) };
            Some(())
        },
    },
    Row {
        name: "admission-wait",
        values: "a number of seconds",
        who: Who::Anybody,
        set: |options, value| {
            options.limits.wait = Some(seconds(value)?);
            Some(())
        },
    },
    Row {
        name: "negotiate-timeout",
        values: "a number of seconds, or 0 for no limit",
        who: Who::Anybody,
        set: |options, value| {
            options.negotiate_timeout = limit(value)?;
            Some(())
        },
    },
    Row {
        name: "idle-timeout",
        values: "a number of seconds, or 0 for no limit",
        who: Who::Anybody,
        set: |options, value| {
            options.idle_timeout = Some(limit(value)?);
            Some(())
        },
    },
    Row {
        name: "callback-warn",
        values: "a number of seconds, or 0 for no limit",
        who: Who::Anybody,
        set: |options, value| {
            options.patience.warn = limit(value)?;
            Some(())
        },
    },
    Row {
        name: "callback-limit",
        values: "a number of seconds, or 0 for no limit",
        who: Who::Anybody,
        set: |options, value| {
            options.patience.limit = limit(value)?;
            Some(())
        },
    },
    Row {
        name: "metrics",
        values: "off, the absolute path of a file, or unix: and that of a socket",
        who: Who::Anybody,
        set: |options, value| {
            let path = |path: &str| CString::new(path).ok().filter(|path| path.to_bytes().starts_with(b"/"));
            options.metrics = match value.strip_prefix("unix:") {
                _ if value == "off" => None,
                Some(socket) => Some(metrics::Target::Socket(path(socket)?)),
                None => Some(metrics::Target::File(path(value)?)),
            };
            Some(())
        },
    },
    Row {
        name: "signals",
        values: "take or leave",
        who: Who::Anybody,
        set: |options, value| {
            options.take_signals = word(value, &[("take", true), ("leave", false)])?;
            Some(())
        },
    },
    Row {
        name: "trace",
        values: "off, stderr, syslog or an absolute path",
        who: Who::Anybody,
        set: |options, value| {
            options.trace = match value {
                "off" => None,
                "stderr" => Some(Target::Stderr),
                "syslog" => Some(Target::Syslog),
                path if path.starts_with('/') => Some(Target::Path(path.into())),
                _ => return None,
            };
            Some(())
        },
    },
    Row {
        name: "trace-body",
        values: "a number of octets",
        who: Who::Anybody,
        set: |options, value| {
            options.trace_body = value.parse().ok()?;
            Some(())
        },
    },
    Row {
        name: "trace-format",
        values: "text or json",
        who: Who::Anybody,
        set: |options, value| {
            options.trace_format = word(value, &[("text", Format::Text), ("json", Format::Json)])?;
            Some(())
        },
    },
    Row {
        name: "record",
        values: "off or the absolute path of a directory",
        who: Who::Anybody,
        set: |options, value| {
            options.record = match value {
                "off" => None,
                path if path.starts_with('/') => Some(path.into()),
                _ => return None,
            };
            Some(())
        },
    },
    Row {
        name: "hints",
        values: "on or off",
        who: Who::Anybody,
        set: |options, value| {
            options.hints = word(value, &[("on", true), ("off", false)])?;
            Some(())
        },
    },
    Row {
        name: "noreply",
        values: "all, or some of connect, helo, mail, rcpt, data, unknown, header, eoh and body with commas between them",
        who: Who::Author,
        set: |options, value| {
            options.no_reply = value.split(',').map(|stage| no_reply_step(stage.trim())).collect::<Option<_>>()?;
            Some(())
        },
    },
];

/// Who it is, is looked up when the socket is opened.
fn account(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// What one of a few words stands for.
fn word<T: Copy>(value: &str, words: &[(&str, T)]) -> Option<T> {
    words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning)
}

fn seconds(value: &str) -> Option<Duration> {
    value.parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()))
}

/// A time limit, of which 0 is none.
fn limit(value: &str) -> Option<Option<Duration>> {
    seconds(value).map(|limit| Some(limit).filter(|limit| !limit.is_zero()))
}

fn no_reply_step(stage: &str) -> Option<Steps> {
    Some(match stage {
        "connect" => Steps::NR_CONNECT,
        "helo" => Steps::NR_HELO,
        "mail" => Steps::NR_MAIL,
        "rcpt" => Steps::NR_RCPT,
        "data" => Steps::NR_DATA,
        "unknown" => Steps::NR_UNKNOWN,
        "header" => Steps::NR_HEADER,
        "eoh" => Steps::NR_EOH,
        "body" => Steps::NR_BODY,
        "all" => Steps::NO_REPLY,
        _ => return None,
    })
}

/// Why options cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OptionError(pub(super) String);

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Options {
    /// What holds where nobody says anything.
    pub(super) const DEFAULT: Self = Options {
        // Other systems have no event loop here yet.
        model: if cfg!(target_os = "linux") { ModelName::Pool } else { ModelName::Threads },
        processes: None,
        threads: None,
        drain: Duration::from_secs(5),
        listen: Vec::new(),
        socket_file: Wanted::NOTHING,
        limits: Limits::NONE,
        negotiate_timeout: None,
        idle_timeout: None,
        patience: Patience::ENDLESS,
        metrics: None,
        take_signals: true,
        trace: None,
        trace_format: Format::Text,
        trace_body: 0,
        record: None,
        hints: false,
        no_reply: Steps::empty(),
    };

    /// Whether sessions run in processes of their own, apart from the one that takes connections.
    pub(super) fn forks(&self) -> bool {
        self.model == ModelName::Fork || self.processes.is_some()
    }

    const VARIABLE: &std::ffi::CStr = c"LIBMILTER_OPTIONS";

    /// Sets an option by name, for the program.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), OptionError> {
        self.set_one_of(ROWS.iter(), name, value)
    }

    fn set_one_of(
        &mut self,
        mut rows: impl Iterator<Item = &'static Row> + Clone,
        name: &str,
        value: &str,
    ) -> Result<(), OptionError> {
        let names = rows.clone().map(|row| row.name);
        let row = rows.find(|row| row.name == name).ok_or_else(|| {
            OptionError(format!("unknown option {name}; there are {}", names.collect::<Vec<_>>().join(", ")))
        })?;
        let wrong = || OptionError(format!("option {name}={value}: the value must be {}", row.values));
        (row.set)(self, value).ok_or_else(wrong)
    }

    /// The settings of a run: the program's, and above them the administrator's. Set-uid programs get only their own.
    pub(super) fn with_environment(self) -> Result<Self, OptionError> {
        let options = match process::environment(Self::VARIABLE) {
            Some(text) => {
                text.to_str().map_err(|error| OptionError(error.to_string())).and_then(|text| self.with(text))
            }
            None => Ok(self),
        };
        let options = options.map_err(|error| OptionError(format!("{}: {error}", Self::VARIABLE.to_string_lossy())))?;
        options.agree().map(|()| options)
    }

    /// The same with the administrator's in `text`.
    pub(super) fn with(mut self, text: &str) -> Result<Self, OptionError> {
        for setting in text.split(',').map(str::trim).filter(|setting| !setting.is_empty()) {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            let (name, value) = (name.trim(), value.trim());
            if ROWS.iter().any(|row| row.name == name && row.who == Who::Author) {
                return Err(OptionError(format!(
                    "option {name} is for the filter's author, who sets it with smfi_setopt"
                )));
            }
            self.set_one_of(ROWS.iter().filter(|row| row.who == Who::Anybody), name, value)?;
        }
        Ok(self)
    }

    /// Finds options that exclude each other.
    pub(super) fn agree(&self) -> Result<(), OptionError> {
        match self {
            Options { model: ModelName::Threads, threads: Some(_), .. } => Err(OptionError(
                "option threads=N goes with model=pool; model=threads has one for each connection".into(),
            )),
            Options { model: ModelName::Fork, processes: Some(_), .. } => Err(OptionError(
                "option processes=N goes with model=pool or threads; model=fork has a process for each connection"
                    .into(),
            )),
            _ if self.forks() && matches!(self.metrics, Some(metrics::Target::Socket(_))) => Err(OptionError(
                "option metrics=unix:PATH goes with one process; with model=fork or processes=N use metrics=PATH"
                    .into(),
            )),
            _ if self.limits.wait.is_some() && self.limits.sessions.is_none() => {
                Err(OptionError("option admission-wait goes with max-sessions".into()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<Options, String> {
        Options::DEFAULT.with(text).map_err(|error| error.to_string())
    }

    #[test]
    fn blanks_and_empty_settings_do_not_matter() {
        let wanted = Options { model: ModelName::Threads, drain: Duration::from_secs(10), ..Options::DEFAULT };
        for text in ["model=threads,drain=10", " model = threads , drain= 10 ,", ",drain=10,,model=threads"] {
            assert_eq!(with(text), Ok(wanted.clone()), "{text}");
        }
        assert_eq!(with(""), Ok(Options::DEFAULT));
    }

    #[test]
    fn what_is_not_understood_is_an_error_that_says_what_would_be() {
        let message = |text| with(text).unwrap_err();
        assert_eq!(message("drain=-1"), "option drain=-1: the value must be a number of seconds");
        assert_eq!(
            message("threads=-1"),
            "option threads=-1: the value must be a number up to 65535, or 0 for as many as are needed"
        );
        assert!(message("model=quick").starts_with("option model=quick: the value must be "));
        let unknown = message("speed=11");
        assert!(unknown.starts_with("unknown option speed; there are model, "), "{unknown}");
        assert!(!unknown.contains("noreply"), "not in the environment: {unknown}");
        let unknown = Options::DEFAULT.clone().set("speed", "11").unwrap_err().to_string();
        assert!(unknown.ends_with(", noreply"), "{unknown}");
        assert_eq!(message("noreply=all"), "option noreply is for the filter's author, who sets it with smfi_setopt");
    }

    #[test]
    fn the_administrator_wins() {
        let mut options = Options::DEFAULT;
        options.set("drain", "1").unwrap();
        options.set("threads", "1").unwrap();
        let options = options.with("drain=2").unwrap();
        assert_eq!((options.drain, options.threads), (Duration::from_secs(2), NonZero::new(1)));
    }

    /// What the author has set is undone, without a word that means the default.
    #[test]
    fn the_administrator_can_undo() {
        let mut options = Options::DEFAULT;
        for (name, value) in
            [("threads", "1"), ("max-sessions", "3"), ("admission-wait", "2"), ("metrics", "/m"), ("trace", "stderr")]
        {
            options.set(name, value).unwrap();
        }
        assert_eq!(options.with("threads=0, max-sessions=0, metrics=off, trace=off"), Ok(Options::DEFAULT));
        let mut options = Options::DEFAULT;
        options.set("threads", "0").unwrap();
        options.set("max-sessions", "0").unwrap();
        assert_eq!(options, Options::DEFAULT);
    }

    #[test]
    fn stages_without_a_reply() {
        let mut options = Options::DEFAULT;
        options.set("noreply", "header, body").unwrap();
        assert_eq!(options.no_reply, Steps::NR_HEADER | Steps::NR_BODY);
        options.set("noreply", "all").unwrap();
        assert_eq!(options.no_reply, Steps::NO_REPLY);
        for bad in ["", "header,", "eom"] {
            assert!(options.set("noreply", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn further_listeners_add_up() {
        let mut options = Options::DEFAULT;
        options.set("listen", "unix:/run/a,b").unwrap();
        let options = options.with("listen=inet:1@[127.0.0.1], listen = fd:* ").unwrap();
        assert_eq!(options.listen, [c"unix:/run/a,b".to_owned(), c"inet:1@[127.0.0.1]".into(), c"fd:*".into()]);
    }

    #[test]
    fn limits_of_time_may_be_none() {
        let options = with("idle-timeout=0, negotiate-timeout=0").unwrap();
        assert_eq!((options.idle_timeout, options.negotiate_timeout), (Some(None), None));
        let options = with("idle-timeout=60, negotiate-timeout=5").unwrap();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!((options.idle_timeout, options.negotiate_timeout), (Some(seconds(60)), seconds(5)));
    }

    #[test]
    fn options_that_exclude_each_other() {
        assert!(with("threads=2").unwrap().agree().is_ok());
        assert!(with("threads=2, model=threads").unwrap().agree().is_err());
        assert!(with("admission-wait=2, max-sessions=3").unwrap().agree().is_ok());
        assert!(with("admission-wait=2").unwrap().agree().is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn processes() {
        assert_eq!(with("processes=1024").unwrap().processes, NonZero::new(1024));
        assert_eq!(with("processes=2, processes=0").unwrap().processes, None);
        for bad in ["processes=1025", "processes=-1", "processes=many"] {
            let message = format!("option {bad}: the value must be a number up to 1024, or 0 for none");
            assert_eq!(with(bad).unwrap_err(), message);
        }
        assert!(with("processes=2, model=threads").unwrap().agree().is_ok());
        assert!(with("processes=2, threads=1").unwrap().agree().is_ok());
        assert!(with("model=fork, threads=1").unwrap().agree().is_ok());
        assert!(with("model=fork, processes=2").unwrap().agree().is_err());
    }
}
