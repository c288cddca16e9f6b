//! The models that run sessions in processes of their own, `fork` and `processes=N`: what a crash costs, and that the
//! processes are one filter to everybody outside.

use std::{
    collections::HashMap,
    fs,
    io::Write,
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    process::Command,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use ctests::{
    Filter, MtaConnection, PATIENCE, Setting, Signal, Surroundings, TempDir, eventually, is_root, kill_child,
    signal_child, skip,
};
use rustix::fs::OFlags;

const OFFER: &str = "OPTNEG 6 1ff 1fffff";
const MESSAGE: [&str; 6] = ["RCPT <b>", "DATA", "HEADER S v", "EOH", "BODY x", "BODYEOB"];

fn fork() -> Setting {
    Setting::model("fork")
}

fn both() -> [Setting; 2] {
    [fork(), Setting::processes(2)]
}

fn negotiated(filter: &Filter) -> MtaConnection {
    let mut mta = filter.connect();
    assert!(mta.ask(OFFER).starts_with("OPTNEG"), "{}", filter.lines().join("\n"));
    mta
}

/// A filter whose plan says what the program does after smfi_main.
fn serving(setting: &Setting, plan: &str) -> Filter {
    let plan = format!("start setconn $socket\nstart register\nstart opensocket\nstart main\n{plan}");
    let filter = Filter::launch(setting, &plan, TempDir::new());
    filter.wait_for("opensocket 0");
    filter
}

fn exists(pid: u32) -> bool {
    // Nobody may have buried it yet, whose parent has been killed.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|status| !status.contains(") Z"))
}

/// The processes that have written lines about themselves.
fn processes(filter: &Filter) -> Vec<u32> {
    let lines = filter.lines();
    let numbers = lines.iter().filter_map(|line| line.strip_prefix("process "));
    numbers.map(|number| number.parse().expect("a number")).collect()
}

/// The last of them.
fn last_process(filter: &Filter) -> u32 {
    processes(filter).pop().expect("somebody has said it")
}

/// Sessions that have said HELO, each with the process that serves it.
fn sessions(filter: &Filter, count: usize) -> Vec<(u32, MtaConnection)> {
    let open = |_| {
        let mut mta = negotiated(filter);
        assert_eq!(mta.ask("HELO h"), "CONTINUE");
        (last_process(filter), mta)
    };
    (0..count).map(open).collect()
}

fn errors(filter: &Filter) -> Vec<String> {
    filter.lines().into_iter().filter(|line| line.starts_with("log 3")).collect()
}

/// The whole life of a session; false when it ends early. `name` is what the MTA calls the message, see [`FRAGILE`].
fn mail(filter: &Filter, name: &str) -> bool {
    let Ok(mut mta) = MtaConnection::unix(filter.socket()) else { return false };
    mta.command(OFFER);
    if !mta.reply().starts_with("OPTNEG") {
        return false;
    }
    mta.command(&format!("MACRO M i={name}"));
    for command in ["MAIL <a>"].iter().chain(&MESSAGE) {
        match mta.ask(command).as_str() {
            "CONTINUE" => {}
            "EOF" => return false,
            other => panic!("{command}: {other}\n{}", filter.lines().join("\n")),
        }
    }
    assert_eq!(mta.ask("QUIT"), "EOF");
    true
}

/// Two kinds of messages are too much for it; each kills its process in another way.
const FRAGILE: &str = "callbacks helo envfrom eom close\non envfrom raise-if SEGV i bad\n\
                       on envfrom raise-if KILL i worse\non helo process\n";

/// Has six clients at once send 25 messages each, of which every fourth kills its process; returns how many do so.
fn fragile_load(filter: &Filter) -> usize {
    let bad = AtomicUsize::new(0);
    thread::scope(|scope| {
        for client in 0..6 {
            let (filter, bad) = (&filter, &bad);
            scope.spawn(move || {
                for round in 0..25 {
                    let name = ["bad", "good", "good", "good", "worse", "good", "good", "good"][(client + round) % 8];
                    assert_eq!(mail(filter, name), name == "good", "session {round} of client {client}");
                    bad.fetch_add(usize::from(name != "good"), SeqCst);
                }
            });
        }
    });
    let bad = bad.into_inner();
    eventually("every crash is told", || errors(filter).len() == bad);
    assert_eq!(filter.lines().iter().filter(|line| *line == "eom").count(), 6 * 25 - bad);
    bad
}

#[test]
fn a_crash_costs_one_session_with_fork() {
    let mut filter = Filter::start(&fork(), FRAGILE);
    let bad = fragile_load(&filter);
    let told = errors(&filter);
    let count = |end: &str| told.iter().filter(|line| line.contains("] process ") && line.contains(end)).count();
    let segv = count("was killed by SIGSEGV, the session is lost");
    assert!(segv > 0 && segv < bad, "{told:?}");
    assert_eq!(segv + count("was killed by SIGKILL, the session is lost"), bad, "{told:?}");
    eventually("nobody is left, not even zombies", || filter.process().children().is_empty());
}

/// The kernel buries children then, and gives their numbers away.
#[test]
fn crashes_in_a_program_that_ignores_its_children() {
    let mut filter = Filter::start(&fork(), &format!("before ignore-children\n{FRAGILE}"));
    fragile_load(&filter);
    for line in errors(&filter) {
        assert!(line.contains(" ended, the session is lost"), "{line}");
    }
    eventually("nobody is left", || filter.process().children().is_empty());

    let mut filter = Filter::start(&Setting::processes(2), &format!("before ignore-children\n{FRAGILE}"));
    for crash in 1..4 {
        assert!(!mail(&filter, "bad"));
        eventually("it is told", || errors(&filter).len() == crash);
        assert!(mail(&filter, "good"));
    }
    eventually("all posts are held again", || filter.process().children().len() == 2);
}

/// Status 0 looks like the end of a process whose session is over.
#[test]
fn a_session_that_ends_by_exit_is_told() {
    let mut filter = Filter::start(&fork(), "on helo exit 0\n");
    assert_eq!(negotiated(&filter).ask("QUIT"), "EOF");
    assert_eq!(negotiated(&filter).ask("HELO h"), "EOF");
    eventually("it is told", || !errors(&filter).is_empty());
    eventually("both have ended", || filter.process().children().is_empty());
    let told = errors(&filter);
    let text = "ended with status 0, the session is lost";
    assert!(told.len() == 1 && told[0].contains("[2] process ") && told[0].contains(text), "{told:?}");
}

#[test]
fn a_crash_costs_one_worker_with_processes() {
    let mut filter = Filter::start(&Setting::processes(2), FRAGILE);
    let mut open = sessions(&filter, 8);
    let mut of_worker: HashMap<u32, usize> = HashMap::new();
    open.iter().for_each(|(worker, _)| *of_worker.entry(*worker).or_default() += 1);
    assert_eq!(of_worker.values().collect::<Vec<_>>(), [&4, &4], "each has its share");
    let victim = open[0].0;
    assert_eq!(open[0].1.ask("MACRO M i=bad ; MAIL <a>"), "EOF");
    for (worker, mta) in &mut open {
        let expected = if *worker == victim { "EOF" } else { "CONTINUE" };
        assert_eq!(mta.ask("MAIL <a>"), expected);
    }
    // Until it is told, the one that has crashed still counts.
    eventually("it is told", || !errors(&filter).is_empty());
    eventually("another worker starts", || filter.process().children().len() == 2);
    let told = errors(&filter);
    let text = format!("(process {victim}) was killed by SIGSEGV, 4 sessions are lost; another one starts at once");
    assert!(told.len() == 1 && told[0].contains(&text), "{told:?}");
    // The new one has fewer sessions than the old one.
    for (worker, mut mta) in sessions(&filter, 4) {
        assert!(!of_worker.contains_key(&worker));
        for command in ["MAIL <a>"].iter().chain(&MESSAGE) {
            assert_eq!(mta.ask(command), "CONTINUE");
        }
    }
}

#[test]
fn workers_that_crash_under_load() {
    let mut filter = Filter::start(&Setting::processes(4), FRAGILE);
    const BAD: usize = 6;
    let failed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for client in 0..6 {
            let (filter, failed) = (&filter, &failed);
            scope.spawn(move || {
                // As MTAs do: a message that has found no verdict comes again.
                let deliver = || {
                    while !mail(filter, "good") {
                        failed.fetch_add(1, SeqCst);
                    }
                };
                for round in 0..40 {
                    if client == 0 && round < BAD {
                        assert!(!mail(filter, ["bad", "worse"][round % 2]));
                        failed.fetch_add(1, SeqCst);
                    }
                    deliver();
                }
            });
        }
    });
    let failed = failed.into_inner();
    let crashes = |signal: &str| errors(&filter).iter().filter(|line| line.contains(signal)).count();
    eventually("every crash is told", || errors(&filter).len() == BAD);
    assert_eq!([crashes("was killed by SIGSEGV"), crashes("was killed by SIGKILL")], [BAD / 2; 2]);
    let lost: usize = errors(&filter)
        .iter()
        .filter_map(|line| line.split(", ").nth(1)?.split(' ').next()?.parse::<usize>().ok())
        .sum();
    assert!(failed >= BAD && failed <= lost, "{failed} sessions failed, {lost} are said to: {:?}", errors(&filter));
    eventually("all posts are held again", || filter.process().children().len() == 4);
    assert!((0..8).all(|_| mail(&filter, "good")));
    assert!(filter.process().is_alive());
}

/// A strictly serial worker that hangs has not taken what was passed to it.
#[test]
fn what_a_worker_has_not_taken_goes_to_the_next() {
    let setting = Setting { processes: Some(1), ..Setting::model("pool, threads=1") };
    let filter = Filter::start(&setting, "on helo process\non helo#1 sleep 60000\n");
    let mut stuck = negotiated(&filter);
    stuck.command("HELO h");
    filter.wait_for("process");
    let mut waiting: Vec<MtaConnection> = (0..5).map(|_| filter.connect()).collect();
    waiting.iter_mut().for_each(|mta| mta.command(OFFER));
    thread::sleep(Duration::from_millis(100));
    kill_child(last_process(&filter));
    assert_eq!(stuck.reply(), "EOF");
    for mta in &mut waiting {
        assert!(mta.reply().starts_with("OPTNEG"));
        assert_eq!(mta.ask("HELO h"), "CONTINUE");
    }
    let told = errors(&filter);
    assert!(told.len() == 1 && told[0].contains("was killed by SIGKILL, 1 session is lost"), "{told:?}");
}

#[test]
fn workers_that_keep_dying_are_started_more_slowly() {
    let filter = Filter::start(&Setting::processes(1), "on helo exit 3\n");
    let start = Instant::now();
    for _ in 0..6 {
        let mut mta = filter.connect();
        assert!(mta.ask(OFFER).starts_with("OPTNEG"), "it waits for a worker");
        assert_eq!(mta.ask("HELO h"), "EOF");
    }
    // 0, 100, 200, 400 and 800 ms.
    assert!(start.elapsed() > Duration::from_millis(1500), "{:?}", start.elapsed());
    let told = errors(&filter);
    assert!(told[4].contains("ended with status 3, 1 session is lost; another one starts in 800 ms"), "{told:?}");
}

#[test]
fn workers_without_descriptors() {
    let filter = Filter::start(&Setting::processes(1), "on helo process\n");
    let (worker, _first) = sessions(&filter, 1).remove(0);
    let open = fs::read_dir(format!("/proc/{worker}/fd")).expect("a live process").count();
    let limit =
        Command::new("prlimit").args(["--pid", &worker.to_string(), &format!("--nofile={}", open + 3)]).status();
    if !limit.is_ok_and(|status| status.success()) {
        return ctests::skip("workers_without_descriptors", "prlimit (util-linux)");
    }
    let mut waiting: Vec<MtaConnection> = (0..12).map(|_| filter.connect()).collect();
    waiting.iter_mut().for_each(|mta| mta.command(OFFER));
    eventually("it says so", || errors(&filter).iter().any(|line| line.contains("new ones wait until that is over")));
    while let Some(mut mta) = (!waiting.is_empty()).then(|| waiting.remove(0)) {
        assert!(mta.reply().starts_with("OPTNEG"), "{} left: {:?}", waiting.len(), errors(&filter));
    }
    assert_eq!(errors(&filter).len(), 1);
}

fn warnings(filter: &Filter) -> Vec<String> {
    filter.lines().into_iter().filter(|line| line.starts_with("log 4")).collect()
}

/// Two workers with a session each; the first of them is the one that will not be able to serve.
fn with_a_session_each(filter: &mut Filter) -> [(u32, MtaConnection); 2] {
    eventually("both have started", || filter.process().children().len() == 2);
    let open: [(u32, MtaConnection); 2] = sessions(filter, 2).try_into().expect("two sessions");
    assert_ne!(open[0].0, open[1].0, "each worker has one");
    open
}

/// The worker with no session would get the next ones, if it could serve them.
fn assert_all_go_to(filter: &Filter, worker: u32, count: usize) {
    let _open: Vec<_> = sessions(filter, count).into_iter().inspect(|(it, _)| assert_eq!(*it, worker)).collect();
}

/// Stops a worker, and waits until no thread of it can do anything more.
fn stop_worker(worker: u32) {
    signal_child(worker, Signal::STOP);
    let threads = || fs::read_dir(format!("/proc/{worker}/task")).expect("a live process").flatten();
    let is_stopped = |thread: fs::DirEntry| {
        fs::read_to_string(thread.path().join("stat")).is_ok_and(|status| status.contains(") T"))
    };
    eventually("it is stopped", || threads().all(is_stopped));
}

fn limit_descriptors(process: u32, limit: &str) -> bool {
    let arguments = ["--pid", &process.to_string(), &format!("--nofile={limit}")];
    Command::new("prlimit").args(arguments).status().is_ok_and(|status| status.success())
}

#[test]
fn a_stopped_worker_gets_nothing_until_it_answers() {
    let mut filter = Filter::start(&Setting::processes(2), "on helo process\n");
    let [(stopped, mta), (other, _open)] = with_a_session_each(&mut filter);
    drop(mta);
    stop_worker(stopped);
    assert_all_go_to(&filter, other, 12);
    eventually("it is told", || !warnings(&filter).is_empty());
    assert_all_go_to(&filter, other, 12);
    let stuck = format!("(process {stopped}) has not taken a connection for 5 s; it gets no other one until it does");
    let told = warnings(&filter);
    assert!(told.len() == 1 && told[0].contains(&stuck), "{told:?}");
    signal_child(stopped, Signal::CONT);
    let answers = format!("(process {stopped}) takes connections again");
    eventually("it is told", || warnings(&filter).len() == 2 && warnings(&filter)[1].contains(&answers));
    assert_all_go_to(&filter, stopped, 1);
    assert!(errors(&filter).is_empty(), "{:?}", errors(&filter));
}

/// What it had taken before is lost, and nothing else: what lay in its channel, or went elsewhere, is no session of its.
#[test]
fn a_stopped_worker_that_is_killed_costs_its_own_sessions() {
    let mut filter = Filter::start(&Setting::processes(2), "on helo process\n");
    let [(stopped, mut mta), (other, _open)] = with_a_session_each(&mut filter);
    stop_worker(stopped);
    assert_all_go_to(&filter, other, 3);
    kill_child(stopped);
    assert_eq!(mta.reply(), "EOF");
    eventually("it is told", || !errors(&filter).is_empty());
    let told = errors(&filter);
    assert!(told.len() == 1 && told[0].contains("was killed by SIGKILL, 1 session is lost"), "{told:?}");
    eventually("another worker starts", || filter.process().children().len() == 2);
    for (worker, _) in sessions(&filter, 1) {
        assert!(worker != stopped && worker != other);
    }
}

#[test]
fn a_worker_whose_callbacks_all_block_gets_nothing() {
    let setting = Setting { processes: Some(2), ..Setting::model("pool, threads=1") };
    let mut filter = Filter::start(&setting, "on helo process\non envfrom sleep 600000\n");
    let [(_, mut blocked), (other, mta)] = with_a_session_each(&mut filter);
    drop(mta);
    blocked.command("MAIL <a>");
    filter.wait_for("envfrom");
    // More than the one that it serves.
    let _open: Vec<_> = sessions(&filter, 12).into_iter().inspect(|(it, _)| assert_eq!(*it, other)).collect();
    assert!(errors(&filter).is_empty(), "{:?}", errors(&filter));
}

#[test]
fn a_connection_waits_for_the_first_worker_that_can_take_it() {
    let filter = Filter::start(&Setting::processes(1), "on helo process\n");
    let (worker, mta) = sessions(&filter, 1).remove(0);
    drop(mta);
    stop_worker(worker);
    let mut waiting = filter.connect();
    waiting.command(OFFER);
    eventually("it is told", || !warnings(&filter).is_empty());
    // From here on nothing happens that the supervisor would notice but the worker's answer.
    signal_child(worker, Signal::CONT);
    assert_served(&mut waiting);
    eventually("it is told", || warnings(&filter).len() == 2);
    let told = warnings(&filter);
    assert!(told[0].contains("has not taken a connection for 5 s"), "{told:?}");
    assert!(told[1].contains("takes connections again"), "{told:?}");
}

#[test]
fn a_worker_without_descriptors_gets_nothing() {
    for model in ["pool", "threads"] {
        let setting = Setting { processes: Some(2), ..Setting::model(model) };
        let mut filter = Filter::start(&setting, "on helo process\n");
        let [(without, mta), (other, _open)] = with_a_session_each(&mut filter);
        drop(mta);
        if !limit_descriptors(without, "5:") {
            return skip("a_worker_without_descriptors_gets_nothing", "prlimit (util-linux)");
        }
        assert_all_go_to(&filter, other, 12);
        let told = errors(&filter);
        assert!(told.len() == 1 && told[0].contains("new ones wait until that is over"), "{told:?}");
        assert!(limit_descriptors(without, "1024:"));
        eventually("it serves again", || sessions(&filter, 1)[0].0 == without);
    }
}

/// The threads that the user may have are all in the other worker.
#[test]
fn a_worker_without_threads_gets_nothing() {
    if !is_root() {
        return skip("a_worker_without_threads_gets_nothing", "root");
    }
    let user = some_user();
    let setting = Setting { processes: Some(2), ..Setting::model("threads") };
    // Four are there without connections.
    let mut filter = crowded(&setting, user, 5);
    eventually("the workers have started", || filter.process().children().len() == 2);
    let (first, mut served) = sessions(&filter, 1).remove(0);
    for mut next in assert_waiting(&mut filter, "cannot start a thread for a session, which waits: ") {
        assert_eq!(served.ask("QUIT"), "EOF");
        assert_served(&mut next);
        assert_eq!(last_process(&filter), first);
        served = next;
    }
    allow_threads(&mut filter, user);
    eventually("the other one serves, too", || sessions(&filter, 1)[0].0 != first);
}

/// They have been taken, so they are served what they have said.
#[test]
fn a_stop_does_not_forget_connections_that_no_worker_could_take() {
    let setting = Setting { processes: Some(2), ..Setting::model("pool, threads=1, drain=60") };
    let mut filter = serving(&setting, "on helo process\non envfrom sleep 1500\n");
    let mut busy = with_a_session_each(&mut filter);
    busy.iter_mut().for_each(|(_, mta)| mta.command("MAIL <a>"));
    eventually("both are busy", || filter.lines().iter().filter(|line| line.starts_with("envfrom")).count() == 2);
    // Two were for the workers, which will not have taken them, and one has never been.
    let mut waiting: Vec<MtaConnection> = (0..3).map(|_| filter.connect()).collect();
    waiting.iter_mut().for_each(|mta| mta.command(OFFER));
    eventually("all are taken", || filter.process().waits());
    filter.process().signal(Signal::TERM);
    for mta in &mut waiting {
        assert!(mta.reply().starts_with("OPTNEG"), "{:?}", errors(&filter));
    }
    for (_, mta) in &mut busy {
        assert_eq!(mta.reply(), "CONTINUE");
        for command in MESSAGE {
            assert_eq!(mta.ask(command), "CONTINUE");
        }
    }
    assert_eq!(filter.wait_for("main"), "main 0 errno 0");
}

/// With many workers that would take its time.
#[test]
fn a_stop_does_not_wait_for_the_start_of_all_workers() {
    let plan = "start stop-at-fork 3\nstart setconn $socket\nstart register\nstart main\n";
    let mut filter = Filter::launch(&Setting::processes(20), plan, TempDir::new());
    assert_eq!(filter.wait_for("main"), "main 0 errno 0");
    assert!(filter.process().wait(PATIENCE).is_some_and(|status| status.success()));
    assert_eq!(filter.lines().iter().filter(|line| *line == "fork").count(), 3);
}

/// What the manual tells filters with such a runtime to do.
#[test]
fn a_runtime_whose_lock_is_held_after_a_fork() {
    for setting in Setting::every_model() {
        let filter = Filter::start(&setting, "before runtime\non helo in-runtime\n");
        for _ in 0..4 {
            assert_eq!(negotiated(&filter).ask("HELO h"), "CONTINUE", "{setting}");
        }
    }
}

/// As by a child of the filter's own that cannot exec and does not call _exit.
#[test]
fn a_callback_that_returns_in_two_processes() {
    let ways = ["fork", "_Fork", "syscall"];
    for (setting, way) in Setting::every_model().into_iter().flat_map(|setting| ways.map(|way| (setting, way))) {
        let plan = format!("callbacks helo envfrom eom\non envfrom copy {way}\non envfrom process\n");
        let filter = Filter::start(&setting, &plan);
        let mut others: Vec<MtaConnection> = (0..3).map(|_| negotiated(&filter)).collect();
        for copies in 1..4 {
            let mut mta = negotiated(&filter);
            assert_eq!(mta.ask("HELO h"), "CONTINUE", "{setting}");
            assert_eq!(mta.ask("MAIL <a>"), "CONTINUE", "{setting}");
            eventually("it is told", || errors(&filter).len() == copies);
            let both = processes(&filter).split_off(2 * copies - 2);
            eventually("the copy ends", || both.iter().filter(|process| exists(**process)).count() == 1);
            // Were there two answers to a command, the other one would come here.
            for command in MESSAGE {
                assert_eq!(mta.ask(command), "CONTINUE", "{setting}");
            }
            assert_eq!(mta.ask("QUIT"), "EOF", "{setting}");
            for mta in &mut others {
                assert_eq!(mta.ask("HELO h"), "CONTINUE", "{setting}");
            }
        }
        for line in errors(&filter) {
            assert!(
                line.contains("xxfi_envfrom returned in a process that it had forked; that one is ended"),
                "{line}"
            );
        }
    }
}

/// Connections that nobody has a process for are neither lost nor asked for all the time; the log says so once.
fn assert_waiting(filter: &mut Filter, told: &str) -> Vec<MtaConnection> {
    let mut waiting: Vec<MtaConnection> = (0..3).map(|_| filter.connect()).collect();
    waiting.iter_mut().for_each(|mta| mta.command(OFFER));
    let count = |filter: &Filter| errors(filter).iter().filter(|line| line.contains(told)).count();
    eventually("it is told", || count(filter) == 1);
    assert_idle(filter);
    assert_eq!(count(filter), 1, "{:?}", errors(filter));
    waiting
}

fn assert_idle(filter: &mut Filter) {
    let before = filter.process().cpu_ticks();
    thread::sleep(Duration::from_millis(400));
    let used = filter.process().cpu_ticks() - before;
    assert!(used < 20, "it spins: {used} ticks of 40");
}

fn assert_served(mta: &mut MtaConnection) {
    assert!(mta.reply().starts_with("OPTNEG"));
    assert_eq!(mta.ask("HELO h"), "CONTINUE");
}

#[test]
fn connections_wait_for_a_process_when_there_is_no_descriptor_for_it() {
    for setting in both() {
        let mut filter = Filter::start(&setting, "on helo process\n");
        let _first = sessions(&filter, 1);
        let pid = filter.process().pid();
        let limit = |descriptors: usize| {
            let limit = format!("--nofile={descriptors}:");
            Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status().is_ok_and(|it| it.success())
        };
        let (descriptors, told) = if setting.processes.is_some() {
            // Without workers no connection is taken.
            (5, "cannot start a process: ")
        } else {
            // One is left, for the connection: the record has a number far from the others.
            let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("a live process").count();
            (open, "cannot accept connections: ")
        };
        if !limit(descriptors) {
            return skip("connections_wait_for_a_process_when_there_is_no_descriptor_for_it", "prlimit (util-linux)");
        }
        if setting.processes.is_some() {
            filter.process().children().into_iter().for_each(|(worker, _)| kill_child(worker));
        }
        let mut waiting = assert_waiting(&mut filter, told);
        assert!(limit(1024));
        waiting.iter_mut().for_each(assert_served);
    }
}

/// What limits on a user's processes, which count threads, are felt by, and what is told then.
fn crowds() -> [(Setting, &'static str); 2] {
    [
        (fork(), "cannot accept connections: "),
        (Setting::model("threads"), "cannot start a thread for a session, which waits: "),
    ]
}

/// A user that nobody else is, as far as can be: what the last filter has forked may be about to end.
fn some_user() -> u32 {
    static USERS: AtomicU32 = AtomicU32::new(0);
    20_000 + (8 * std::process::id() + USERS.fetch_add(1, SeqCst)) % 40_000
}

/// A filter that runs for a user who may have so many threads. It has two without connections.
fn crowded(setting: &Setting, user: u32, threads: u32) -> Filter {
    let plan = format!(
        "start setconn $socket\nstart register\nstart opensocket\nstart setuid {user}\nstart main\non helo process\n"
    );
    let wrapper = vec!["prlimit".to_owned(), format!("--nproc={threads}:")];
    let surroundings = Surroundings { wrapper, options: "drain=60".to_owned(), ..Surroundings::default() };
    let filter = Filter::launch_with(setting, &surroundings, &plan, TempDir::new());
    filter.wait_for("opensocket 0");
    filter
}

/// Lets it have some more, in all its processes.
fn allow_threads(filter: &mut Filter, user: u32) {
    let children = filter.process().children().into_iter().map(|(child, _)| child);
    for process in children.chain([filter.process().pid()]) {
        let limit = ["--pid", &process.to_string(), "--nproc=20:"];
        // Only root with all capabilities may do this to other users.
        let raised = Command::new("prlimit").args(limit).uid(user).gid(user).status();
        assert!(raised.is_ok_and(|status| status.success()));
    }
}

#[test]
fn connections_wait_for_a_process_when_the_user_has_too_many() {
    if !is_root() {
        return skip("connections_wait_for_a_process_when_the_user_has_too_many", "root");
    }
    for (setting, told) in crowds() {
        // One more than there are without connections.
        let mut filter = crowded(&setting, some_user(), 3);
        let mut served = negotiated(&filter);
        for mut next in assert_waiting(&mut filter, told) {
            assert_eq!(served.ask("QUIT"), "EOF");
            assert_served(&mut next);
            served = next;
        }
    }
}

#[test]
fn connections_wait_where_there_cannot_be_a_process_for_any() {
    if !is_root() {
        return skip("connections_wait_where_there_cannot_be_a_process_for_any", "root");
    }
    for (setting, told) in crowds() {
        let user = some_user();
        let mut filter = crowded(&setting, user, 2);
        let mut waiting = assert_waiting(&mut filter, told);
        allow_threads(&mut filter, user);
        waiting.iter_mut().for_each(assert_served);
    }
}

/// It has been taken, so it is served what it has said.
#[test]
fn a_stop_does_not_forget_a_connection_that_waits_for_a_thread() {
    if !is_root() {
        return skip("a_stop_does_not_forget_a_connection_that_waits_for_a_thread", "root");
    }
    let [_, (threads, told)] = crowds();
    let user = some_user();
    let mut filter = crowded(&threads, user, 2);
    let mut mta = filter.connect();
    mta.command(OFFER);
    eventually("it is told", || errors(&filter).iter().any(|line| line.contains(told)));
    filter.process().signal(Signal::TERM);
    eventually("nobody else gets a session", || MtaConnection::unix(filter.socket()).is_err());
    allow_threads(&mut filter, user);
    assert!(mta.reply().starts_with("OPTNEG"));
    assert_eq!(filter.wait_for("main"), "main 0 errno 0");
}

/// A stop in one process stops all; INT ends sessions after their next command in all.
#[test]
fn a_stop_reaches_every_process() {
    for setting in both() {
        let mut filter = serving(&setting, "on helo process\non eom stop\nstart sleep 60000\n");
        let mut open = sessions(&filter, 4);
        for command in ["MAIL <a>"].iter().chain(&MESSAGE) {
            assert_eq!(open[0].1.ask(command), "CONTINUE", "{setting}");
        }
        assert_eq!(filter.wait_for("main"), "main 0 errno 0");
        assert!(MtaConnection::unix(filter.socket()).is_err(), "{setting}");
        for (_, mta) in &mut open {
            assert_eq!(mta.ask("HELO again"), "CONTINUE", "{setting}: open sessions are served on");
        }
        drop(open);
        eventually("processes without sessions end, and leave no zombies", || filter.process().children().is_empty());
        assert!(filter.process().is_alive());

        let mut filter = serving(&setting, "on helo process\nstart sleep 60000\n");
        let mut open = sessions(&filter, 4);
        // An answer is sent before its command is over.
        eventually("the commands are over", || filter.process().children_wait());
        filter.process().signal(Signal::INT);
        assert_eq!(filter.wait_for("main"), "main 0 errno 0");
        for (_, mta) in &mut open {
            assert_eq!(mta.ask("HELO again"), "CONTINUE", "{setting}");
            assert_eq!(mta.reply(), "EOF", "{setting}");
        }
    }
}

/// As systemd does, and a terminal.
#[test]
fn a_signal_to_all_processes_is_an_orderly_stop() {
    for setting in both() {
        let mut filter = serving(&setting, "on helo process\n");
        let mut open = sessions(&filter, 3);
        assert_eq!(open[0].1.ask("MAIL <a>"), "CONTINUE");
        filter.process().signal_group(Signal::TERM);
        eventually("nobody else gets a session", || MtaConnection::unix(filter.socket()).is_err());
        for command in MESSAGE {
            assert_eq!(open[0].1.ask(command), "CONTINUE", "{setting}");
        }
        assert_eq!(filter.wait_for("main"), "main 0 errno 0", "{setting}");
        assert!(filter.process().wait(PATIENCE).is_some_and(|status| status.success()), "{setting}");
        assert!(errors(&filter).is_empty(), "{setting}: {:?}", errors(&filter));
    }
}

/// The parent is killed, or ends after smfi_main: nobody is left, not even in a callback.
#[test]
fn children_end_with_the_parent() {
    for setting in both() {
        for signal in [Signal::KILL, Signal::TERM] {
            let mut filter = serving(&setting, "on helo process\non envfrom sleep 60000\nstart exit 0\n");
            let mut open = sessions(&filter, 3);
            if signal == Signal::KILL {
                open[0].1.command("MAIL <a>");
                filter.wait_for("envfrom");
            }
            let children = filter.process().children();
            assert_eq!(children.len(), if setting.processes.is_some() { 2 } else { 3 }, "{setting}");
            filter.process().signal(signal);
            filter.process().wait(PATIENCE).expect("it ends");
            eventually("they end", || !children.iter().any(|(child, _)| exists(*child)));
        }
    }
}

/// What each child has open, less what the program itself has opened.
fn descriptors(filter: &mut Filter) -> Vec<Vec<String>> {
    let of = |(child, _): (u32, char)| {
        let entries = fs::read_dir(format!("/proc/{child}/fd")).expect("a live process").flatten();
        let mut files: Vec<String> = entries
            // The recorder's own: standard streams and the record.
            .filter(|entry| {
                entry.file_name().to_str().is_none_or(|name| name.len() == 1 && name > "2" || name.len() == 2)
            })
            .map(|entry| fs::read_link(entry.path()).expect("an open file").to_string_lossy().into_owned())
            // What wakes threads is each one's own, but for the stop.
            .filter(|file| file != "anon_inode:[eventfd]")
            .map(|file| file.split(':').next().unwrap_or_default().to_owned())
            .collect();
        files.sort();
        files
    };
    filter.process().children().into_iter().map(of).collect()
}

#[test]
fn children_have_no_descriptors_of_others() {
    // The connection and the lifeline.
    let mut filter = Filter::start(&fork(), "on helo process\n");
    let _open = sessions(&filter, 4);
    assert_eq!(descriptors(&mut filter), vec![["pipe", "socket"]; 4]);

    // Two connections each, the channel and the lifeline.
    let setting = Setting { processes: Some(2), ..Setting::model("threads") };
    let mut filter = Filter::start(&setting, "on helo process\n");
    let _open = sessions(&filter, 4);
    assert_eq!(descriptors(&mut filter), vec![["pipe", "socket", "socket", "socket"]; 2]);
}

/// Nobody could know when a child ends.
#[test]
fn a_system_that_does_not_tell_of_children_is_refused() {
    for (setting, option) in [(fork(), "model=fork"), (Setting::processes(3), "processes=3")] {
        for (call, needed) in [("pidfd_open", "pidfd_open"), ("waitid", "waitid with P_PIDFD")] {
            let plan = format!("start setconn $socket\nstart register\nstart forbid {call}\nstart main\n");
            let filter = Filter::launch(&setting, &plan, TempDir::new());
            if filter.wait_for("forbid") != "forbid 0" {
                return skip("a_system_that_does_not_tell_of_children_is_refused", "seccomp filters");
            }
            assert_eq!(filter.wait_for("main"), "main -1 errno set");
            let told = errors(&filter);
            let text = format!("option {option} needs {needed}: ");
            assert!(told.iter().any(|line| line.contains(&text) && line.contains("use model=pool")), "{told:?}");
        }
    }
}

/// Only one thread would go on in a child.
#[test]
fn a_program_with_threads_is_refused() {
    for (setting, option) in [(fork(), "model=fork"), (Setting::processes(3), "processes=3")] {
        let plan = "start setconn $socket\nstart register\nstart later 60000 note late\nstart main\n";
        let mut filter = Filter::launch(&setting, plan, TempDir::new());
        assert_eq!(filter.wait_for("main"), "main -1 errno set");
        let told = errors(&filter);
        let text = format!("option {option} needs a process without other threads, and this one has 2; use model=pool");
        assert!(told.len() == 1 && told[0].contains(&text), "{told:?}");
        assert!(!filter.socket().exists());
        assert!(filter.process().wait(PATIENCE).is_some());
    }
}

#[test]
fn workers_do_not_go_with_a_process_for_each_connection() {
    let setting = Setting { processes: Some(2), ..fork() };
    let mut filter = Filter::launch(&setting, "start setconn $socket\nstart register\nstart main\n", TempDir::new());
    assert_eq!(filter.wait_for("main"), "main -1 errno set");
    assert!(errors(&filter)[0].contains("processes=N goes with model=pool or threads"), "{:?}", errors(&filter));
    assert!(filter.process().wait(PATIENCE).is_some());
}

/// Sessions of the first run go on beside the second, and both find their end.
#[test]
fn a_second_run_takes_over_the_children_of_the_first() {
    for setting in both() {
        let mut filter = serving(
            &setting,
            "on helo process\non envfrom raise-if SEGV i bad\nstart unlink socket\nstart note second\nstart main\n",
        );
        let mut first = sessions(&filter, 2);
        filter.process().signal(Signal::TERM);
        filter.wait_for("note second");
        eventually("it serves again", || MtaConnection::unix(filter.socket()).is_ok());
        let mut second = sessions(&filter, 2);
        for (_, mta) in first.iter_mut().chain(&mut second) {
            assert_eq!(mta.ask("HELO again"), "CONTINUE", "{setting}");
        }
        let (crashing, mut mta) = first.remove(0);
        assert_eq!(mta.ask("MACRO M i=bad ; MAIL <a>"), "EOF", "{setting}");
        let text = format!("{crashing}");
        eventually("it is told", || errors(&filter).iter().any(|line| line.contains(&text)));
        drop(first);
        let (last, alive) = (second[0].0, |filter: &mut Filter| filter.process().children());
        drop(second);
        let wanted = if setting.processes.is_some() { 2 } else { 0 };
        eventually("those of the first run are gone", || alive(&mut filter).len() == wanted);
        filter.process().signal(Signal::TERM);
        assert!(filter.process().wait(PATIENCE).is_some_and(|status| status.success()), "{setting}");
        eventually("and the processes of the second", || !exists(last));
    }
}

/// It has a copy of every descriptor by which the filter knows its children.
#[test]
fn a_process_of_the_program_does_not_keep_the_ends_of_children_new() {
    for setting in both() {
        let plan = "on helo process\nstart unlink socket\nstart helper\nstart note second\nstart main\n";
        let mut filter = serving(&setting, plan);
        let (first, mta) = sessions(&filter, 1).remove(0);
        filter.process().signal(Signal::TERM);
        filter.wait_for("note second");
        eventually("it serves again", || MtaConnection::unix(filter.socket()).is_ok());
        drop(mta);
        eventually("its process is buried", || filter.process().children().iter().all(|(child, _)| *child != first));
        assert_idle(&mut filter);
    }
}

/// The second run does not get as far as to take over.
#[test]
fn a_second_run_that_fails_leaves_the_children_of_the_first_alone() {
    for setting in both() {
        let plan = "on helo process\nstart setconn unix:/nonexistent/socket\nstart note second\nstart main\n\
                    start note failed\nstart sleep 60000\n";
        let mut filter = serving(&setting, plan);
        let mut first = sessions(&filter, 2);
        filter.process().signal(Signal::TERM);
        filter.wait_for("note failed");
        let results: Vec<String> = filter.lines().into_iter().filter(|line| line.starts_with("main ")).collect();
        assert_eq!(results, ["main 0 errno 0", "main -1 errno set"], "{setting}");
        for (_, mta) in &mut first {
            assert_eq!(mta.ask("HELO again"), "CONTINUE", "{setting}");
        }
        drop(first);
        eventually("nobody is left, not even zombies", || filter.process().children().is_empty());
    }
}

/// What a filter prints is neither lost with a child nor written twice.
#[test]
fn buffered_output_is_written_once() {
    for setting in both() {
        let mut filter = serving(&setting, "on helo print helo\nstart print parent\n");
        for _ in 0..3 {
            assert_eq!(negotiated(&filter).ask("HELO h"), "CONTINUE");
        }
        filter.process().signal(Signal::TERM);
        assert!(filter.process().wait(PATIENCE).is_some_and(|status| status.success()), "{setting}");
        let output = filter.output();
        let mut lines: Vec<&str> = output.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["helo", "helo", "helo", "parent"], "{setting}");
    }
}

/// Nobody reads the pipe that a process of the filter has something to write to when it is to end.
#[test]
fn output_that_nobody_takes_keeps_no_stop_waiting() {
    for setting in both() {
        let directory = TempDir::new();
        assert!(Command::new("mkfifo").arg(directory.join("pipe")).status().expect("mkfifo").success());
        let mut options = fs::OpenOptions::new();
        let options = options.read(true).write(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        let mut pipe = options.open(directory.join("pipe")).expect("a pipe of ours");
        while pipe.write(&[b'x'; 4096]).is_ok() {}
        let surroundings = Surroundings {
            options: "drain=1".into(),
            wrapper: ["sh", "-c", "exec \"$0\" \"$@\" > pipe"].map(str::to_owned).to_vec(),
            ..Surroundings::default()
        };
        let plan = "start setconn $socket\nstart register\nstart opensocket\nstart main\non helo print helo\n";
        let mut filter = Filter::launch_with(&setting, &surroundings, plan, directory);
        filter.wait_for("opensocket 0");
        let mut mta = negotiated(&filter);
        assert_eq!(mta.ask("HELO h"), "CONTINUE", "{setting}");
        filter.process().signal(Signal::TERM);
        assert_eq!(filter.wait_for("main"), "main 0 errno 0", "{setting}");
        assert!(filter.process().wait(PATIENCE).is_some_and(|status| status.success()), "{setting}");
    }
}
