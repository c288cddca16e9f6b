//! Waiting for what has to happen sooner or later.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

/// How long anything may take that takes no time worth mentioning: much longer than a slow and busy machine needs. Less
/// where a library is expected to be wrong (`tests/mutations.rs`): half of the tests wait in vain there.
pub const PATIENCE: Duration = Duration::from_secs(if option_env!("LIBMILTER_IMPATIENT").is_some() { 10 } else { 30 });

/// Waits until `condition` holds; `what` says what that means.
///
/// # Panics
///
/// When it does not within [`PATIENCE`].
#[track_caller]
pub fn eventually(what: impl Display, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {} seconds: {what}", PATIENCE.as_secs());
        thread::sleep(Duration::from_millis(2));
    }
}
