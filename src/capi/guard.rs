//! Keeps panics on the Rust side of the boundary, and the end of a thread out of it.

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::mfapi::{MI_FAILURE, MI_SUCCESS, SMFICTX};
use super::pointer::session;
use crate::server::Context;
use crate::sys::cancellation::Cancellation;

/// Runs the body of an exported function and returns `refused` when it gives no answer or panics.
///
/// A mail filter that sees one call refused goes on; one that is aborted takes all its sessions along. So the thread is
/// not cancelled in the body either: unwinding through it would abort.
pub(super) fn guard<R>(refused: R, call: impl FnOnce() -> Option<R>) -> R {
    let outside = Cancellation::DISABLED.set();
    let answer = catch_unwind(AssertUnwindSafe(call));
    outside.set();
    answer.ok().flatten().unwrap_or(refused)
}

/// Runs the body of the exported function `name`, which is about a session. The body says whether that was done; `None`
/// stands for arguments that cannot be used, of which the session learns here.
///
/// # Safety
///
/// Session rule of the pointer contract, for as long as the body uses the session.
pub(super) unsafe fn on_session<'a>(
    ctx: *mut SMFICTX,
    name: &'static str,
    body: impl FnOnce(&'a Context) -> Option<bool>,
) -> c_int {
    guard(MI_FAILURE, || {
        // SAFETY: passed on to the caller.
        let session = unsafe { session(ctx)? };
        body(session).unwrap_or_else(|| session.refuse_arguments(name)).then_some(MI_SUCCESS)
    })
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
