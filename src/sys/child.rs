//! Child processes (Linux).

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::check;
use super::descriptor::own;
use super::process;
use super::wake::Wake;

/// Proof that this process has no thread but the one that asked for it, and those that have ended when it forks.
#[derive(Debug)]
pub(crate) struct Alone(());

impl Alone {
    /// Fails with the number of threads, without the `passing` ones, which are to end before this process forks. One that
    /// is about to end is waited for.
    pub(crate) fn check(passing: impl Fn() -> usize) -> Result<Self, usize> {
        // In this order: who has ended in between is counted as a thread, and waited for.
        let count = || {
            let threads = process::threads();
            threads.saturating_sub(passing())
        };
        let mut threads = count();
        for _ in 0..50 {
            if threads == 1 {
                return Ok(Alone(()));
            }
            std::thread::sleep(Duration::from_millis(1));
            threads = count();
        }
        Err(threads)
    }
}

/// A process that was forked here.
#[derive(Debug)]
pub(crate) struct Child {
    id: libc::pid_t,
    /// Readable from its end on.
    process: OwnedFd,
}

/// Makes a copy of this process, in which only the calling thread goes on; gives the child, or `None` in it. The child
/// is killed when the thread that called ends.
pub(crate) fn fork(_: &Alone) -> io::Result<Option<Child>> {
    let parent = process::id();
    // Keeps room for the child's descriptor: too late, its lack would cost the child.
    let room = Wake::new()?;
    // What waits in the buffers of stdio would be written twice.
    flush_stdio();
    // SAFETY: `Alone` says that there is no other thread of the program's, and the library has since started only the one
    // that waits for signals. That does nothing else from its first wait on, which it has reached before models run: the only
    // locks it may hold are those of the allocator, which fork takes first. So the child can go on with everything.
    let id = check(unsafe { libc::fork() })?;
    if id == 0 {
        die_with(parent);
        return Ok(None);
    }
    drop(room);
    // SAFETY: the child has not been waited for, so its number is its own; the call makes a descriptor.
    match unsafe { own(libc::syscall(libc::SYS_pidfd_open, id, 0) as libc::c_int) } {
        Ok(process) => Ok(Some(Child { id, process })),
        Err(error) => {
            undo(id);
            Err(error)
        }
    }
}

/// Ends a child of this process that nobody has waited for yet, for good.
fn undo(id: libc::pid_t) {
    // SAFETY: no memory is involved. The callers are the ones who wait for the child, so the number is its own still, or
    // nobody's where the program has the kernel reap.
    unsafe {
        libc::kill(id, libc::SIGKILL);
        libc::waitpid(id, std::ptr::null_mut(), 0);
    }
}

/// Has the calling process killed when the thread that forked it ends.
fn die_with(parent: libc::pid_t) {
    // SAFETY: no memory is involved.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    // SAFETY: no memory is involved, and the call cannot fail.
    if unsafe { libc::getppid() } != parent {
        // It has gone already.
        leave(1);
    }
}

/// Ends this process without running what the program has registered for its exit: that is the parent's.
pub(crate) fn leave(status: libc::c_int) -> ! {
    flush_stdio();
    // SAFETY: no memory is involved; nothing runs after the call.
    unsafe { libc::_exit(status) }
}

/// Writes what waits in the buffers of stdio.
pub(crate) fn flush_stdio() {
    // SAFETY: NULL stands for all output streams, which stdio locks itself.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

impl Child {
    /// Its process id.
    pub(crate) fn id(&self) -> libc::pid_t {
        self.id
    }

    /// Takes the fork back: the child is killed, and gone when this returns.
    pub(crate) fn undo(self) {
        undo(self.id);
    }

    /// How it has ended, if it has; it is gone for good then.
    pub(crate) fn reap(&self) -> Option<Exit> {
        let mut status = 0;
        // SAFETY: `status` is writable.
        match check(unsafe { libc::waitpid(self.id, &raw mut status, libc::WNOHANG) }) {
            Ok(0) => None,
            Ok(_) if libc::WIFSIGNALED(status) => Some(Exit::Signal(libc::WTERMSIG(status))),
            Ok(_) => Some(Exit::Status(libc::WEXITSTATUS(status))),
            // The program waits for every child there is, or ignores SIGCHLD.
            Err(_) => Some(Exit::Unknown),
        }
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Status(libc::c_int),
    Signal(libc::c_int),
    /// Somebody else has taken the answer.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Exit::Status(status) => write!(f, "ended with status {status}"),
            Exit::Unknown => f.write_str("ended"),
            Exit::Signal(number) => match SIGNALS.iter().find(|(known, _)| *known == number) {
                Some((_, name)) => write!(f, "was killed by {name}"),
                None => write!(f, "was killed by signal {number}"),
            },
        }
    }
}

const SIGNALS: &[(libc::c_int, &str)] = &[
    (libc::SIGABRT, "SIGABRT"),
    (libc::SIGALRM, "SIGALRM"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGHUP, "SIGHUP"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGINT, "SIGINT"),
    (libc::SIGKILL, "SIGKILL"),
    (libc::SIGPIPE, "SIGPIPE"),
    (libc::SIGQUIT, "SIGQUIT"),
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGSYS, "SIGSYS"),
    (libc::SIGTERM, "SIGTERM"),
    (libc::SIGTRAP, "SIGTRAP"),
    (libc::SIGXCPU, "SIGXCPU"),
    (libc::SIGXFSZ, "SIGXFSZ"),
];
