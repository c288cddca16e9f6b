//! Keeps panics on the Rust side of the boundary.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the body of an exported function and returns `refused` when it gives no answer or panics.
///
/// A mail filter that sees one call refused goes on; one that is aborted takes all its sessions along.
pub(super) fn guard<R>(refused: R, call: impl FnOnce() -> Option<R>) -> R {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Some(answer)) => answer,
        Ok(None) | Err(_) => refused,
    }
}

#[cfg(test)]
mod tests {
    use super::guard;

    #[test]
    fn an_answer_is_passed_on() {
        assert_eq!(guard(-1, || Some(3)), 3);
    }

    #[test]
    fn no_answer_is_a_refusal() {
        assert_eq!(guard(-1, || None), -1);
    }

    #[test]
    fn a_panic_is_a_refusal() {
        assert_eq!(guard(-1, || panic!("caught")), -1);
    }
}
