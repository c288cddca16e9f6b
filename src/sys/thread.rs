//! Threads.
//!
//! Those of the standard library allocate at their start without a way to fail, and not from the allocator of this
//! library: where there is no memory they end the process. These fail.

use std::ffi::{CStr, c_void};
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::memory;

/// Bytes of stack for threads that run no callbacks; and the least for those that do, where a system's default is smaller
/// (musl: 128 KiB).
pub(crate) const SMALL_STACK: usize = 1024 * 1024;

/// Bytes of stack that a thread made by `pthread_create` without attributes gets: on glibc the limit on stacks. C filters
/// rely on it.
pub(crate) fn default_stack_size() -> usize {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut size = 0;
    // SAFETY: the attributes are initialised, read and destroyed here, each only if initialising succeeded.
    unsafe {
        if libc::pthread_attr_init(attributes.as_mut_ptr()) == 0 {
            libc::pthread_attr_getstacksize(attributes.as_ptr(), &raw mut size);
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
        }
    }
    size.max(SMALL_STACK)
}

/// A thread, which goes on by itself when this is dropped.
pub(crate) struct JoinHandle<R> {
    thread: libc::pthread_t,
    outcome: Arc<Outcome<R>>,
}

// SAFETY: POSIX lets every thread wait for another one and signal it, whatever its number is a type of.
unsafe impl<R: Send> Send for JoinHandle<R> {}
// SAFETY: as above; what is behind the number is behind a lock.
unsafe impl<R: Send> Sync for JoinHandle<R> {}

/// What a thread leaves behind.
struct Outcome<R> {
    finished: AtomicBool,
    result: Mutex<Option<R>>,
}

/// What a new thread begins with.
struct Start<R, Body> {
    name: &'static CStr,
    body: Body,
    outcome: Arc<Outcome<R>>,
}

/// Starts a thread that runs `body` on a stack of so many bytes. Of its name the system keeps 15 bytes. Fails when there is
/// no memory, or when the system has no thread to spare.
pub(crate) fn spawn<R: Send + 'static>(
    name: &'static CStr,
    stack_size: usize,
    body: impl FnOnce() -> R + Send + 'static,
) -> io::Result<JoinHandle<R>> {
    if !memory::has_room_for_thread() {
        return Err(io::Error::from_raw_os_error(libc::ENOMEM));
    }
    let outcome = Arc::new(Outcome { finished: AtomicBool::new(false), result: Mutex::new(None) });
    let start = Box::into_raw(Box::new(Start { name, body, outcome: Arc::clone(&outcome) }));
    let run = pointer_to_run(start);
    // SAFETY: `run` is the function for what `start` points to.
    let created = unsafe { create(stack_size, run, start.cast()) };
    match created {
        Ok(thread) => Ok(JoinHandle { thread, outcome }),
        Err(error) => {
            // SAFETY: no thread has begun, so the box is still this one's.
            drop(unsafe { Box::from_raw(start) });
            Err(error)
        }
    }
}

type Run = extern "C" fn(*mut c_void) -> *mut c_void;

/// The function that a thread with such a start begins with.
fn pointer_to_run<R, Body: FnOnce() -> R>(_: *mut Start<R, Body>) -> Run {
    run::<R, Body>
}

/// # Safety
///
/// `run` may be called with `argument`, on another thread.
unsafe fn create(stack_size: usize, run: Run, argument: *mut c_void) -> io::Result<libc::pthread_t> {
    let number = |error| if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) };
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
    // SAFETY: the attributes are initialised, used and destroyed here, each only if initialising succeeded; the rest is the
    // caller's promise. The thread is initialised where `pthread_create` succeeds.
    unsafe {
        number(libc::pthread_attr_init(attributes.as_mut_ptr()))?;
        // A size that the system does not like leaves its default, which does as well.
        libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), stack_size);
        let created = number(libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), run, argument));
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        created.map(|()| thread.assume_init())
    }
}

extern "C" fn run<R, Body: FnOnce() -> R>(start: *mut c_void) -> *mut c_void {
    // SAFETY: `spawn` made this of a box and left it to this thread.
    let Start { name, body, outcome } = *unsafe { Box::from_raw(start.cast::<Start<R, Body>>()) };
    set_name(name);
    // parking_lot allocates for a thread when it waits for the first time. Here there is memory for that: `spawn` has looked.
    Condvar::new().wait_for(&mut Mutex::new(()).lock(), Duration::ZERO);
    // A panic may not leave a function that C has called. It has been logged where it happened.
    let result = catch_unwind(AssertUnwindSafe(body));
    *outcome.result.lock() = result.ok();
    outcome.finished.store(true, SeqCst);
    std::ptr::null_mut()
}

/// Names the calling thread, where the system has names for threads.
fn set_name(name: &CStr) {
    #[cfg(target_os = "linux")]
    // SAFETY: the name is NUL-terminated; the kernel copies what it keeps.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
    }
    #[cfg(target_vendor = "apple")]
    // SAFETY: the name is NUL-terminated, and copied.
    unsafe {
        libc::pthread_setname_np(name.as_ptr());
    }
    #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
    let _ = name;
}

impl<R> JoinHandle<R> {
    /// Whether the thread has nothing more to do.
    pub(crate) fn is_finished(&self) -> bool {
        self.outcome.finished.load(SeqCst)
    }

    /// Waits until the thread has ended; gives its result, or `None` after a panic.
    pub(crate) fn join(self) -> Option<R> {
        let handle = ManuallyDrop::new(self);
        // SAFETY: the thread has been neither joined nor detached: both take the handle. The outcome is read out of a handle
        // that is not dropped.
        let outcome = unsafe {
            libc::pthread_join(handle.thread, std::ptr::null_mut());
            std::ptr::read(&raw const handle.outcome)
        };
        outcome.result.lock().take()
    }

    /// Sends the thread a signal. One that has ended gets none.
    pub(crate) fn signal(&self, signal: libc::c_int) {
        // SAFETY: the thread has been neither joined nor detached, so its number is its own.
        unsafe { libc::pthread_kill(self.thread, signal) };
    }
}

impl<R> Drop for JoinHandle<R> {
    fn drop(&mut self) {
        // SAFETY: the thread has been neither joined nor detached: both take the handle.
        unsafe { libc::pthread_detach(self.thread) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_its_result() {
        let thread = spawn(c"milter-test", SMALL_STACK, || 7).unwrap();
        assert_eq!(thread.join(), Some(7));
    }

    #[test]
    fn a_panic_ends_its_thread_only() {
        let thread = spawn(c"milter-test", SMALL_STACK, || -> i32 { panic!("as asked") }).unwrap();
        assert_eq!(thread.join(), None);
    }

    #[test]
    fn a_thread_goes_on_without_its_handle() {
        let (say, hear) = std::sync::mpsc::channel();
        drop(spawn(c"milter-test", SMALL_STACK, move || say.send(1)).unwrap());
        assert_eq!(hear.recv(), Ok(1));
    }

    #[test]
    fn stacks_are_as_large_as_wanted() {
        let deep = || std::hint::black_box([1_u8; 3 << 20]).iter().map(|byte| u64::from(*byte)).sum::<u64>();
        let thread = spawn(c"milter-test", 16 << 20, deep).unwrap();
        assert_eq!(thread.join(), Some(3 << 20));
    }
}
