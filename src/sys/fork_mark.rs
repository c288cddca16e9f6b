//! Telling a process from the ones forked from it, whichever way they were forked.
//!
//! On Linux (4.14), FreeBSD and OpenBSD the mark is a page of memory that the kernel clears in every copy of the process:
//! after `fork`, after `_Fork`, and after the system calls that both use. Elsewhere a handler of `pthread_atfork` changes
//! the mark; it runs for `fork` only. A child that shares its parent's memory, as after `vfork` or `clone` with
//! CLONE_VM, has its parent's mark on all systems. Reading the mark is no system call, so it can be read around each
//! callback.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed};

/// How often a process has set its mark, in this process and in those that it is a copy of.
static SETTINGS: AtomicU32 = AtomicU32::new(0);

/// The mark where no page can hold it.
static COUNTED: AtomicU32 = AtomicU32::new(0);

/// Where the mark is.
static MARK: AtomicPtr<AtomicU32> = AtomicPtr::new((&raw const COUNTED).cast_mut());

/// Makes this process' mark another one than its parent's, and has its copies made from now on get another one.
///
/// A process that has been forked calls it before it asks for its own mark.
pub(crate) fn set() -> io::Result<()> {
    static PREPARED: OnceLock<Result<(), i32>> = OnceLock::new();
    let prepare = || match cleared_page() {
        Ok(page) => {
            MARK.store(page, Relaxed);
            Ok(())
        }
        Err(_) => count_forks(),
    };
    PREPARED.get_or_init(prepare).map_err(io::Error::from_raw_os_error)?;
    if current() == 0 {
        let number = SETTINGS.fetch_add(1, Relaxed) + 1;
        // Another thread may have done it meanwhile.
        let _ = mark().compare_exchange(0, number, Relaxed, Relaxed);
    }
    Ok(())
}

/// The mark of this process: the same number until it is read in a copy, where it is another one.
#[inline]
pub(crate) fn current() -> u32 {
    mark().load(Relaxed)
}

#[inline]
fn mark() -> &'static AtomicU32 {
    // SAFETY: points to `COUNTED`, or to a page that `cleared_page` has mapped and nobody unmaps; both are readable and
    // writable, hold a value at any time, and are accessed as atomics only.
    unsafe { &*MARK.load(Relaxed) }
}

/// A new page of zeroes that is zeroes again in every copy of this process.
#[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "openbsd"))]
fn cleared_page() -> io::Result<*mut AtomicU32> {
    use super::check;

    #[cfg(target_os = "linux")]
    unsafe fn clear_in_copies(page: *mut libc::c_void, len: usize) -> libc::c_int {
        // SAFETY: passed on from the only caller, which owns the page.
        unsafe { libc::madvise(page, len, libc::MADV_WIPEONFORK) }
    }
    #[cfg(not(target_os = "linux"))]
    unsafe fn clear_in_copies(page: *mut libc::c_void, len: usize) -> libc::c_int {
        #[cfg(target_os = "freebsd")]
        use libc::INHERIT_ZERO;
        #[cfg(target_os = "openbsd")]
        use libc::MAP_INHERIT_ZERO as INHERIT_ZERO;
        // SAFETY: passed on from the only caller, which owns the page.
        unsafe { libc::minherit(page, len, INHERIT_ZERO) }
    }
    let len = size_of::<AtomicU32>();
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), len, access, kind, -1, 0) };
    check(if page == libc::MAP_FAILED { -1 } else { 0 })?;
    // SAFETY: the page was mapped above, for nobody else.
    if let Err(error) = check(unsafe { clear_in_copies(page, len) }) {
        // SAFETY: as above; nothing points there.
        unsafe { libc::munmap(page, len) };
        return Err(error);
    }
    Ok(page.cast())
}

#[cfg(not(any(target_os = "linux", target_os = "freebsd", target_os = "openbsd")))]
fn cleared_page() -> io::Result<*mut AtomicU32> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Has the mark cleared in children of `fork`. Fails with an error number.
fn count_forks() -> Result<(), i32> {
    type Handler = Option<unsafe extern "C" fn()>;
    unsafe extern "C" {
        fn pthread_atfork(before: Handler, in_parent: Handler, in_child: Handler) -> libc::c_int;
    }
    unsafe extern "C" fn in_child() {
        mark().store(0, Relaxed);
    }
    // SAFETY: the handler may run at any time, and the C library forgets it when it unloads this library.
    match unsafe { pthread_atfork(None, None, Some(in_child)) } {
        0 => Ok(()),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_keeps_its_mark() {
        set().unwrap();
        let mark = current();
        assert_ne!(mark, 0);
        set().unwrap();
        assert_eq!(current(), mark);
    }
}
