//! A running filter, and what the system says about it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ctests::{Process, Signal, TempDir, free_port};
use milter_probe::Target;
use milter_probe::target::Family;
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::contestant::Contestant;

/// How long a filter may take to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where filters listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    /// A Unix socket.
    Unix,
    /// TCP on the loopback address.
    Tcp,
}

impl Socket {
    /// How scenarios call it.
    pub fn name(self) -> &'static str {
        match self {
            Socket::Unix => "unix",
            Socket::Tcp => "tcp",
        }
    }
}

/// Memory and threads, of all processes of a filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Resident memory in KiB. A page that several processes share counts in parts.
    pub resident: u64,
    /// Threads.
    pub threads: u64,
}

/// A filter that has been started.
#[derive(Debug)]
pub struct Filter {
    process: Process,
    /// Where it listens.
    pub target: Target,
    output: PathBuf,
    /// When it was started.
    pub started: Instant,
    // Removed after the process.
    _directory: TempDir,
}

impl Filter {
    /// Starts the filter of a contestant; it may not listen yet. `wrapper` is a program that runs it.
    pub fn start(contestant: &Contestant, mode: &str, socket: Socket, wrapper: &[OsString]) -> Self {
        let directory = TempDir::new();
        let target = match socket {
            Socket::Unix => Target::Unix(directory.join("socket")),
            Socket::Tcp => Target::Inet { family: Family::Inet, port: free_port(), host: Some("127.0.0.1".to_owned()) },
        };
        let output = directory.join("output");
        let mut words = wrapper.to_vec();
        words.push(contestant.program.clone().into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(mode).arg(target.to_string());
        command.env_remove("LIBMILTER_OPTIONS").envs(contestant.options.iter().map(|text| ("LIBMILTER_OPTIONS", text)));
        let file = File::create(&output).expect("a writable directory");
        command.stdin(Stdio::null()).stdout(file).stderr(Stdio::null());
        let started = Instant::now();
        Filter { process: Process::spawn(&mut command), target, output, started, _directory: directory }
    }

    /// Starts it and waits until it listens.
    ///
    /// # Errors
    ///
    /// When it ends instead, or does not listen in time.
    pub fn listening(contestant: &Contestant, mode: &str, socket: Socket) -> Result<Self, String> {
        let mut filter = Filter::start(contestant, mode, socket, &[]);
        filter.await_listening(Duration::from_millis(2))?;
        contestant.library.into_iter().for_each(|library| filter.process.assert_uses(library));
        // The connection that tried it out is to be over.
        thread::sleep(Duration::from_millis(20));
        Ok(filter)
    }

    /// Waits until it listens, and looks so often.
    ///
    /// # Errors
    ///
    /// When it ends instead, or does not listen in time.
    pub fn await_listening(&mut self, pause: Duration) -> Result<(), String> {
        while !self.accepts() {
            if !self.process.is_alive() {
                return Err("the filter does not start".to_owned());
            }
            if self.started.elapsed() > PATIENCE {
                return Err("the filter does not listen".to_owned());
            }
            thread::sleep(pause);
        }
        Ok(())
    }

    fn accepts(&self) -> bool {
        match &self.target {
            Target::Unix(path) => UnixStream::connect(path).is_ok(),
            target => target.connect(PATIENCE).is_ok(),
        }
    }

    /// The processes: its own first, then those that it has forked.
    fn family(&self) -> Vec<u32> {
        let mut family = vec![self.process.pid()];
        let mut next = 0;
        while let Some(pid) = family.get(next) {
            family.extend(children(*pid));
            next += 1;
        }
        family
    }

    /// Processor time that it has used so far. That of children that have ended is exact to 10 ms.
    pub fn cpu(&self) -> Duration {
        let alive = self.family().into_iter().filter_map(|pid| {
            let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid).ok()?)).ok()?;
            clock_gettime(clock).ok().map(Duration::from)
        });
        alive.sum::<Duration>() + ended_children(self.process.pid())
    }

    /// Its memory and its threads.
    pub fn footprint(&self) -> Footprint {
        let mut footprint = Footprint::default();
        for pid in self.family() {
            footprint.resident += number(pid, "smaps_rollup", "Pss:");
            footprint.threads += number(pid, "status", "Threads:");
        }
        footprint
    }

    /// Asks it to stop.
    pub fn ask_to_stop(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits for its end; the time on the monotonic clock, in seconds, at which `smfi_main` returned.
    ///
    /// # Errors
    ///
    /// When it does not end, or does not say.
    pub fn main_returned(&mut self) -> Result<f64, String> {
        self.process.wait(PATIENCE).ok_or("the filter runs on after SIGTERM")?;
        let said = fs::read_to_string(&self.output).unwrap_or_default();
        let time = said.split_whitespace().next_back().and_then(|time| time.parse().ok());
        time.ok_or_else(|| "the filter did not say when smfi_main returned".to_owned())
    }

    /// Kills it; how often its processes were switched since they were started. Of a child that still lives only the
    /// threads that live too count: nobody is told of what it has used when it dies with its parent.
    pub fn kill(self) -> u64 {
        let of_children: u64 = self.family().into_iter().skip(1).map(switches_of).sum();
        let before = switches_of_ended();
        let _ = self.process.end();
        of_children + switches_of_ended() - before
    }

    /// Kills what a wrapper runs, and waits for the wrapper's own end.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn kill_wrapped(mut self) -> Result<(), String> {
        for pid in self.family().into_iter().skip(1).collect::<Vec<_>>().into_iter().rev() {
            let pid = ctests::Pid::from_raw(i32::try_from(pid).expect("process ids are small"));
            // It may have ended by itself.
            let _ = pid.map(|pid| ctests::kill_process(pid, Signal::KILL));
        }
        self.process.wait(PATIENCE).map(drop).ok_or_else(|| "the wrapper of the filter runs on".to_owned())
    }
}

/// A number that the system knows of a process; 0 if that has just ended.
fn number(pid: u32, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let word = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).unwrap_or_default()
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = Path::new("/proc").join(pid.to_string()).join("task").read_dir() else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Processor time of the children that a process has waited for.
fn ended_children(pid: u32) -> Duration {
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold blanks; the time of children is in fields 16 and 17 of all.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: u32 = fields.split_whitespace().skip(13).take(2).filter_map(|ticks| ticks.parse::<u32>().ok()).sum();
    TICK * ticks
}

/// Context switches of the threads of a process that live.
fn switches_of(pid: u32) -> u64 {
    let Ok(tasks) = Path::new("/proc").join(pid.to_string()).join("task").read_dir() else { return 0 };
    let status = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let count = |status: String| -> u64 {
        let lines = status.lines().filter_map(|line| line.split_once("_ctxt_switches:"));
        lines.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum()
    };
    status.map(count).sum()
}

/// Context switches of children that have ended, and of theirs.
fn switches_of_ended() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("usage is always known");
    let count = usage.voluntary_context_switches() + usage.involuntary_context_switches();
    u64::try_from(count).unwrap_or_default()
}
