//! What the administrator sets without asking the filter: `LIBMILTER_OPTIONS="model=threads, drain=10"`.
//!
//! Names and values are separated by `=`, settings by commas; blanks around each do not matter. What is not understood
//! keeps the filter from starting: half a configuration is worse than none.

use std::fmt;
use std::time::Duration;

use crate::sys::process;

/// The settings of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// How sessions are run.
    pub(super) model: ModelName,
    /// How long a stop waits for callbacks and messages in progress.
    pub(super) drain: Duration,
}

/// A concurrency model by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModelName {
    Pool,
    Threads,
}

/// Why options cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OptionError(String);

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LIBMILTER_OPTIONS: {}", self.0)
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            // Other systems have no event loop here yet.
            model: if cfg!(target_os = "linux") { ModelName::Pool } else { ModelName::Threads },
            drain: Duration::from_secs(5),
        }
    }
}

impl Options {
    const VARIABLE: &std::ffi::CStr = c"LIBMILTER_OPTIONS";

    /// Reads the environment; set-uid programs have none.
    pub(super) fn from_environment() -> Result<Self, OptionError> {
        match process::environment(Self::VARIABLE) {
            Some(text) => Self::parse(&text.to_string_lossy()),
            None => Ok(Self::default()),
        }
    }

    fn parse(text: &str) -> Result<Self, OptionError> {
        let mut options = Self::default();
        for setting in text.split(',').map(str::trim).filter(|setting| !setting.is_empty()) {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            options.set(name.trim(), value.trim())?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), OptionError> {
        let wrong = |wanted: &str| OptionError(format!("option {name}={value}: the value must be {wanted}"));
        match name {
            "model" => {
                self.model = match value {
                    "pool" if cfg!(target_os = "linux") => ModelName::Pool,
                    "threads" => ModelName::Threads,
                    _ => return Err(wrong("pool or threads")),
                }
            }
            "drain" => {
                self.drain = Duration::from_secs(value.parse::<u32>().map_err(|_| wrong("a number of seconds"))?.into())
            }
            _ => return Err(OptionError(format!("unknown option {name}; there are model and drain"))),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_and_empty_settings_do_not_matter() {
        let wanted = Options { model: ModelName::Threads, drain: Duration::from_secs(10) };
        for text in ["model=threads,drain=10", " model = threads , drain= 10 ,", ",drain=10,,model=threads"] {
            assert_eq!(Options::parse(text), Ok(wanted), "{text}");
        }
        assert_eq!(Options::parse(""), Ok(Options::default()));
    }

    #[test]
    fn what_is_not_understood_is_an_error_that_says_what_would_be() {
        let message = |text| Options::parse(text).unwrap_err().to_string();
        assert_eq!(message("model=quick"), "LIBMILTER_OPTIONS: option model=quick: the value must be pool or threads");
        assert_eq!(message("drain=-1"), "LIBMILTER_OPTIONS: option drain=-1: the value must be a number of seconds");
        assert_eq!(message("speed=11"), "LIBMILTER_OPTIONS: unknown option speed; there are model and drain");
    }
}
