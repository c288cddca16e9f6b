//! What a service manager is told: a socket of ours stands in for it.

use std::{
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::{Duration, Instant},
};

use ctests::{Filter, MtaConnection, Setting, Signal, Surroundings, TempDir};

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

    fn expect(&self, wanted: &str) {
        let message = self.message(LIMIT);
        assert_eq!(message.as_deref(), Some(wanted));
    }

    /// Skips messages until this one comes.
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

    /// How many signs of life come in this time; nothing else does.
    fn signs_of_life(&self, time: Duration) -> usize {
        let end = Instant::now() + time;
        let mut signs = 0;
        while let Some(message) =
            self.message(end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)))
        {
            assert_eq!(message, "WATCHDOG=1");
            signs += 1;
        }
        signs
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

#[test]
fn ready_status_stopping() {
    for setting in Setting::every_model() {
        for make in [Manager::at_path, Manager::abstract_name] {
            let directory = TempDir::new();
            let (manager, name) = make(&directory);
            let mut filter = launch(&setting, vec![("NOTIFY_SOCKET", name)], "", PLAN, directory);
            manager.expect("READY=1\nSTATUS=0 sessions");
            // Ready means that nobody waits for more than a moment.
            let first = session(&filter);
            manager.expect("STATUS=1 session");
            let told = Instant::now();
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
            let most = told.elapsed().as_secs_f32().ceil() as usize + 1;
            assert!(messages.len() <= most, "{setting}: {messages:?} in {:?}", told.elapsed());
            drop((first, others));
            manager.until("STATUS=0 sessions");
            assert_eq!(manager.message(Duration::from_millis(1500)), None, "{setting}: nothing has changed");
            let sessions = session(&filter);
            manager.expect("STATUS=1 session");
            filter.process().signal(Signal::TERM);
            manager.expect("STOPPING=1\nSTATUS=1 session");
            assert!(filter.process().wait(LIMIT).is_some_and(|status| status.success()), "{setting}");
            drop(sessions);
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
        let mut filter = launch(&setting, environment, "", PLAN, directory);
        let mut first = [manager.message(LIMIT), manager.message(LIMIT)].map(|message| message.expect("two messages"));
        first.sort();
        assert_eq!(first, ["READY=1\nSTATUS=0 sessions", "WATCHDOG=1"], "{setting}");
        // Every 200 milliseconds, from a filter that has nothing else to do.
        let signs = manager.signs_of_life(Duration::from_secs(2));
        assert!((5..=11).contains(&signs), "{setting}: {signs}");
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
        std::thread::sleep(Duration::from_millis(200));
        // What was sent before.
        manager.until_silence_or(20);
        let signs = manager.signs_of_life_among_others(Duration::from_secs(1));
        assert_eq!(signs > 0, alive, "{options}: {signs}");
    }
}

impl Manager {
    /// Reads what has been sent, at most so many messages.
    fn until_silence_or(&self, most: usize) {
        for _ in 0..most {
            if self.message(Duration::from_millis(1)).is_none() {
                return;
            }
        }
    }

    fn signs_of_life_among_others(&self, time: Duration) -> usize {
        let end = Instant::now() + time;
        let mut signs = 0;
        while let Some(message) =
            self.message(end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)))
        {
            signs += usize::from(message == "WATCHDOG=1");
        }
        signs
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
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    filter.process().signal(Signal::TERM);
    assert!(filter.process().wait(LIMIT).is_some_and(|status| status.success()));
    drop(manager);
}
