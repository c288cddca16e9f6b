//! Child processes (Linux).

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::check;
use super::descriptor::{self, own};
use super::{fork_mark, process};

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
    /// The process itself, also when somebody else has its number; readable from its end on.
    process: OwnedFd,
}

/// Makes a copy of this process, in which only the calling thread goes on; gives the child, or `None` in it. The child
/// is killed when the thread that called ends.
///
/// The child does nothing before `adopt` has taken note of it, and never anything if that fails. So it cannot end before
/// this process has its descriptor: afterwards its number might be another process' already, as nobody need wait for the
/// child where the program ignores SIGCHLD or waits for whatever ends. (clone3 gives the descriptor with the fork, but does
/// not run what the C library and the program have registered for one.)
pub(crate) fn fork(_: &Alone, adopt: impl FnOnce(&Child) -> io::Result<()>) -> io::Result<Option<Child>> {
    let parent = process::id();
    let [hear, say] = descriptor::pipe()?.map(File::from);
    // SAFETY: `Alone` says that there is no other thread of the program's, and the library has since started only the one
    // that waits for signals. Before models run that has begun (`server::signals` waits for it), and from then on it takes
    // no lock but those of the allocator, which fork takes first: it waits, and to stop does atomic operations and one
    // write. So the child can go on with everything.
    let id = check(unsafe { libc::fork() })?;
    if id == 0 {
        drop(say);
        die_with(parent);
        if fork_mark::set().is_err() || (&hear).read_exact(&mut [0]).is_err() {
            leave(1);
        }
        return Ok(None);
    }
    // Makes room for the child's descriptor.
    drop(hear);
    // The child waits, so its number is its own.
    let adopted = open(id).and_then(|process| {
        let child = Child { id, process };
        adopt(&child).map(|()| child)
    });
    if adopted.is_ok() {
        // Where somebody has killed it by now nobody hears, and its end is one like any other.
        let _ = (&say).write_all(b".");
    } else {
        drop(say);
        await_end(id);
    }
    adopted.map(Some)
}

/// Says what the system lacks to tell of the end of a child: before Linux 5.4, or where somebody forbids it.
pub(crate) fn check_system() -> Result<(), (&'static str, io::Error)> {
    let this = open(process::id()).map_err(|error| ("pidfd_open", error))?;
    match wait(this.as_fd()) {
        // This process is no child of its own, which only a system that understands the question knows.
        Err(error) if error.raw_os_error() != Some(libc::ECHILD) => Err(("waitid with P_PIDFD", error)),
        _ => Ok(()),
    }
}

/// A descriptor of the process that has this number now.
fn open(id: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved; the call makes a descriptor.
    unsafe { own(libc::syscall(libc::SYS_pidfd_open, id, 0) as libc::c_int) }
}

/// How a child has ended, which is gone for good then; all zeroes where it has not.
fn wait(process: BorrowedFd<'_>) -> io::Result<libc::siginfo_t> {
    let mut end = MaybeUninit::<libc::siginfo_t>::zeroed();
    let (process, options) = (process.as_raw_fd() as libc::id_t, libc::WEXITED | libc::WNOHANG);
    // SAFETY: `end` is writable, and all zeroes are a value of it, which stays where no child has ended; else the call has
    // filled it in.
    unsafe {
        check(libc::waitid(libc::P_PIDFD, process, end.as_mut_ptr(), options))?;
        Ok(end.assume_init())
    }
}

/// Waits for the end of a child that leaves.
fn await_end(id: libc::pid_t) {
    // SAFETY: no status is asked for. Of somebody else's process, or none, the call only says that it is no child.
    while check(unsafe { libc::waitpid(id, std::ptr::null_mut(), 0) })
        .is_err_and(|error| error.kind() == io::ErrorKind::Interrupted)
    {}
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
    process::quit(status)
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

    /// A number that no other child has while this value exists.
    pub(crate) fn token(&self) -> u64 {
        self.process.as_raw_fd() as u64
    }

    /// How it has ended, if it has; it is gone for good then.
    pub(crate) fn reap(&self) -> Option<Exit> {
        // The program may wait for every child there is, or ignore SIGCHLD.
        let Ok(end) = wait(self.process.as_fd()) else { return Some(Exit::Unknown) };
        // SAFETY: `waitid` has filled these in, or left them zero.
        let (id, status) = unsafe { (end.si_pid(), end.si_status()) };
        match end.si_code {
            _ if id == 0 => None,
            libc::CLD_EXITED => Some(Exit::Status(status)),
            _ => Some(Exit::Signal(status)),
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
