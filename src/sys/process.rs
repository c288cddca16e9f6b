//! The process and its threads.

use std::ffi::{CStr, CString};
#[cfg(target_os = "linux")]
use std::mem::MaybeUninit;

/// Whether the process acts for root.
pub(crate) fn is_root() -> bool {
    user() == 0
}

/// The user for whom the process acts.
pub(crate) fn user() -> libc::uid_t {
    // SAFETY: no memory is involved, and the call cannot fail.
    unsafe { libc::geteuid() }
}

/// The number of this process.
pub(crate) fn id() -> libc::pid_t {
    // SAFETY: no memory is involved, and the call cannot fail.
    unsafe { libc::getpid() }
}

/// How many threads this process has. Where nothing says so, as in a new root directory without /proc, 2 stands for more
/// than one.
#[cfg(target_os = "linux")]
pub(crate) fn threads() -> usize {
    use std::os::linux::fs::MetadataExt;
    match std::fs::metadata("/proc/self/task") {
        // The directory itself has two links, and each thread's directory adds one.
        Ok(tasks) if tasks.st_nlink() > 2 => (tasks.st_nlink() - 2) as usize,
        // SAFETY: no memory is involved. A process with one thread may always leave its threads, which does nothing; with
        // more it may not.
        _ => 1 + usize::from(unsafe { libc::unshare(libc::CLONE_THREAD) } != 0),
    }
}

/// Ends this process at once: nothing is written that waits in buffers, and nothing runs that is registered for its exit.
pub(crate) fn quit(status: libc::c_int) -> ! {
    // SAFETY: no memory is involved; nothing runs after the call.
    unsafe { libc::_exit(status) }
}

/// Ends this process with SIGABRT, which leaves a core file where the system keeps them. No handler of the program runs:
/// it might wait for the very thing that is stuck.
pub(crate) fn abort() -> ! {
    // SAFETY: no memory is involved; the default action is valid for every signal.
    unsafe { libc::signal(libc::SIGABRT, libc::SIG_DFL) };
    std::process::abort()
}

/// How often the calling thread has given its processor up to wait for something.
#[cfg(target_os = "linux")]
pub(crate) fn voluntary_switches() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the structure is valid for writing, and all zeroes, should the call fail, are a value of it.
    unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init().ru_nvcsw
    }
}

/// How many processors the calling thread may run on.
///
/// Not what a control group would leave of their time: reading that takes as long as the rest of the start.
#[cfg(target_os = "linux")]
pub(crate) fn processors() -> usize {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the set is valid for writing for its size, and all zeroes, should the call fail, are one without processors.
    let count = unsafe {
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr());
        libc::CPU_COUNT(set.assume_init_ref())
    };
    usize::try_from(count).unwrap_or(0).max(1)
}

/// Where the calling thread's `errno` is.
fn errno_location() -> *mut libc::c_int {
    #[cfg(any(target_os = "netbsd", target_os = "openbsd", target_os = "android"))]
    use libc::__errno as location;
    #[cfg(target_os = "linux")]
    use libc::__errno_location as location;
    #[cfg(any(target_os = "freebsd", target_os = "dragonfly", target_vendor = "apple"))]
    use libc::__error as location;
    // SAFETY: no memory is involved, and the call cannot fail.
    unsafe { location() }
}

/// `errno` of the calling thread.
pub(crate) fn errno() -> libc::c_int {
    // SAFETY: the location is valid for the calling thread's whole life, and nobody else's.
    unsafe { *errno_location() }
}

/// Sets `errno` of the calling thread.
pub(crate) fn set_errno(value: libc::c_int) {
    // SAFETY: the location is valid for the calling thread's whole life, and nobody else's.
    unsafe { *errno_location() = value }
}

/// The value of an environment variable; none in set-uid programs, whose environment is not the administrator's.
pub(crate) fn environment(name: &CStr) -> Option<CString> {
    #[cfg(target_os = "linux")]
    unsafe extern "C" {
        #[link_name = "secure_getenv"]
        fn getenv(name: *const libc::c_char) -> *const libc::c_char;
    }
    #[cfg(not(target_os = "linux"))]
    unsafe fn getenv(name: *const libc::c_char) -> *const libc::c_char {
        // SAFETY: passed on from the only caller, which has a NUL-terminated name.
        unsafe { if libc::issetugid() != 0 { std::ptr::null() } else { libc::getenv(name) } }
    }
    // SAFETY: the name is NUL-terminated. The value is copied at once; like every program that reads its environment
    // this one relies on nobody changing it meanwhile.
    unsafe {
        let value = getenv(name.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value).to_owned())
    }
}
