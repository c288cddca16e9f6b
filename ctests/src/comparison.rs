//! The same mail past the same filter with every library.

use std::{
    fmt::{Debug, Display},
    time::Duration,
};

use crate::{MailServer, Origin, PATIENCE, Service, Setting, Sink};

/// Does the same with every library, ours in the models that run sessions on threads; what is seen has to be the same,
/// and is returned. Nothing else may have arrived at `sink`.
///
/// # Panics
///
/// When something differs.
pub fn same_with_each<T: PartialEq + Debug>(test: &str, sink: &Sink, see: impl Fn(&Setting) -> Vec<T>) -> Vec<T> {
    same_with(Setting::each(test), test, sink, see)
}

/// The same with these candidates, of which there is at least one.
///
/// # Panics
///
/// When something differs.
pub fn same_with<C: Display, T: PartialEq + Debug>(
    candidates: impl IntoIterator<Item = C>,
    test: &str,
    sink: &Sink,
    see: impl Fn(&C) -> Vec<T>,
) -> Vec<T> {
    let mut first: Option<(C, Vec<T>)> = None;
    for candidate in candidates {
        let seen = see(&candidate);
        sink.assert_empty();
        let Some((other, expected)) = &first else {
            first = Some((candidate, seen));
            continue;
        };
        for (number, (one, another)) in seen.iter().zip(expected).enumerate() {
            assert!(one == another, "{test}, {number}: {candidate}\n{one:?}\n{other}\n{another:?}");
        }
        assert_eq!(seen.len(), expected.len(), "{test}: {candidate} differs from {other}");
    }
    first.expect("there is a candidate").1
}

/// Checks that the MTA had nothing to complain about.
///
/// # Panics
///
/// When it had.
pub fn assert_untroubled(test: &str, mta: &dyn MailServer) {
    assert_eq!(mta.complaints(), [""; 0], "{test}");
}

/// Ends a filter as a service manager does: our library needs no time for that, and does not wait out the five seconds
/// that it gives messages in progress. The reference would take up to five seconds of each test.
///
/// # Panics
///
/// When it does not end, or not well.
pub fn stop(setting: &Setting, filter: Service) {
    if setting.library.origin() == Origin::Ours {
        let output = filter.output();
        let (status, time) = filter.stop(PATIENCE);
        assert_eq!(status.code(), Some(0), "{setting}: {status}: {output}");
        assert!(time < Duration::from_secs(4), "{setting}: it took {time:?}");
    }
}
