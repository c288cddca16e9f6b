//! Calling into C, and coming back even when the callback does not return.
//!
//! A callback may end its thread: with `pthread_exit`, when it is cancelled, or because an interpreter that goes down
//! does that to threads which come back to it. The C library then unwinds the stack without anybody's consent. Were it
//! to reach Rust frames, the process would be aborted.
//!
//! So callbacks are called through [`barrier`], a few instructions with unwind information that names [`personality`]:
//! the unwinder asks it what to do with this frame. It has a forced unwind end there, as if the callback had returned,
//! and the thread goes on to its regular end. A C++ exception finds no handler beyond it, so that `std::terminate` runs
//! where it was thrown, which is what happens to one that leaves a callback called from C.
//!
//! Everywhere else in the library, cancellation is disabled: in the threads that models start, and in exported functions
//! (`capi::guard`), `smfi_main` among them, in which the model `fork` runs its sessions. A thread that is cancelled there
//! ends in its next callback, at the end of that at the latest.
//!
//! With a C library that unwinds nothing, such as musl, a thread that ends in a callback is simply gone.

use std::ffi::{c_int, c_void};

use crate::sys::cancellation::{self, Cancellation};

/// Calls a callback; `None` if it has ended its thread, which is then to do nothing more than to return.
///
/// No frame in between has anything to clean up: `Copy` sees to it.
pub(super) fn call(callback: impl FnOnce() -> c_int + Copy) -> Option<c_int> {
    struct Pending<F> {
        callback: F,
        returned: Option<c_int>,
    }

    unsafe extern "C-unwind" fn run<F: FnOnce() -> c_int + Copy>(pending: *mut c_void) {
        let pending = pending.cast::<Pending<F>>();
        let outside = Cancellation::ENABLED.set();
        // SAFETY: `call` passes this function with a `Pending` of the same type, and does not use it meanwhile.
        let value = unsafe { ((*pending).callback)() };
        cancellation::test();
        outside.set();
        // SAFETY: the same.
        unsafe { (*pending).returned = Some(value) };
    }

    fn with_type<F: FnOnce() -> c_int + Copy>(_: &F) -> unsafe extern "C-unwind" fn(*mut c_void) {
        run::<F>
    }

    let run = with_type(&callback);
    let mut pending = Pending { callback, returned: None };
    // SAFETY: the function is the one for this kind of `Pending`.
    unsafe { barrier(run, (&raw mut pending).cast()) };
    pending.returned
}

/// Calls `run(pending)`. Returns when that returns or when a forced unwind arrives here.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn barrier(run: unsafe extern "C-unwind" fn(*mut c_void), pending: *mut c_void) {
    std::arch::naked_asm!(
        ".cfi_startproc",
        // A 32-bit distance from here.
        ".cfi_personality 0x1b, {personality}",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "mov rax, rdi",
        "mov rdi, rsi",
        "call rax",
        "pop rbp",
        ".cfi_def_cfa rsp, 8",
        "ret",
        ".cfi_endproc",
        personality = sym personality,
    )
}

/// Calls `run(pending)`. Returns when that returns or when a forced unwind arrives here.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn barrier(run: unsafe extern "C-unwind" fn(*mut c_void), pending: *mut c_void) {
    std::arch::naked_asm!(
        ".cfi_startproc",
        // A 32-bit distance from here.
        ".cfi_personality 0x1b, {personality}",
        "stp x29, x30, [sp, #-16]!",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset x29, -16",
        ".cfi_offset x30, -8",
        "mov x29, sp",
        "mov x9, x0",
        "mov x0, x1",
        "blr x9",
        "ldp x29, x30, [sp], #16",
        ".cfi_def_cfa_offset 0",
        ".cfi_restore x29",
        ".cfi_restore x30",
        "ret",
        ".cfi_endproc",
        personality = sym personality,
    )
}

/// What the unwinder asks about the frame of [`barrier`], as the C++ ABI for Itanium defines it ("Exception Handling",
/// 1.6 and 2.5). The frame's place to go on is where its call returns to, and that is right: it is left as it is.
extern "C" fn personality(
    _version: c_int,
    actions: c_int,
    _class: u64,
    _exception: *mut c_void,
    _context: *mut c_void,
) -> c_int {
    const FORCE_UNWIND: c_int = 8;
    const FATAL_PHASE1_ERROR: c_int = 3;
    const INSTALL_CONTEXT: c_int = 7;
    if actions & FORCE_UNWIND == 0 { FATAL_PHASE1_ERROR } else { INSTALL_CONTEXT }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back() {
        assert_eq!(call(|| 7), Some(7));
    }

    #[test]
    fn cancellation_is_enabled_in_callbacks_only() {
        let outside = Cancellation::DISABLED.set();
        let is_enabled = || c_int::from(Cancellation::ENABLED.set() == Cancellation::ENABLED);
        assert_eq!(call(is_enabled), Some(1));
        assert_eq!(outside.set(), Cancellation::DISABLED);
    }

    #[cfg(target_env = "gnu")]
    #[test]
    fn a_cancellation_waits_for_the_end_of_a_callback() {
        unsafe extern "C" {
            fn pthread_cancel(thread: libc::pthread_t) -> c_int;
        }
        let thread = std::thread::spawn(|| {
            Cancellation::DISABLED.set();
            // SAFETY: the thread is the calling one.
            unsafe { pthread_cancel(libc::pthread_self()) };
            // A cancellation point.
            std::thread::sleep(std::time::Duration::from_millis(1));
            call(|| 7)
        });
        assert_eq!(thread.join().unwrap(), None);
    }

    #[cfg(target_env = "gnu")]
    #[test]
    fn a_callback_that_ends_its_thread_comes_back_without_a_value() {
        unsafe extern "C-unwind" {
            fn pthread_exit(value: *mut c_void) -> !;
        }
        let thread = std::thread::spawn(|| {
            // Twice: the callbacks that end a session may do it again.
            // SAFETY: no frame up to the barrier has anything to clean up.
            [(); 2].map(|()| call(|| unsafe { pthread_exit(std::ptr::null_mut()) }))
        });
        assert_eq!(thread.join().unwrap(), [None, None]);
    }
}
