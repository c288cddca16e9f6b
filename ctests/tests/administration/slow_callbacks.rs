//! Callbacks that take too long.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use ctests::{
    Backend, Filter, MailServer, MtaConnection, Postfix, Program, Setting, TempDir, eventually,
    mailbag::{PLAIN as MESSAGE, RECIPIENT, SENDER},
    skip,
};

use crate::{LIMIT, OFFER, OPENINGS, serving, stop};

const PLAN: &str =
    "start opensocket 0\nstart note opened\nstart main\non envfrom#1 sleep 5000\non envfrom#2 sleep 4000\n";

fn in_mail(filter: &Filter, queue_id: &str) -> MtaConnection {
    let mut mta = filter.connect();
    assert!(mta.ask(OFFER).starts_with("OPTNEG"));
    assert_eq!(mta.ask("HELO h"), "CONTINUE");
    mta.command(&format!("MACRO M i={queue_id}"));
    mta.command("MAIL <a>");
    mta
}

fn answered(mut mta: MtaConnection) {
    assert_eq!(mta.receive(LIMIT).to_string(), "CONTINUE");
    assert_eq!(mta.ask("QUIT"), "EOF");
}

/// The log messages about callbacks, without the record's quotes.
fn told(filter: &Filter) -> Vec<String> {
    const WORDS: [&str; 3] = ["callback", "xxfi_", "SIGABRT"];
    let is_told = |line: &String| line.starts_with("log ") && WORDS.iter().any(|word| line.contains(word));
    filter.lines().into_iter().filter(is_told).map(|line| line.replace('"', "")).collect()
}

#[test]
fn a_slow_callback_is_told_once_and_when_it_returns() {
    for setting in [Setting::ours(), Setting::model("threads")] {
        let mut filter = serving(&setting, "callback-warn=1", PLAN, TempDir::new());
        let first = in_mail(&filter, "4Q1");
        filter.wait_for("envfrom");
        let second = in_mail(&filter, "4\u{1b}2");
        answered(second);
        answered(first);
        filter.wait_for("close");
        let lines = told(&filter);
        assert_eq!(lines.len(), 4, "{setting}: {lines:?}");
        // The first session was that of `serving`.
        let about = |session: &str| -> Vec<_> { lines.iter().filter(|line| line.contains(session)).collect() };
        let [started, returned] = about("[2]")[..] else { panic!("{setting}: {lines:?}") };
        assert!(started.contains("recorder: [2] xxfi_envfrom for message 4Q1 has been running for "), "{started}");
        assert!(started.starts_with("log 4 "), "{started}");
        assert!(returned.contains("recorder: [2] xxfi_envfrom has returned after "), "{returned}");
        let [started, returned] = about("[3]")[..] else { panic!("{setting}: {lines:?}") };
        assert!(started.contains(r"xxfi_envfrom for message 4\\u{1b}2 has been running for "), "{started}");
        assert!(returned.contains("xxfi_envfrom has returned after "), "{returned}");
        stop(&mut filter);
    }
}

#[test]
fn a_limit_in_a_process_with_other_sessions_is_told_only() {
    let mut filter = serving(&Setting::ours(), "callback-limit=1, callback-warn=2", PLAN, TempDir::new());
    let mta = in_mail(&filter, "4Q1");
    answered(mta);
    let lines = told(&filter);
    let expected = [
        "log 4 recorder: callback-limit cannot be enforced",
        "log 3 recorder: [2] xxfi_envfrom for message 4Q1 has been running for ",
        "log 4 recorder: [2] xxfi_envfrom for message 4Q1 has been running for ",
        "log 4 recorder: [2] xxfi_envfrom has returned after ",
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
    }
    assert!(lines[1].ends_with(", longer than callback-limit"), "{}", lines[1]);
    stop(&mut filter);
}

#[test]
fn nothing_is_told_about_quick_callbacks_and_the_stop_is_prompt() {
    let filter = serving(&Setting::ours(), "callback-warn=2", OPENINGS[0], TempDir::new());
    answered(in_mail(&filter, "4Q1"));
    thread::sleep(Duration::from_millis(2200));
    answered(in_mail(&filter, "4Q2"));
    assert_eq!(told(&filter), [""; 0]);

    // A stop does not wait for the time of a limit.
    let limit = 10 * LIMIT.as_secs();
    let mut filter = serving(&Setting::ours(), &format!("callback-warn={limit}"), OPENINGS[0], TempDir::new());
    answered(in_mail(&filter, "4Q1"));
    stop(&mut filter);
}

#[test]
fn the_limit_ends_the_process_of_the_callback() {
    const PLAN: &str = "start opensocket 0\nstart note opened\nstart main\non envfrom sleep 60000\n";
    for (setting, consequence) in [
        (Setting::model("fork"), "was killed by SIGABRT, the session is lost"),
        (Setting::processes(2), "was killed by SIGABRT, 1 session is lost"),
    ] {
        let mut filter = serving(&setting, "callback-limit=1", PLAN, TempDir::new());
        let mut other = filter.connect();
        assert!(other.ask(OFFER).starts_with("OPTNEG"), "{setting}");
        let mut stuck = in_mail(&filter, "4Q1");
        assert_eq!(stuck.receive(LIMIT).to_string(), "EOF", "{setting}");
        assert_eq!(other.ask("HELO h"), "CONTINUE", "{setting}");
        eventually("limit and end are told", || told(&filter).len() >= 2);
        let lines = told(&filter);
        let [limit, end] = &lines[..] else { panic!("{setting}: {lines:?}") };
        assert!(limit.starts_with("log 3 recorder: [") && limit.contains("] xxfi_envfrom for message 4Q1"), "{limit}");
        assert!(limit.ends_with(", longer than callback-limit"), "{limit}");
        assert!(end.starts_with("log 3 ") && end.contains(consequence), "{setting}: {end}");
        // There is a process for the next.
        assert!(filter.connect().ask(OFFER).starts_with("OPTNEG"), "{setting}");
        drop(other);
        stop(&mut filter);
    }
}

/// Debian's spamass-milter waits for a spamd that has taken a message and says nothing.
#[test]
fn spamass_milter_stuck() {
    const TEST: &str = "spamass_milter_stuck";
    let (Some(filter), Some(_)) = (Program::installed("spamass-milter"), Program::installed("spamc")) else {
        return skip(TEST, "spamass-milter and spamc");
    };
    let Some(postfix) = Postfix::start_or_skip(TEST, &[]) else { return };
    for setting in [Setting::ours(), Setting::model("threads")] {
        let directory = postfix.directory();
        let [spamd, trace] = ["spamd", "trace"].map(|name| directory.join(name));
        let is_over = Arc::new(AtomicBool::new(false));
        let awaited = Arc::clone(&is_over);
        let _spamd = Backend::listen(&spamd, move |_| {
            eventually("the end of the wait", || awaited.load(SeqCst));
            Ok(())
        });
        // What it logs goes to the system. Lines about sessions are in the trace, too.
        let _ = fs::remove_file(&trace);
        let filter = filter.clone().with_options(&format!("callback-warn=1, trace={}", trace.display()));
        let socket = postfix.filter_socket();
        let [address, spamd] = [&socket, &spamd].map(|path| path.to_str().expect("a path of ours"));
        let service = filter.serve(&setting, &socket, &["-p", address, "--", "-U", spamd]);
        let said = || fs::read_to_string(&trace).unwrap_or_default();
        let mut client = postfix.smtp();
        let queue_id = thread::scope(|scope| {
            let submission = scope.spawn(|| client.submit(SENDER, &[RECIPIENT], MESSAGE));
            eventually("a warning", || said().contains("has been running for "));
            is_over.store(true, SeqCst);
            submission.join().expect("Postfix takes the message")
        });
        eventually("the end", || said().contains("has returned after "));
        let said = said();
        // The first session was the one that found it listening.
        for part in [&format!("xxfi_eom for message {queue_id} has been running for "), "xxfi_eom has returned after "]
        {
            assert!(said.contains(&format!("] 2 log: line text=\"{part}")), "{setting}: {part}\n{said}");
        }
        drop(postfix.sink().next());
        service.stop(LIMIT);
    }
}
