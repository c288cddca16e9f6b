//! The system calls of every step, without the C library's wrappers where the system lets us (Linux).
//!
//! The wrappers are cancellation points, which the library has no use for (`sys::cancellation`), and cost as much again
//! as the way into the kernel.

use std::ffi::c_void;

use libc::{c_int, ssize_t};

/// As `recv(2)`.
///
/// # Safety
///
/// `octets` is writable for `len` octets.
#[inline]
pub(super) unsafe fn recv(socket: c_int, octets: *mut c_void, len: usize, flags: c_int) -> ssize_t {
    #[cfg(target_os = "linux")]
    // SAFETY: the caller provides the memory; the kernel takes NULL for the address of the sender.
    return unsafe { libc::syscall(libc::SYS_recvfrom, socket, octets, len, flags, NOWHERE, NOWHERE) } as ssize_t;
    #[cfg(not(target_os = "linux"))]
    // SAFETY: the caller provides the memory.
    return unsafe { libc::recv(socket, octets, len, flags) };
}

/// As `send(2)`.
///
/// # Safety
///
/// `octets` is readable for `len` octets.
#[inline]
pub(super) unsafe fn send(socket: c_int, octets: *const c_void, len: usize, flags: c_int) -> ssize_t {
    #[cfg(target_os = "linux")]
    // SAFETY: the caller provides the memory; the kernel takes NULL for the address, as the socket is connected.
    return unsafe { libc::syscall(libc::SYS_sendto, socket, octets, len, flags, NOWHERE, NO_SIZE) } as ssize_t;
    #[cfg(not(target_os = "linux"))]
    // SAFETY: the caller provides the memory.
    return unsafe { libc::send(socket, octets, len, flags) };
}

/// As `epoll_wait(2)`.
///
/// # Safety
///
/// `events` has room for `room` events.
#[cfg(target_os = "linux")]
#[inline]
pub(super) unsafe fn epoll_wait(set: c_int, events: *mut libc::epoll_event, room: c_int, milliseconds: c_int) -> c_int {
    // SAFETY: the caller provides the memory; without a signal mask its size does not count.
    unsafe { libc::syscall(libc::SYS_epoll_pwait, set, events, room, milliseconds, NOWHERE, NO_SIZE) as c_int }
}

#[cfg(target_os = "linux")]
const NOWHERE: *const c_void = std::ptr::null();

/// A whole word: a sixth argument goes over the stack, where an `int` leaves half of one as it was.
#[cfg(target_os = "linux")]
const NO_SIZE: usize = 0;
