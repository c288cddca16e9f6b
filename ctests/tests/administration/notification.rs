//! What a service manager is told: a socket of ours stands in for it.

use std::{
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::{Duration, Instant},
};

use ctests::{Filter, MtaConnection, Setting, Signal, Surroundings, TempDir, eventually};

use crate::{LIMIT, OFFER};

const PLAN: &str = "start setconn $socket\nstart register\nstart opensocket 0\nstart main\n";

struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    /// One at a path in the directory, and the value of NOTIFY_SOCKET for it.
    fn at_path(directory: &TempDir) -> (Manager, String) {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a fresh directory");
        (Manager { socket }, path.to_str().expect("a path of ours").to_owned())
    }

    /// One with an abstract name.
    fn abstract_name(directory: &TempDir) -> (Manager, String) {
        let name = directory.join("notify").to_str().expect("a path of ours").to_owned();
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let socket = UnixDatagram::bind_addr(&address).expect("nobody else's name");
        (Manager { socket }, format!("@{name}"))
    }

    /// The next message within `limit`.
    fn message(&self, limit: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(limit)).expect("a limit that is not zero");
        let mut room = [0; 4096];
        let len = self.socket.recv(&mut room).ok()?;
        Some(String::from_utf8(room[..len].to_vec()).expect("text"))
    }

    #[track_caller]
    fn expect(&self, wanted: &str) {
        let message = self.message(LIMIT);
        assert_eq!(message.as_deref(), Some(wanted));
    }

    /// Skips messages until this one comes.
    #[track_caller]
    fn until(&self, wanted: &str) {
        let deadline = Instant::now() + LIMIT;
        let mut others = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            match self.message(left) {
                Some(message) if message == wanted => return,
                Some(message) => others.push(message),
                None => panic!("no {wanted}, but {others:?}"),
            }
        }
    }

    /// Reads what has been sent.
    fn until_silence(&self) {
        while self.message(Duration::from_millis(1)).is_some() {}
    }
}

fn launch(
    setting: &Setting,
    more: Vec<(&'static str, String)>,
    options: &str,
    plan: &str,
    directory: TempDir,
) -> Filter {
    let surroundings = Surroundings { environment: more, options: options.to_owned(), ..Surroundings::default() };
    Filter::launch_with(setting, &surroundings, plan, directory)
}

fn session(filter: &Filter) -> MtaConnection {
    let mut mta = filter.connect();
    assert!(mta.ask(OFFER).starts_with("OPTNEG"));
    mta
}

/// What the manager has missed it is told when it reads again.
#[test]
fn a_manager_that_reads_later() {
    for setting in Setting::every_model() {
        let directory = TempDir::new();
        let (manager, name) = Manager::at_path(&directory);
        let flood = UnixDatagram::unbound().expect("a socket");
        flood.set_nonblocking(true).expect("our own socket");
        while flood.send_to(b"full", &name).is_ok() {}
        let mut filter = launch(&setting, vec![("NOTIFY_SOCKET", name)], "", PLAN, directory);
        filter.wait_for("opensocket 0");
        drop(session(&filter));
        let message = "cannot notify the service manager";
        let told = |filter: &Filter| filter.lines().iter().filter(|line| line.contains(message)).count();
        eventually(message, || told(&filter) > 0);
        while !manager.message(LIMIT).expect("a filter that is ready").starts_with("READY=1\n") {}
        filter.process().signal(Signal::TERM);
        assert!(filter.process().wait(LIMIT).is_some_and(|status| status.success()), "{setting}");
        assert_eq!(told(&filter), 1, "{setting}");
    }
}

#[test]
fn ready_status_stopping() {
    for setting in Setting::every_model() {
        for make in [Manager::at_path, Manager::abstract_name] {
            let directory = TempDir::new();
            let (manager, name) = make(&directory);
            let mut filter = launch(&setting, vec![("NOTIFY_SOCKET", name)], "", PLAN, directory);
            manager.expect("READY=1\nSTATUS=0 sessions");
            // Ready means that nobody waits for more than a moment.
            let began = Instant::now();
            let first = session(&filter);
            manager.expect("STATUS=1 session");
            // Many changes in short time, and the last word is right.
            for _ in 0..20 {
                drop(session(&filter));
            }
            let others = [session(&filter), session(&filter)];
            let deadline = Instant::now() + LIMIT;
            let mut messages = Vec::new();
            while messages.last().map(String::as_str) != Some("STATUS=3 sessions") {
                assert!(Instant::now() < deadline, "{setting}: {messages:?}");
                messages.extend(manager.message(LIMIT));
            }
            let most = began.elapsed().as_secs();
            assert!(messages.len() as u64 <= most, "{setting}: {messages:?} in {most} seconds and a bit");
            drop((first, others));
            manager.until("STATUS=0 sessions");
            assert_eq!(manager.message(Duration::from_millis(1500)), None, "{setting}: nothing has changed");
            let idle = session(&filter);
            manager.expect("STATUS=1 session");
            filter.process().signal(Signal::TERM);
            // A session between messages ends with the stop, before or after that is told.
            let last = manager.message(LIMIT).unwrap_or_default();
            let possible = ["STOPPING=1\nSTATUS=1 session", "STOPPING=1\nSTATUS=0 sessions"];
            assert!(possible.contains(&last.as_str()), "{setting}: {last:?}");
            assert!(filter.process().wait(LIMIT).is_some_and(|status| status.success()), "{setting}");
            drop(idle);
        }
    }
}

/// STOPPING is told at once, not when the last message is over.
#[test]
fn stopping_is_told_at_the_beginning() {
    for setting in Setting::every_model() {
        let directory = TempDir::new();
        let (manager, name) = Manager::at_path(&directory);
        let mut filter = launch(&setting, vec![("NOTIFY_SOCKET", name)], "drain=60", PLAN, directory);
        manager.expect("READY=1\nSTATUS=0 sessions");
        let mut mta = session(&filter);
        assert_eq!(mta.ask("MAIL <a>"), "CONTINUE", "{setting}");
        filter.process().signal(Signal::TERM);
        manager.until("STOPPING=1\nSTATUS=1 session");
        assert!(filter.process().is_alive(), "{setting}");
    }
}

#[test]
fn signs_of_life() {
    for setting in Setting::every_model() {
        let directory = TempDir::new();
        let (manager, name) = Manager::at_path(&directory);
        let environment = vec![("NOTIFY_SOCKET", name), ("WATCHDOG_USEC", "400000".to_owned())];
        let began = Instant::now();
        let mut filter = launch(&setting, environment, "", PLAN, directory);
        // From a filter that has nothing else to do.
        let received: Vec<(String, Instant)> =
            (0..11).map(|_| (manager.message(LIMIT).expect("eleven messages"), Instant::now())).collect();
        let (signs, others): (Vec<_>, Vec<_>) = received.iter().partition(|(message, _)| message == "WATCHDOG=1");
        assert!(matches!(&others[..], [(ready, _)] if ready == "READY=1\nSTATUS=0 sessions"), "{setting}: {others:?}");
        // Every 200 milliseconds: never earlier, and later only where something delays them.
        let time = began.elapsed();
        assert!(time >= 9 * Duration::from_millis(200), "{setting}: ten in {time:?}");
        let shortest = signs.windows(2).map(|pair| pair[1].1 - pair[0].1).min();
        assert!(shortest < Some(Duration::from_millis(400)), "{setting}: {shortest:?}");
        let before = filter.process().cpu_ticks();
        std::thread::sleep(Duration::from_secs(2));
        let used = filter.process().cpu_ticks() - before;
        assert!(used <= 3, "{setting}: {used} ticks of a hundredth of a second");
    }
}

/// A callback that never returns stops the loop of a filter with one thread, and nothing else does.
#[test]
fn a_loop_that_does_not_turn_gives_no_sign() {
    for (options, alive) in [("threads=1", false), ("", true), ("model=threads", true)] {
        let directory = TempDir::new();
        let (manager, name) = Manager::at_path(&directory);
        let environment = vec![("NOTIFY_SOCKET", name), ("WATCHDOG_USEC", "200000".to_owned())];
        let plan = format!("{PLAN}on helo sleep 60000\n");
        let filter = launch(&Setting::ours(), environment, options, &plan, directory);
        manager.until("WATCHDOG=1");
        let mut mta = session(&filter);
        mta.command("HELO h");
        filter.wait_for("helo");
        manager.until_silence();
        if alive {
            manager.until("WATCHDOG=1");
        } else {
            // But for the number of sessions.
            let later = [manager.message(Duration::from_secs(1)), manager.message(Duration::from_secs(1))];
            assert!(later.iter().flatten().all(|message| message.starts_with("STATUS=")), "{options}: {later:?}");
        }
    }
}

#[test]
fn a_watchdog_of_another_process() {
    let directory = TempDir::new();
    let (manager, name) = Manager::at_path(&directory);
    let environment =
        vec![("NOTIFY_SOCKET", name), ("WATCHDOG_USEC", "100000".to_owned()), ("WATCHDOG_PID", "1".to_owned())];
    let _filter = launch(&Setting::ours(), environment, "", PLAN, directory);
    manager.expect("READY=1\nSTATUS=0 sessions");
    assert_eq!(manager.message(Duration::from_millis(500)), None);
}

/// Nobody who listens, an address that is none: a line in the log, and mail goes on.
#[test]
fn a_manager_that_cannot_be_told() {
    for name in ["/nonexistent/notify", "@nobody-listens-here", "vsock:2:1234", "relative", "@", ""] {
        let filter = launch(&Setting::ours(), vec![("NOTIFY_SOCKET", name.to_owned())], "", PLAN, TempDir::new());
        filter.wait_for("opensocket 0");
        let said = filter.wait_for("log 3 ");
        assert!(said.contains("cannot notify the service manager"), "{name}: {said}");
        drop(session(&filter));
        drop(session(&filter));
    }
}

/// A manager that does not read holds nobody up.
#[test]
fn a_manager_that_never_reads() {
    let directory = TempDir::new();
    let (manager, name) = Manager::at_path(&directory);
    let environment = vec![("NOTIFY_SOCKET", name), ("WATCHDOG_USEC", "2000".to_owned())];
    let mut filter = launch(&Setting::ours(), environment, "", PLAN, directory);
    filter.wait_for("opensocket 0");
    let start = Instant::now();
    for _ in 0..100 {
        let mut mta = session(&filter);
        assert_eq!(mta.ask("HELO h"), "CONTINUE");
    }
    assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    filter.process().signal(Signal::TERM);
    assert!(filter.process().wait(LIMIT).is_some_and(|status| status.success()));
    drop(manager);
}
