//! `smfi_setmlreply`, and how functions with a variable number of arguments are defined.
//!
//! Rust defines such functions from 1.99 on; build.rs then sets `c_variadic`. For older compilers a few
//! instructions store the arguments where Rust can read them: those that came in registers are written to the
//! stack, and [`set_reply_lines`] is given both places. Either way the lines are read one by one and nothing
//! behind the closing NULL is touched.

use super::guard::on_session;
use super::mfapi::SMFICTX;
use super::pointer::string;
use milter_protocol::SmtpReply;
use std::ffi::{c_char, c_int};

/// Sets an SMTP reply of several lines with which the MTA refuses.
///
/// As smfi_setreply(), but with the text as a list of lines that ends with NULL, cast to char pointer:
/// smfi_setmlreply(ctx, "550", "5.7.1", "first", "second", (char *) NULL).
///
/// @param ctx the session.
/// @param code three digits, the first of them 4 or 5.
/// @param status an enhanced status code such as "5.7.1"; NULL stands for "4.0.0" or "5.0.0".
/// @return MI_SUCCESS, or MI_FAILURE if an argument is not as said, there are more than 32 lines, or a line is
/// longer than 980 octets or contains CR or LF; an earlier reply then stays.
#[cfg(c_variadic)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smfi_setmlreply(
    ctx: *mut SMFICTX,
    code: *const c_char,
    status: *const c_char,
    mut lines: ...
) -> c_int {
    // SAFETY: session and string rules of the pointer contract, for each line up to the NULL.
    unsafe { set_reply(ctx, code, status, std::iter::from_fn(|| Some(lines.next_arg::<*const c_char>()))) }
}

/// Defines a C function with three fixed arguments and a variable number of pointers behind them.
///
/// A few instructions write the variable arguments that came in registers to the stack and call `$target` with the fixed
/// ones, the address of those, and the address of the others.
#[cfg(not(c_variadic))]
macro_rules! three_and_pointers {
    ($(#[$attribute:meta])* $name:ident($first:ty, $second:ty, $third:ty) -> $result:ty = $target:path) => {
        $(#[$attribute])*
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(_: $first, _: $second, _: $third) -> $result {
            // x86-64 passes them in rcx, r8 and r9.
            #[cfg(target_arch = "x86_64")]
            std::arch::naked_asm!(
                ".cfi_startproc",
                // The arguments from the seventh on lie above the return address.
                "lea rax, [rsp + 8]",
                // Three slots, which also align the stack to 16 bytes.
                "sub rsp, 24",
                ".cfi_adjust_cfa_offset 24",
                "mov [rsp], rcx",
                "mov [rsp + 8], r8",
                "mov [rsp + 16], r9",
                "mov rcx, rsp",
                "mov r8, rax",
                "call {target}",
                "add rsp, 24",
                ".cfi_adjust_cfa_offset -24",
                "ret",
                ".cfi_endproc",
                target = sym $target,
            );
            // AArch64 passes them in x3 to x7.
            #[cfg(target_arch = "aarch64")]
            std::arch::naked_asm!(
                ".cfi_startproc",
                "stp x29, x30, [sp, #-64]!",
                ".cfi_def_cfa_offset 64",
                ".cfi_offset x29, -64",
                ".cfi_offset x30, -56",
                "stp x3, x4, [sp, #16]",
                "stp x5, x6, [sp, #32]",
                "str x7, [sp, #48]",
                "add x3, sp, #16",
                "add x4, sp, #64",
                "bl {target}",
                "ldp x29, x30, [sp], #64",
                ".cfi_def_cfa_offset 0",
                ".cfi_restore x29",
                ".cfi_restore x30",
                "ret",
                ".cfi_endproc",
                target = sym $target,
            );
            // RISC-V passes them in a3 to a7.
            #[cfg(target_arch = "riscv64")]
            std::arch::naked_asm!(
                ".cfi_startproc",
                "addi sp, sp, -48",
                ".cfi_def_cfa_offset 48",
                "sd ra, 40(sp)",
                ".cfi_offset ra, -8",
                "sd a3, 0(sp)",
                "sd a4, 8(sp)",
                "sd a5, 16(sp)",
                "sd a6, 24(sp)",
                "sd a7, 32(sp)",
                "mv a3, sp",
                "addi a4, sp, 48",
                "call {target}",
                "ld ra, 40(sp)",
                ".cfi_restore ra",
                "addi sp, sp, 48",
                ".cfi_def_cfa_offset 0",
                "ret",
                ".cfi_endproc",
                target = sym $target,
            );
        }
    };
}
#[cfg(not(c_variadic))]
pub(super) use three_and_pointers;

#[cfg(not(c_variadic))]
three_and_pointers! {
    /// Stores the lines for [`set_reply_lines`].
    smfi_setmlreply(*mut SMFICTX, *const c_char, *const c_char) -> c_int = set_reply_lines
}

#[cfg(all(not(c_variadic), not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))))]
compile_error!("functions with variable arguments have no code for this processor: use Rust 1.99 or newer");

/// How many variable arguments behind three fixed ones come in registers; the others are on the stack.
///
/// Apple passes all variable arguments on the stack on AArch64, against the usual convention.
#[cfg(not(c_variadic))]
const POINTERS_IN_REGISTERS: usize = match () {
    () if cfg!(all(target_arch = "aarch64", target_vendor = "apple")) => 0,
    () if cfg!(target_arch = "x86_64") => 3,
    () => 5,
};

/// The variable arguments of a function made by [`three_and_pointers`], in order and without an end.
///
/// # Safety
///
/// `saved` and `stacked` are what such a function passes on, and no more are taken than the caller gave.
#[cfg(not(c_variadic))]
pub(super) unsafe fn pointers(
    saved: *const *const c_char,
    stacked: *const *const c_char,
) -> impl Iterator<Item = *const c_char> {
    (0..).map(move |slot: usize| match slot.checked_sub(POINTERS_IN_REGISTERS) {
        // SAFETY: the caller of this function takes only arguments that exist.
        None => unsafe { *saved.add(slot) },
        // SAFETY: as above.
        Some(slot) => unsafe { *stacked.add(slot) },
    })
}

/// What `smfi_setmlreply` does once its lines are in memory.
///
/// # Safety
///
/// `saved` points to the lines that came in registers, `stacked` to the others, and a NULL ends them all.
#[cfg(not(c_variadic))]
unsafe extern "C" fn set_reply_lines(
    ctx: *mut SMFICTX,
    code: *const c_char,
    status: *const c_char,
    saved: *const *const c_char,
    stacked: *const *const c_char,
) -> c_int {
    // SAFETY: `set_reply` stops at the NULL, and everything up to it exists.
    let slots = unsafe { pointers(saved, stacked) };
    // SAFETY: session and string rules of the pointer contract, for each line up to the NULL.
    unsafe { set_reply(ctx, code, status, slots) }
}

/// Sets the reply; takes no element of `lines` after a NULL.
///
/// # Safety
///
/// Session and string rules of the pointer contract, the latter also for each of `lines` up to a NULL.
unsafe fn set_reply(
    ctx: *mut SMFICTX,
    code: *const c_char,
    status: *const c_char,
    lines: impl Iterator<Item = *const c_char>,
) -> c_int {
    // SAFETY: passed on to the caller; NULL ends the lines.
    unsafe {
        on_session(ctx, "smfi_setmlreply", |session| {
            let lines = lines.map_while(|line| string(line)).fuse();
            let reply = SmtpReply::multiline(string(code)?, string(status), lines);
            Some(session.set_reply("smfi_setmlreply", reply))
        })
    }
}
