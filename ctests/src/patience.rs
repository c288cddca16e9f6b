//! Waiting for what has to happen sooner or later.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

/// How long anything may take that takes no time worth mentioning: much longer than a slow and busy machine needs.
pub const PATIENCE: Duration = Duration::from_secs(30);

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
