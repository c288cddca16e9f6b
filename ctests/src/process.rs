//! Started programs, which never outlive their test.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    os::{
        fd::{IntoRawFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt::set_socket_reuseaddr},
    process::{Pid, Signal, kill_process, kill_process_group},
};

use crate::Library;

/// A running program and the processes it forked; all are killed on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` in a process group of its own, without cargo's library search path.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn spawn(command: &mut Command) -> Process {
        let child = command
            .env_remove("LD_LIBRARY_PATH")
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
        Process { child }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The pipes of the program, where the command asked for some.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// When it has gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).expect("the process still runs");
    }

    /// Processor time it has used so far, in clock ticks.
    ///
    /// # Panics
    ///
    /// When the system does not say.
    #[must_use]
    pub fn cpu_ticks(&self) -> u64 {
        let path = format!("/proc/{}/stat", self.id().as_raw_nonzero());
        let status = std::fs::read_to_string(path).expect("the process still runs");
        // The name in parentheses may hold blanks; user and system time are fields 14 and 15 of all.
        let (_, fields) = status.rsplit_once(')').expect("the name is in parentheses");
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
    }

    /// The processes that it has forked and that still exist, with the state of each: `Z` is a zombie.
    ///
    /// # Panics
    ///
    /// When the system does not say.
    #[must_use]
    pub fn children(&self) -> Vec<(u32, char)> {
        let of_ours = numbered("/proc").filter_map(|pid| {
            let (state, parent) = state_and_parent(&format!("/proc/{pid}/stat"))?;
            (parent == self.pid()).then_some((pid, state))
        });
        of_ours.collect()
    }

    /// Whether every thread of the processes that it has forked waits for something: what they were asked to do is over,
    /// also where the answer came before that.
    ///
    /// # Panics
    ///
    /// When the system does not say.
    #[must_use]
    pub fn children_wait(&self) -> bool {
        self.children().iter().all(|(child, _)| all_threads_wait(*child))
    }

    /// Whether each of its threads waits for something.
    #[must_use]
    pub fn waits(&self) -> bool {
        all_threads_wait(self.pid())
    }

    /// Whether it still runs.
    ///
    /// # Panics
    ///
    /// When the system does not say.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Waits for its end; `None` when it still runs after `limit`.
    ///
    /// # Panics
    ///
    /// When the system does not say.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills it and says whether that was what ended it: false if it was already on its way out.
    ///
    /// # Panics
    ///
    /// When the system does not say how it ended.
    #[must_use]
    pub fn end(mut self) -> bool {
        let _ = self.child.kill();
        let status = self.child.wait().expect("a child can be waited for");
        status.signal() == Some(Signal::KILL.as_raw())
    }

    /// Checks that the process has mapped `library` and no other libmilter.
    ///
    /// # Panics
    ///
    /// When it has not.
    pub fn assert_uses(&self, library: &Library) {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid())).expect("a live process has maps");
        let mapped: Vec<&str> = maps
            .lines()
            .filter_map(|line| line.find('/').map(|at| &line[at..]))
            // A build during the test replaces the file, the process goes on with the old one.
            .map(|path| path.trim_end_matches(" (deleted)"))
            .filter(|path| path.rsplit('/').next().is_some_and(|name| name.starts_with("libmilter.")))
            .collect();
        let wanted = library.shared_object().to_str().expect("an UTF-8 path");
        assert!(
            !mapped.is_empty() && mapped.iter().all(|path| *path == wanted),
            "process {} should have mapped {wanted}, but has {mapped:?}",
            self.pid()
        );
    }

    /// Sends a signal to it and to all processes that it has forked.
    ///
    /// # Panics
    ///
    /// When all have gone.
    pub fn signal_group(&self, signal: Signal) {
        kill_process_group(self.id(), signal).expect("the process still runs");
    }

    fn id(&self) -> Pid {
        pid(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill_process_group(self.id(), Signal::KILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn all_threads_wait(process: u32) -> bool {
    let threads = format!("/proc/{process}/task");
    let mut states = numbered(&threads).map(|thread| state_and_parent(&format!("{threads}/{thread}/stat")));
    states.all(|state| state.is_none_or(|(state, _)| state == 'S'))
}

/// The entries of a directory whose names are numbers.
fn numbered(directory: &str) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// What a status file of proc(5) says; `None` when the process has gone.
fn state_and_parent(path: &str) -> Option<(char, u32)> {
    let status = fs::read_to_string(path).ok()?;
    let mut fields = status.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Kills a process that a [`Process`] has forked.
///
/// # Panics
///
/// When it has gone.
pub fn kill_child(child: u32) {
    signal_child(child, Signal::KILL);
}

/// Sends a signal to a process that a [`Process`] has forked.
///
/// # Panics
///
/// When it has gone.
pub fn signal_child(child: u32, signal: Signal) {
    kill_process(pid(child), signal).expect("the process still runs");
}

fn pid(number: u32) -> Pid {
    let raw = i32::try_from(number).expect("process ids are small");
    Pid::from_raw(raw).expect("process ids are positive")
}

/// A TCP port of the loopback address that nothing listens on, and that the system gives to nobody else as long as this
/// process runs.
///
/// # Panics
///
/// When the system has none.
#[must_use]
pub fn free_port() -> u16 {
    let reserved = reserve(0).expect("a free port on the loopback address");
    let address = getsockname(&reserved).expect("it is bound");
    // Kept to the end of the process.
    let _ = reserved.into_raw_fd();
    SocketAddrV4::try_from(address).expect("an IPv4 address").port()
}

/// Whether programs may listen on this TCP port of the loopback address.
#[must_use]
pub fn is_free(port: u16) -> bool {
    reserve(port).is_ok()
}

/// A socket that has the port but does not listen: neither does a copy of it in a process that another test has just
/// forked, so whoever sets `SO_REUSEADDR`, as servers do, can listen there.
fn reserve(port: u16) -> rustix::io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    Ok(socket)
}

/// Whether the tests run as root, who may do more and whose socket files stay.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
