//! System calls that fail, each of them once with each error that it may give: while the filter starts, serves and stops.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ctests::{PATIENCE, Setting, Signal, stage};

use crate::{
    control::{Fault, functions},
    plan::{Progress, Share, in_parallel},
    scene::{FIRST, MORE, OBSERVED, REST, Scene, is_answered},
    talk::{Fate, Talk},
};

/// Runs of each sweep in a sample.
const SAMPLE: usize = 120;

/// The first so many calls of a kind fail, one in each run; later ones are the same again.
const NTH_MAX: u64 = 60;

/// So many more calls than in an undisturbed run are no spin: a thousand each second that the run may wait.
const SPIN: u64 = 20_000;

const EPERM: i32 = 1;
const EINTR: i32 = 4;
const EIO: i32 = 5;
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EPIPE: i32 = 32;
const EADDRINUSE: i32 = 98;
const ECONNABORTED: i32 = 103;
const ECONNRESET: i32 = 104;
const ENOBUFS: i32 = 105;
const ETIMEDOUT: i32 = 110;

/// What makes a descriptor.
const DESCRIPTOR: &[i32] = &[EMFILE, ENFILE, ENOMEM];
/// What looks at files or changes them.
const FILE: &[i32] = &[EACCES, EIO, ENOMEM, ENOSPC];

/// What a call may fail with, and what that may cost.
struct Call {
    name: &'static str,
    errors: &'static [i32],
    costs: Cost,
}

/// What a failure may cost once the filter listens. The log has a line where something is lost, unless the error says that
/// the MTA has hung up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cost {
    /// Nothing: the call is made again, or not needed.
    Nothing,
    /// The session that the call was made for.
    Session,
}

const fn call(name: &'static str, errors: &'static [i32], costs: Cost) -> Call {
    Call { name, errors, costs }
}

/// The calls that may fail.
const CALLS: &[Call] = &[
    call("accept4", &[EINTR, EMFILE, ENFILE, ENOMEM, ENOBUFS, ECONNABORTED, EPERM], Cost::Nothing),
    call("bind", &[EADDRINUSE, EACCES, ENOMEM, EIO], Cost::Nothing),
    call("close", &[EINTR, EIO], Cost::Nothing),
    call("connect", &[EINTR, EAGAIN, ENOMEM], Cost::Nothing),
    call("epoll_create1", DESCRIPTOR, Cost::Nothing),
    call("epoll_ctl", &[ENOMEM, ENOSPC], Cost::Session),
    call("epoll_wait", &[EINTR, ENOMEM], Cost::Nothing),
    call("eventfd", DESCRIPTOR, Cost::Nothing),
    call("fchmodat", FILE, Cost::Nothing),
    call("fchownat", FILE, Cost::Nothing),
    call("fcntl", &[EMFILE, ENOMEM], Cost::Session),
    call("fork", &[EAGAIN, ENOMEM], Cost::Nothing),
    call("fstat", &[EIO, ENOMEM], Cost::Nothing),
    call("fstatat", FILE, Cost::Nothing),
    call("futex", &[EINTR], Cost::Nothing),
    call("getsockopt", &[ENOMEM], Cost::Nothing),
    call("linkat", FILE, Cost::Nothing),
    call("listen", &[EADDRINUSE], Cost::Nothing),
    call("madvise", &[EAGAIN, ENOMEM], Cost::Nothing),
    call("mkdirat", FILE, Cost::Nothing),
    call("mmap", &[ENOMEM, EAGAIN], Cost::Session),
    call("munmap", &[ENOMEM], Cost::Nothing),
    call("open", &[EACCES, EINTR, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC], Cost::Nothing),
    call("openat", &[EACCES, EINTR, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC], Cost::Nothing),
    call("pidfd_open", DESCRIPTOR, Cost::Session),
    call("pipe", DESCRIPTOR, Cost::Nothing),
    call("pipe2", DESCRIPTOR, Cost::Nothing),
    call("poll", &[EINTR, EAGAIN, ENOMEM], Cost::Nothing),
    call("pthread_create", &[EAGAIN, EPERM], Cost::Nothing),
    call("read", &[EINTR], Cost::Nothing),
    call("read_file", &[EINTR, EIO], Cost::Nothing),
    call("readlinkat", FILE, Cost::Nothing),
    call("recv", &[EINTR, ENOMEM, ENOBUFS, EIO, ETIMEDOUT, ECONNRESET, EPIPE], Cost::Session),
    call("recvmsg", &[EINTR, ENOMEM, EMFILE], Cost::Nothing),
    call("renameat", FILE, Cost::Nothing),
    call("send", &[EINTR, EAGAIN, ENOMEM, ENOBUFS, EIO, ETIMEDOUT, ECONNRESET, EPIPE], Cost::Session),
    call("sendmsg", &[EINTR, EAGAIN, ENOMEM, ENOBUFS, EIO, ETIMEDOUT, ECONNRESET, EPIPE], Cost::Session),
    call("sendto", &[EINTR, EAGAIN, ENOBUFS], Cost::Nothing),
    call("setsockopt", &[ENOMEM, EPERM], Cost::Nothing),
    call("sigaction", &[ENOMEM], Cost::Nothing),
    call("socket", &[EMFILE, ENFILE, ENOMEM, ENOBUFS, EACCES], Cost::Nothing),
    call("socketpair", DESCRIPTOR, Cost::Nothing),
    call("stat", FILE, Cost::Nothing),
    call("statx", FILE, Cost::Nothing),
    call("timerfd_create", DESCRIPTOR, Cost::Nothing),
    call("unlinkat", FILE, Cost::Nothing),
    call("waitid", &[EINTR], Cost::Nothing),
    call("write", &[EINTR], Cost::Nothing),
    call("write_file", &[EINTR, EIO, ENOSPC], Cost::Nothing),
    call("writev", &[EINTR], Cost::Nothing),
    call("writev_file", &[EINTR, EIO, ENOSPC], Cost::Nothing),
];

/// The calls that cannot fail in a way that means something, with the reason.
const EXCLUDED: &[(&str, &str)] = &[
    ("alloc", "memory is what the sweep of allocations is about"),
    ("accept", "the library calls accept4 where that is"),
    ("getsockname", "fails only for what is no socket"),
    ("lseek", "fails only for what has no position"),
    ("getrandom", "fails only where the system call does not exist, and has a way around that"),
    ("getcwd", "only for file names in panics"),
    ("realpath", "only for file names in panics"),
    ("readlink", "only for file names in panics"),
    ("pthread_sigmask", "fails only with arguments that it does not know"),
    ("sched_getaffinity", "fails only with arguments that it does not know"),
    ("shutdown", "fails only for what is not connected, which is what it is called for"),
    ("sigwait", "fails only with a set of no signals; the system call that it makes is made again by the C library"),
    ("timerfd_settime", "fails only with times that are none"),
];

/// Why failing this call with this error is an artefact: the system would never say so here. By call and error.
fn is_artefact(call: &str, error: i32) -> Option<&'static str> {
    match (call, error) {
        ("send" | "sendmsg", EPIPE | ECONNRESET) => {
            Some("says that the MTA reads no more, and the next recv that it has gone; here it waits for the reply")
        }
        _ => None,
    }
}

/// One run: the n-th call of this number fails.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// In [`CALLS`].
    call: usize,
    /// As the preloaded object numbers it.
    number: u64,
    error: i32,
    nth: u64,
}

/// What came of a run.
#[derive(Debug, Default)]
struct Outcome {
    failed: u64,
    started: bool,
    bad: Vec<String>,
    place: Vec<u64>,
    calls: Vec<(String, u64)>,
}

/// Whether somebody listens at a path, as the kernel sees it.
fn is_listening(socket: &Path) -> bool {
    let sockets = fs::read_to_string("/proc/net/unix").expect("Linux has it");
    // Number, references, protocol, flags, type, state, inode, path; the flag is SO_ACCEPTCON.
    sockets.lines().any(|line| {
        let mut columns = line.split_ascii_whitespace();
        columns.nth(3) == Some("00010000") && columns.nth(3).is_some_and(|path| Path::new(path) == socket)
    })
}

/// Starts a filter, plays sessions before, during and after one another, and stops it in the middle of the last message.
fn play(setting: &Setting, options: &str, case: Option<Case>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut scene = Scene::start(setting, options, |control| {
        if let Some(Case { number, error, nth, .. }) = case {
            control.set(number, error, Fault::Nth(nth));
        }
    });
    let socket = scene.filter.socket();
    let deadline = Instant::now() + PATIENCE;
    while scene.filter.process().is_alive() && !outcome.started && Instant::now() < deadline {
        // No session: a connection would be one.
        outcome.started = scene.filter.lines().iter().any(|line| line == "note opened") && is_listening(&socket);
        thread::sleep(Duration::from_millis(1));
    }
    let mut early = Talk::with(&socket);
    early.say(FIRST);
    let mut talks: Vec<Talk> = thread::scope(|scope| {
        let one = scope.spawn(|| {
            let mut talk = Talk::with(&socket);
            talk.say(FIRST);
            talk.say(REST);
            talk.say(MORE);
            talk
        });
        let mut other = Talk::with(&socket);
        other.say(FIRST);
        other.say(REST);
        other.say(MORE);
        vec![one.join().expect("it does not panic"), other]
    });
    early.say(REST);
    early.say(MORE);
    talks.push(early);
    let mut last = Talk::with(&socket);
    last.say(FIRST);
    let is_alive = scene.filter.process().is_alive();
    let mut status = None;
    if is_alive {
        scene.filter.process().signal(Signal::TERM);
        last.say(REST);
        // Nothing is promised after the message, and an open connection does not keep the filter.
        status = scene.filter.process().wait(PATIENCE);
    }
    outcome.failed = scene.control.failed();
    outcome.place = scene.control.place();
    outcome.calls = scene.control.calls();
    let lines = scene.filter.lines();
    let log = scene.log();
    let is_told = log.iter().any(|line| !line.contains("peer hung up without a word"));
    let refused = lines.iter().any(|line| line.starts_with("main -1"));
    let mut check = |right: bool, what: String| {
        if !right {
            outcome.bad.push(what);
        }
    };
    if refused && !lines.iter().any(|line| line.starts_with("negotiate")) {
        check(is_told, "it does not start and does not say why".into());
    } else {
        check(is_alive, "it ends by itself".into());
        if is_alive {
            check(status.is_some(), "it does not stop".into());
            check(status.is_none_or(|status| status.success()), format!("it ends with {status:?}"));
        }
        let whole: usize = [FIRST, REST, MORE].concat().iter().filter(|line| is_answered(line)).count();
        let until_stop: usize = [FIRST, REST].concat().iter().filter(|line| is_answered(line)).count();
        let silent = talks.iter().chain([&last]).filter(|talk| talk.fate == Fate::Silent).count();
        let mut lost = talks.iter().filter(|talk| talk.fate != Fate::Well || talk.answers.len() != whole).count();
        lost += usize::from(last.fate != Fate::Well || last.answers.len() != until_stop);
        let differ = talks.iter().filter(|talk| talk.fate == Fate::Well && talk.answers != talks[0].answers).count();
        let (allowed, is_hang_up) = case.map_or((0, false), |case| {
            let allowed = usize::from(CALLS[case.call].costs == Cost::Session);
            (allowed, matches!(case.error, ECONNRESET | EPIPE | ECONNABORTED))
        });
        check(silent == 0, format!("{silent} sessions are silent"));
        check(lost <= allowed, format!("{lost} sessions are lost"));
        check(lost == 0 || is_told || is_hang_up, "a session is lost, and the log says nothing".into());
        check(differ == 0 || talks[0].fate != Fate::Well, "sessions differ".into());
    }
    let made: u64 = outcome.calls.iter().filter(|(name, _)| name != "alloc").map(|(_, count)| count).sum();
    if made > SPIN {
        outcome.bad.push(format!("{made} system calls"));
    }
    if !outcome.bad.is_empty() {
        outcome.bad.extend(log.into_iter().take(3));
        outcome.bad.extend(scene.filter.output().lines().take(3).map(str::to_owned));
    }
    outcome
}

/// Has one call after another fail, and tells what is bad.
fn sweep(setting: &Setting, options: &str, share: Share) -> Vec<String> {
    let name = format!("{setting}{}", if options.is_empty() { "" } else { ", observed" });
    let undisturbed = play(setting, options, None);
    assert!(undisturbed.bad.is_empty(), "{name}: {:?}", undisturbed.bad);
    let mut cases = Vec::new();
    let mut excluded = 0;
    for (number, (called, count)) in (0..).zip(&undisturbed.calls) {
        let Some(call) = CALLS.iter().position(|call| call.name == called) else {
            excluded += 1;
            assert!(EXCLUDED.iter().any(|(name, _)| name == called), "{called} is neither to fail nor excluded");
            continue;
        };
        for error in CALLS[call].errors.iter().copied() {
            if is_artefact(called, error).is_some() {
                excluded += 1;
                continue;
            }
            cases.extend((1..=(*count).min(NTH_MAX)).map(|nth| Case { call, number, error, nth }));
        }
    }
    let chosen = share.of(&cases);
    let progress = Progress::new(&format!("system calls, {name}"), chosen.len());
    let outcomes = in_parallel(&chosen, |case| {
        let outcome = play(setting, options, Some(*case));
        progress.step();
        outcome
    });
    let reached = outcomes.iter().filter(|outcome| outcome.failed > 0).count();
    let refused = outcomes.iter().filter(|outcome| !outcome.started).count();
    let bad_runs = outcomes.iter().filter(|outcome| !outcome.bad.is_empty()).count();
    assert!(reached > 0, "{name}: no call has failed");
    let mut places: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for (case, outcome) in chosen.iter().zip(&outcomes) {
        if outcome.bad.is_empty() {
            continue;
        }
        let place = functions(setting.library.shared_object(), &outcome.place);
        let place: Vec<&str> = place.iter().map(String::as_str).take(6).collect();
        let what = format!("{} fails with {}", CALLS[case.call].name, case.error);
        let first = format!("{}: {}", case.nth, outcome.bad.join("; "));
        places.entry(format!("{what}\n      {}", place.join("\n      "))).or_insert((0, first)).0 += 1;
    }
    let bad: Vec<String> = places
        .into_iter()
        .map(|(place, (times, what))| format!("{name}: {times} times, {what}\n      {place}\n"))
        .collect();
    progress.end(format_args!(
        "{reached} reached, {refused} did not start and said why, {bad_runs} bad, {excluded} calls and errors excluded by rule"
    ), &bad);
    bad
}

/// What the library imports beside the calls that may fail, by what it is. Names that begin with an underscore are the
/// compiler's and the C library's own.
const IMPORTS: &[(&str, &[&str])] = &[
    (
        "no system call",
        &[
            "abort",
            "bcmp",
            "dl_iterate_phdr",
            "dlsym",
            "free",
            "freeaddrinfo",
            "getenv",
            "memcmp",
            "memcpy",
            "memmove",
            "memset",
            "pthread_attr_destroy",
            "pthread_attr_getstacksize",
            "pthread_attr_init",
            "pthread_attr_setstacksize",
            "pthread_key_create",
            "pthread_key_delete",
            "pthread_self",
            "pthread_setcancelstate",
            "pthread_setspecific",
            "pthread_testcancel",
            "secure_getenv",
            "sigaddset",
            "sigemptyset",
            "sigfillset",
            "strerror",
            "strlen",
        ],
    ),
    (
        "cannot fail as it is called",
        &[
            "alarm",
            "clock_gettime",
            "clock_nanosleep",
            "geteuid",
            "getpid",
            "getppid",
            "getrusage",
            "gettid",
            "pause",
            "prctl",
            "pthread_detach",
            "pthread_join",
            "pthread_kill",
            "pthread_setname_np",
            "sched_yield",
            "signal",
            "sysconf",
        ],
    ),
    (
        "the C library's own calls, for names that a description or an option has",
        &["getaddrinfo", "getgrnam_r", "getpwnam_r"],
    ),
    ("output that nobody checks", &["fflush", "puts", "syslog"]),
    ("called where nothing can be done about it", &["sigtimedwait", "unshare", "waitpid"]),
    ("counted by number", &["syscall"]),
    ("counted as alloc", &["aligned_alloc", "calloc", "malloc", "posix_memalign", "realloc"]),
    (
        "another name of one in the table",
        &["fstat64", "fstatat64", "lseek64", "mmap64", "open64", "openat64", "stat64"],
    ),
];

/// A call that the library begins to make is looked at here, too.
#[test]
fn every_call_of_the_library_is_known() {
    let mut nm = Command::new("nm");
    nm.args(["-D", "--undefined-only", "--format=posix"]).arg(Setting::ours().library.shared_object());
    let symbols = stage::output(&mut nm);
    let names = symbols.lines().filter_map(|line| line.split([' ', '@']).next()).filter(|name| !name.starts_with('_'));
    let is_known = |name: &&str| {
        CALLS.iter().any(|call| call.name == *name)
            || EXCLUDED.iter().any(|(excluded, _)| excluded == name)
            || IMPORTS.iter().any(|(_, known)| known.contains(name))
    };
    let unknown: Vec<&str> = names.filter(|name| !is_known(name)).collect();
    assert_eq!(unknown, [""; 0]);
}

/// The filter lives, or says why it does not start.
#[test]
fn a_system_call_that_fails_costs_one_session_at_most() {
    let mut bad = Vec::new();
    for setting in Setting::every_model() {
        for options in ["", OBSERVED] {
            bad.extend(sweep(&setting, options, Share::or_sample(SAMPLE)));
        }
    }
    assert!(bad.is_empty(), "{} places\n{}", bad.len(), bad.concat());
}
