//! What fails around a filter: disks, readers, descriptors, the clock. Mail goes on in each case, and one line says so. And
//! what may not be used at all: the environment of set-uid programs.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        net::UnixStream,
    },
    path::PathBuf,
    process::Command,
    thread,
    time::Duration,
};

use ctests::{Filter, MtaConnection, Setting, Surroundings, TempDir, eventually, is_root, skip, stage};

use rustix::fs::OFlags;

use crate::{LIMIT, OFFER, OPENINGS, assert_negotiates, greet, patiently, serving, stop};

/// The options that write, each with a name for what it writes, and how the log begins to say that it cannot.
const WRITERS: [(&str, &str, &str); 3] = [
    ("trace", "/trace", "cannot write the trace"),
    ("record", "", "cannot record into"),
    ("metrics", "/metrics.prom", "cannot write the metrics"),
];

/// How many log messages have this in them.
fn told(filter: &Filter, part: &str) -> usize {
    filter.lines().iter().filter(|line| line.starts_with("log ") && line.contains(part)).count()
}

fn wait_until_told(filter: &Filter, part: &str) {
    eventually(format_args!("a message '{part}'"), || told(filter, part) > 0);
}

/// A small disk of its own; it is gone with this.
struct Disk {
    place: PathBuf,
    _directory: TempDir,
}

impl Disk {
    /// Fills it to the last octet; `None`, and `test` counts as skipped, where it cannot be had.
    fn full_or_skip(test: &str) -> Option<Disk> {
        let directory = TempDir::new();
        let place = directory.join("disk");
        fs::create_dir(&place).expect("our own directory");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&place).output();
        if !mount.is_ok_and(|output| output.status.success()) {
            skip(test, "the right to mount");
            return None;
        }
        let disk = Disk { place, _directory: directory };
        let mut file = fs::File::create(disk.ballast()).expect("an empty disk");
        while file.write_all(&[0; 1024]).is_ok() {}
        Some(disk)
    }

    fn ballast(&self) -> PathBuf {
        self.place.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has something open on it keeps it for so long.
        let _ = Command::new("umount").arg("--lazy").arg(&self.place).status();
    }
}

/// Whether or not it is full when the filter starts.
#[test]
fn a_full_disk() {
    for (option, name, message) in WRITERS {
        for setting in Setting::every_model() {
            let Some(disk) = Disk::full_or_skip("a_full_disk") else { return };
            let options = format!("{option}={}{name}", disk.place.display());
            let mut filter = serving(&setting, &options, OPENINGS[0], TempDir::new());
            for _ in 0..3 {
                greet(&filter);
            }
            wait_until_told(&filter, message);
            assert_eq!(told(&filter, message), 1, "{options}, {setting}: {}", filter.lines().join("\n"));
            assert_eq!(told(&filter, "No space left on device"), 1, "{options}, {setting}");
            // There is room again.
            fs::remove_file(disk.ballast()).expect("our own file");
            greet(&filter);
            stop(&mut filter);
            let written =
                fs::read_dir(&disk.place).expect("our own disk").flatten().filter_map(|entry| entry.metadata().ok());
            assert!(written.map(|file| file.len()).sum::<u64>() > 0, "{options}, {setting}: nothing is written");
        }
    }
}

/// A trace waits for its reader, who has something else to do, and sessions end without.
#[test]
fn an_end_does_not_wait_for_the_trace() {
    for setting in Setting::every_model() {
        let directory = TempDir::new();
        let path = directory.join("trace");
        stage::output(Command::new("mkfifo").arg(&path));
        let mut options = fs::File::options();
        options.read(true).write(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        let mut reader = options.open(&path).expect("a FIFO");
        while reader.write(&[b'x'; 4096]).is_ok() {}
        let mut filter = serving(&setting, &format!("trace={}", path.display()), OPENINGS[0], directory);
        // What holds one up might be the machine.
        let end = (0..3).map(|_| greet(&filter)).min();
        assert!(end < Some(Duration::from_secs(1)), "{setting}: {end:?}");
        stop(&mut filter);
    }
}

/// Leaves a process room for so many further descriptors; `None`, and `test` counts as skipped, where that is not possible.
fn limit_descriptors(test: &str, filter: &mut Filter, further: usize) -> Option<()> {
    let pid = filter.process().pid();
    let look = || -> BTreeSet<usize> {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("a live process").flatten();
        entries.map(|entry| entry.file_name().to_str().expect("digits").parse().expect("a number")).collect()
    };
    let mut open = look();
    eventually("nothing is opened or closed any more", || {
        thread::sleep(Duration::from_millis(50));
        let before = std::mem::replace(&mut open, look());
        open == before
    });
    let free = (0..).filter(|number| !open.contains(number)).nth(further).expect("numbers have no end");
    let limit = Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--nofile={free}:")]).output();
    if limit.is_ok_and(|output| output.status.success()) {
        return Some(());
    }
    skip(test, "prlimit (util-linux)");
    None
}

#[test]
fn no_descriptors() {
    const TEST: &str = "no_descriptors";
    for (option, name, message) in WRITERS {
        let place = TempDir::new();
        let path = format!("{}{name}", place.path().display());
        let mut filter = serving(&Setting::ours(), &format!("{option}={path}"), OPENINGS[0], TempDir::new());
        let mut early = patiently(filter.socket().as_path());
        assert!(early.ask(OFFER).starts_with("OPTNEG"));
        // For the connection of `late`, and no record of it.
        if limit_descriptors(TEST, &mut filter, 1).is_none() {
            return;
        }
        let mut late = patiently(filter.socket().as_path());
        assert!(late.ask(OFFER).starts_with("OPTNEG"), "{option}");
        if option == "trace" {
            // It wants to open another one; that it is moved it sees once a second.
            fs::rename(&path, place.join("old")).expect("our own file");
            eventually(message, || {
                assert_eq!(early.ask("UNKNOWN x"), "CONTINUE");
                told(&filter, message) > 0
            });
        }
        for mta in [&mut early, &mut late] {
            for command in ["HELO h", "MAIL <a>", "RCPT <b>"] {
                assert_eq!(mta.ask(command), "CONTINUE", "{option}");
            }
        }
        filter.process().signal(ctests::Signal::TERM);
        assert!(filter.process().wait(LIMIT).is_some_and(|status| status.success()), "{option}");
        let lines = filter.lines().join("\n");
        assert_eq!(told(&filter, message), 1, "{option}: {lines}");
        assert!(told(&filter, "Too many open files") > 0, "{option}: {lines}");
    }
}

/// Who asks for metrics waits until there is a descriptor for the answer, and costs nothing meanwhile.
#[test]
fn metrics_without_descriptors() {
    let directory = TempDir::new();
    let path = directory.join("metrics.sock");
    let options = format!("metrics=unix:{}", path.display());
    let mut filter = serving(&Setting::ours(), &options, OPENINGS[0], directory);
    if limit_descriptors("metrics_without_descriptors", &mut filter, 0).is_none() {
        return;
    }
    let mut asking = UnixStream::connect(&path).expect("somebody listens");
    asking.set_read_timeout(Some(LIMIT)).expect("a limit");
    wait_until_told(&filter, "cannot answer for the metrics");
    let before = filter.process().cpu_ticks();
    thread::sleep(Duration::from_millis(1500));
    let used = filter.process().cpu_ticks() - before;
    assert!(used < 20, "{used} ticks of a hundredth of a second while somebody waits");
    limit_descriptors("metrics_without_descriptors", &mut filter, 9);
    let mut answer = String::new();
    asking.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("# Numbers about the filter recorder.\n"), "{answer}");
    assert_eq!(told(&filter, "cannot answer for the metrics"), 1);
    stop(&mut filter);
}

/// A clock that is a year ahead or behind each time somebody looks at it.
const CLOCK: &str = r"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *now)
{
	static int looks;
	int result = (int) syscall(SYS_clock_gettime, id, now);
	if (result == 0 && id == CLOCK_REALTIME)
		now->tv_sec += (__atomic_fetch_add(&looks, 1, __ATOMIC_RELAXED) & 1 ? 1 : -1) * 31536000;
	return result;
}
";

#[test]
fn a_clock_that_jumps() {
    let place = TempDir::new();
    let (source, clock) = (place.write("clock.c", CLOCK), place.join("clock.so"));
    stage::build("cc", &source, &["-shared", "-fPIC"].map(str::to_owned), &clock).expect("it compiles");
    for setting in Setting::every_model() {
        let [trace, records, metrics] = ["trace", "records", "metrics.prom"].map(|name| place.join(name));
        let _ = fs::remove_file(&trace);
        let _ = fs::remove_dir_all(&records);
        fs::create_dir(&records).expect("our own directory");
        let paths = format!("trace={}, record={}, metrics={}", trace.display(), records.display(), metrics.display());
        let surroundings = Surroundings {
            options: format!(
                "idle-timeout=20, negotiate-timeout=20, callback-warn=20, max-sessions=100, admission-wait=20, {paths}"
            ),
            environment: vec![("LD_PRELOAD", clock.to_str().expect("a path of ours").to_owned())],
            wrapper: Vec::new(),
        };
        let plan = format!("start setconn $socket\nstart register\n{}on envfrom sleep 50\n", OPENINGS[0]);
        let mut filter = Filter::launch_with(&setting, &surroundings, &plan, TempDir::new());
        filter.wait_for("note opened");
        for _ in 0..3 {
            greet(&filter);
        }
        stop(&mut filter);
        let complaints = filter.lines().into_iter().filter(|line| line.starts_with("log "));
        assert_eq!(complaints.collect::<Vec<_>>(), [""; 0], "{setting}");
        let text = fs::read_to_string(&trace).expect("it is there");
        let mut years: Vec<&str> = text.lines().map(|line| &line[..4]).collect();
        assert_eq!(text.matches("session: end").count(), 3, "{setting}\n{text}");
        years.sort_unstable();
        years.dedup();
        assert!(years.len() > 1, "{setting}: the clock does not jump\n{text}");
        let since = |line: &str| line.split(' ').nth(1).and_then(|since| since.parse::<f64>().ok()).expect("seconds");
        assert!(text.lines().all(|line| since(line) < 60.0), "{setting}\n{text}");
        assert_eq!(fs::read_dir(&records).expect("our own directory").count(), 3, "{setting}");
        let text = fs::read_to_string(&metrics).expect("it is there");
        assert!(text.contains("milter_sessions_total{filter=\"recorder\"} 3\n"), "{setting}\n{text}");
    }
}

/// The environment of a set-uid program is that of whoever has called it.
#[test]
fn a_set_uid_program_ignores_the_environment() {
    const TEST: &str = "a_set_uid_program_ignores_the_environment";
    const NOBODY: u32 = 65534;
    if !is_root() {
        return skip(TEST, "root, to make a set-uid program");
    }
    // It has to find its library without the environment.
    let setting = Setting::ours_static();
    let start = |options: &str| {
        let directory = TempDir::new();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("our own directory");
        let program = directory.join("program");
        // Not written by this process: a child that another test forks meanwhile would keep it from being run.
        let mut install = Command::new("install");
        install.args(["-m", "4755", "-o", &NOBODY.to_string()]);
        stage::output(install.arg(ctests::recorder(setting.library, setting.linkage)).arg(&program));
        let script = "program=$1; shift 2; exec \"$program\" \"$@\"";
        let program = program.to_str().expect("a path of ours");
        let trace = directory.join("trace").display().to_string();
        let surroundings = Surroundings {
            options: options.replace("$trace", &trace),
            environment: vec![
                ("NOTIFY_SOCKET", "/nowhere/at/all".into()),
                ("LISTEN_FDS", "one".into()),
                ("WATCHDOG_USEC", "1000".into()),
            ],
            wrapper: ["sh", "-c", script, "sh", program].map(str::to_owned).to_vec(),
        };
        let plan = format!("start setconn $socket\nstart register\n{}", OPENINGS[0]);
        let mut filter = Filter::launch_with(&setting, &surroundings, &plan, directory);
        filter.wait_for("note opened");
        let pid = filter.process().pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let is_set_uid = status.contains(&format!("\nUid:\t0\t{NOBODY}\t"));
        (filter, is_set_uid)
    };
    let (_, is_set_uid) = start("");
    if !is_set_uid {
        return skip(TEST, "a temporary directory on a file system with set-uid programs");
    }
    for options in ["no-such-option", "trace=$trace, model=fork, max-sessions=1"] {
        let (mut filter, _) = start(options);
        let _first = session(&filter);
        assert_negotiates(patiently(filter.socket().as_path()));
        assert!(filter.process().children().is_empty(), "{options}");
        assert!(!filter.directory().join("trace").exists(), "{options}");
        let complaints = filter.lines().into_iter().filter(|line| line.starts_with("log "));
        assert_eq!(complaints.collect::<Vec<_>>(), [""; 0], "{options}");
        stop(&mut filter);
    }
}

fn session(filter: &Filter) -> MtaConnection {
    let mut mta = patiently(filter.socket().as_path());
    assert!(mta.ask(OFFER).starts_with("OPTNEG"));
    mta
}
