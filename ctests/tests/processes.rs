//! The models that run sessions in processes of their own, `fork` and `processes=N`: what a crash costs, and that the
//! processes are one filter to everybody outside.

use std::{
    collections::HashMap,
    fs,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use ctests::{Filter, MtaConnection, PATIENCE, Setting, Signal, TempDir, eventually, kill_child};

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

/// The process that has written the last line that names one.
fn last_process(filter: &Filter) -> u32 {
    let lines = filter.lines();
    let number = lines.iter().rev().find_map(|line| line.strip_prefix("process ")).expect("somebody has said it");
    number.parse().expect("a number")
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

/// The whole life of a session; false when it ends early, at a command that `bad` sessions may end at.
fn mail(filter: &Filter, bad: bool) -> bool {
    let Ok(mut mta) = MtaConnection::unix(filter.socket()) else { return false };
    mta.command(OFFER);
    if !mta.reply().starts_with("OPTNEG") {
        return false;
    }
    mta.command(if bad { "MACRO M i=bad" } else { "MACRO M i=good" });
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

const FRAGILE: &str = "callbacks helo envfrom eom close\non envfrom crash-if i bad\non helo process\n";

#[test]
fn a_crash_costs_one_session_with_fork() {
    let mut filter = Filter::start(&fork(), FRAGILE);
    let bad = AtomicUsize::new(0);
    thread::scope(|scope| {
        for client in 0..6 {
            let (filter, bad) = (&filter, &bad);
            scope.spawn(move || {
                for round in 0..25 {
                    let is_bad = (client + round) % 4 == 0;
                    assert_eq!(mail(filter, is_bad), !is_bad, "session {round} of client {client}");
                    bad.fetch_add(usize::from(is_bad), SeqCst);
                }
            });
        }
    });
    let bad = bad.into_inner();
    eventually("every crash is told", || errors(&filter).len() == bad);
    for line in errors(&filter) {
        assert!(line.contains("] process ") && line.contains("was killed by SIGSEGV, the session is lost"), "{line}");
    }
    assert_eq!(filter.lines().iter().filter(|line| *line == "eom").count(), 6 * 25 - bad);
    eventually("nobody is left, not even zombies", || filter.process().children().is_empty());
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
    let (bad, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for client in 0..6 {
            let (filter, bad, failed) = (&filter, &bad, &failed);
            scope.spawn(move || {
                for round in 0..40 {
                    let is_bad = client == 0 && round % 8 == 0;
                    bad.fetch_add(usize::from(is_bad), SeqCst);
                    failed.fetch_add(usize::from(!mail(filter, is_bad)), SeqCst);
                }
            });
        }
    });
    let (bad, failed) = (bad.into_inner(), failed.into_inner());
    let crashes = || errors(&filter).iter().filter(|line| line.contains("was killed by SIGSEGV")).count();
    eventually("every crash is told", || crashes() == bad);
    let lost: usize = errors(&filter)
        .iter()
        .filter_map(|line| line.split(", ").nth(1)?.split(' ').next()?.parse::<usize>().ok())
        .sum();
    assert!(failed >= bad && failed <= lost, "{failed} sessions failed, {lost} are said to: {:?}", errors(&filter));
    eventually("all posts are held again", || filter.process().children().len() == 4);
    assert!((0..8).all(|_| mail(&filter, false)));
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
    // The connection; the lifeline and the pipe that says who is busy.
    let mut filter = Filter::start(&fork(), "on helo process\n");
    let _open = sessions(&filter, 4);
    assert_eq!(descriptors(&mut filter), vec![["pipe", "pipe", "socket"]; 4]);

    // Two connections each, and the channel.
    let setting = Setting { processes: Some(2), ..Setting::model("threads") };
    let mut filter = Filter::start(&setting, "on helo process\n");
    let _open = sessions(&filter, 4);
    assert_eq!(descriptors(&mut filter), vec![["pipe", "pipe", "socket", "socket", "socket"]; 2]);
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
            "on helo process\non envfrom crash-if i bad\nstart unlink socket\nstart note second\nstart main\n",
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
