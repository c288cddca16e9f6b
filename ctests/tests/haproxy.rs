//! Filters on several hosts behind HAProxy, with the configuration of `docs/haproxy`. The one test of this program, so that
//! nothing forks beside it.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use ctests::{
    Filter, MailServer, Postfix, Process, Setting, Signal, TempDir, find,
    mailbag::{RECIPIENT, SENDER, letter},
    skip,
    stage::{make, output},
    workspace_dir,
};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(120);

/// One of four addresses of this machine that no other process of a test has.
fn address(number: u32) -> String {
    let id = process::id();
    format!("127.{}.{}.{}", 64 | id >> 14 & 63, id >> 6 & 255, (id & 63) << 2 | number)
}

/// A filter that signs with its name, on a host of its own.
fn filter(name: &str, address: &str) -> Filter {
    let plan = format!(
        "start setconn inet:8891@{address}\nstart register\nstart opensocket 0\nstart note opened\nstart main\n\
         on eom addheader X-Filter {name}\n"
    );
    let filter = Filter::launch(&Setting::ours(), &plan, TempDir::new());
    filter.wait_for("note opened");
    filter
}

/// HAProxy, and what it says about the two filters.
struct Balancer {
    process: Process,
    socket: PathBuf,
}

impl Balancer {
    /// Starts it with the file from the documentation, in which only addresses and paths are others.
    fn start(haproxy: &Path, directory: &TempDir) -> Balancer {
        let place = directory.join("haproxy");
        output(make().arg("install-probe").arg(format!("PREFIX={}", place.display())));
        let check = place.join("bin/milter-check");
        output(Command::new("cp").arg(workspace_dir().join("docs/haproxy/milter-check")).arg(&check));
        let socket = place.join("admin.sock");
        let text = fs::read_to_string(workspace_dir().join("docs/haproxy/haproxy.cfg")).expect("it is there");
        let configuration = [
            ("127.0.0.1:8891\n    balance", format!("{}:8891\n    balance", address(0))),
            ("192.0.2.11", address(1)),
            ("192.0.2.12", address(2)),
            ("/run/haproxy/admin.sock", socket.display().to_string()),
            ("path /usr/local/bin:", format!("path {}/bin:", place.display())),
            ("command /usr/local/bin/milter-check", format!("command {}", check.display())),
        ]
        .into_iter()
        .fold(text, |text, (documented, ours)| {
            assert_eq!(text.matches(documented).count(), 1, "{documented} in haproxy.cfg");
            text.replace(documented, &ours)
        });
        let file = directory.write("haproxy.cfg", configuration);
        let said = fs::File::create(directory.join("haproxy.output")).expect("a writable directory");
        let mut command = Command::new(haproxy);
        command.arg("-db").arg("-f").arg(file).stdin(Stdio::null());
        let process = Process::spawn(command.stdout(said.try_clone().expect("a descriptor")).stderr(said));
        Balancer { process, socket }
    }

    /// Its answer to a command.
    fn ask(&self, command: &str) -> Option<String> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        stream.write_all(format!("{command}\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// What it calls the state of each filter, and the result of the last check: `UP` and `PROCOK`.
    fn states(&self) -> Option<HashMap<String, (String, String)>> {
        let table = self.ask("show stat")?;
        let mut lines = table.trim_start_matches("# ").lines().map(|line| line.split(',').collect::<Vec<_>>());
        let names = lines.next()?;
        let column = |name: &str| names.iter().position(|found| *found == name);
        let (server, status, check) = (column("svname")?, column("status")?, column("check_status")?);
        let rows = lines.filter(|row| row.len() > check);
        Some(rows.map(|row| (row[server].to_owned(), (row[status].to_owned(), row[check].to_owned()))).collect())
    }

    /// Waits until a filter is in this state and the result of the last check has this in it.
    fn wait_for(&mut self, filter: &str, status: &str, check: &str, directory: &TempDir) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let states = self.states();
            let state = states.as_ref().and_then(|states| states.get(filter));
            if state.is_some_and(|state| state.0 == status && state.1.contains(check)) {
                return;
            }
            let said = || fs::read_to_string(directory.join("haproxy.output")).unwrap_or_default();
            assert!(self.process.is_alive(), "HAProxy has ended: {}", said());
            assert!(Instant::now() < deadline, "{filter} is not {status}: {states:?}\n{}", said());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn mail_goes_on_when_one_of_two_filters_dies() {
    let test = "filters behind HAProxy";
    let Some(haproxy) = find("haproxy") else { return skip(test, "haproxy") };
    let milter = format!("inet:{}:8891", address(0));
    let Some(postfix) = Postfix::start_or_skip(test, &[("smtpd_milters", &milter)]) else { return };
    // Passes a message, and says which filter has signed it.
    let pass = || {
        postfix.smtp().submit(SENDER, &[RECIPIENT], &letter("news"));
        postfix.next().header("X-Filter").join(" and ")
    };
    // Passes messages until these filters have signed some.
    let pass_through = |filters: &[&str]| {
        let mut missing: BTreeSet<&str> = filters.iter().copied().collect();
        for _ in 0..20 {
            missing.remove(pass().as_str());
        }
        assert_eq!(missing, BTreeSet::new());
    };

    let mut first = filter("one", &address(1));
    let _second = filter("two", &address(2));
    let directory = postfix.directory();
    let mut balancer = Balancer::start(&haproxy, directory);
    balancer.wait_for("filter1", "UP", "PROCOK", directory);
    balancer.wait_for("filter2", "UP", "PROCOK", directory);
    pass_through(&["one", "two"]);

    first.process().signal(Signal::KILL);
    assert!(first.process().wait(LIMIT).is_some());
    for _ in 0..3 {
        assert_eq!(pass(), "two");
    }
    balancer.wait_for("filter1", "DOWN", "PROC", directory);
    assert_eq!(pass(), "two");

    let _again = filter("one", &address(1));
    balancer.wait_for("filter1", "UP", "PROCOK", directory);
    pass_through(&["one", "two"]);

    assert_eq!(balancer.ask("set server milter/filter2 state drain").as_deref(), Some("\n"));
    for _ in 0..3 {
        assert_eq!(pass(), "one");
    }
    assert_eq!(postfix.complaints(), [""; 0]);
}
