//! Naming what could not be tested.

use std::{env, fs::OpenOptions, io::Write};

/// Whether a missing prerequisite is a failure: `LIBMILTER_REQUIRE_ALL=1`.
#[must_use]
pub fn require_all() -> bool {
    env::var_os("LIBMILTER_REQUIRE_ALL").is_some_and(|value| value == "1")
}

/// Reports that `name` was not tested because it needs `needs`.
///
/// The report goes to standard error past the test runner's capture and, as one line, to the
/// file named by `LIBMILTER_SKIP_LOG`.
///
/// # Panics
///
/// When `LIBMILTER_REQUIRE_ALL=1` asks for a complete run, or the log cannot be written.
pub fn skip(name: &str, needs: &str) {
    assert!(!require_all(), "{name}: needs {needs}, and LIBMILTER_REQUIRE_ALL=1 forbids skipping");
    let line = format!("SKIPPED {name}: needs {needs}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = env::var_os("LIBMILTER_SKIP_LOG") {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut log| log.write_all(line.as_bytes()))
            .unwrap_or_else(|error| panic!("LIBMILTER_SKIP_LOG={}: {error}", path.display()));
    }
}
