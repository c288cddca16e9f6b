//! The machine that measures.

use std::fs;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// This thread, to the scheduler.
const SELF: Pid = Pid::from_raw(0);

/// What readers of a result want to know about the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Model and number of the processors.
    pub processors: String,
    /// The operating system.
    pub system: String,
    /// The reference: its name and the version of its package, or its path if it is in none.
    pub reference: String,
    /// The day.
    pub date: String,
    /// Processes that were ready to run, on average, before and after.
    pub load: (f64, f64),
}

impl Machine {
    /// Looks at this machine.
    pub fn describe(reference: &ctests::Library) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let value = |text: &str, name: &str, separator: char| {
            let line = text.lines().find(|line| line.starts_with(name));
            let value =
                line.and_then(|line| line.split_once(separator)).map(|(_, value)| value.trim_matches([' ', '"']));
            value.unwrap_or("unknown").to_owned()
        };
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
        let library = reference.shared_object();
        let package = said("dpkg-query", &["--search", &library.to_string_lossy()]);
        let package = package.split(": ").next().unwrap_or_default();
        let version = said("dpkg-query", &["--show", "--showformat=${Version}", package]);
        let day = said("date", &["--utc", "+%Y-%m-%d"]);
        Machine {
            processors: format!("{} x {}", cores, value(&cpuinfo, "model name", ':')),
            system: format!("{}, Linux {}", value(&release, "PRETTY_NAME", '='), kernel.trim()),
            reference: match &version[..] {
                "" => library.display().to_string(),
                _ => format!("{} {version}", library.file_name().unwrap_or_default().to_string_lossy()),
            },
            date: day,
            load: (load_average(), 0.0),
        }
    }
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Processes ready to run, on average over the last minute.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or_default()
}

/// Where filter and load generator run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinning {
    /// On one processor: throughput is what both cost together, and no wake-up crosses from one to another.
    Same,
    /// On a processor each.
    Split,
    /// Wherever the system likes.
    Free,
}

/// The processors that this process may use.
#[derive(Clone, Debug)]
pub struct Processors {
    all: CpuSet,
    first: usize,
    last: usize,
}

impl Processors {
    /// Those that the system allows.
    pub fn allowed() -> Self {
        let all = sched_getaffinity(SELF).expect("the scheduler tells");
        let allowed = |cpu: &usize| all.is_set(*cpu).unwrap_or_default();
        let mut cpus = (0..CpuSet::count()).filter(allowed);
        let first = cpus.next().expect("this process runs on one");
        Processors { first, last: cpus.next_back().unwrap_or(first), all }
    }

    /// Runs `f` where the filter is to run; what it starts stays there.
    pub fn on_filter_side<T>(&self, pinning: Pinning, f: impl FnOnce() -> T) -> T {
        self.on((pinning != Pinning::Free).then_some(self.last), f)
    }

    /// Runs `f` where the load generator is to run; threads that it starts stay there.
    pub fn on_load_side<T>(&self, pinning: Pinning, f: impl FnOnce() -> T) -> T {
        let cpu = match pinning {
            Pinning::Same => Some(self.last),
            Pinning::Split => Some(self.first),
            Pinning::Free => None,
        };
        self.on(cpu, f)
    }

    fn on<T>(&self, cpu: Option<usize>, f: impl FnOnce() -> T) -> T {
        let Some(cpu) = cpu else { return f() };
        let mut set = CpuSet::new();
        set.set(cpu).and_then(|()| sched_setaffinity(SELF, &set)).expect("the processor is among the allowed ones");
        let result = f();
        sched_setaffinity(SELF, &self.all).expect("these were allowed before");
        result
    }
}

/// Lets this process, and filters, open as many files as the system allows; how many that is.
pub fn raise_file_limit() -> u64 {
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => 0,
    }
}

/// Processor time of this process.
pub fn own_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("usage is always known");
    let duration = |time: nix::sys::time::TimeVal| {
        Duration::from_micros(u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or_default())
    };
    duration(usage.user_time()) + duration(usage.system_time())
}

/// The monotonic clock in seconds, as C programs see it.
pub fn monotonic() -> f64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0.0, |time| Duration::from(time).as_secs_f64())
}
