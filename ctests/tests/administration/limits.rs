//! Limits on sessions and on their time.

use std::{
    thread,
    time::{Duration, Instant},
};

use ctests::{Filter, MailServer, MtaConnection, Postfix, Program, Setting, SmtpClient, TempDir, eventually};

use crate::{LIMIT, OFFER, launch};

const PLAN: &str = "start opensocket 0\nstart main\n";

fn serving(setting: &Setting, options: &str, plan: &str) -> Filter {
    let filter = launch(setting, options, &format!("{PLAN}{plan}"), TempDir::new());
    filter.wait_for("opensocket 0");
    filter
}

fn session(filter: &Filter) -> MtaConnection {
    let mut mta = filter.connect();
    assert!(mta.ask(OFFER).starts_with("OPTNEG"));
    mta
}

fn ours() -> [Setting; 4] {
    Setting::every_model()
}

fn silent(mta: &mut MtaConnection) -> bool {
    mta.receive(Duration::from_millis(300)).to_string() == "silence"
}

/// How many log messages speak of the limit.
fn told(filter: &Filter) -> usize {
    filter.lines().iter().filter(|line| line.contains("max-sessions")).count()
}

#[test]
fn connections_above_the_limit_wait_in_the_backlog() {
    for setting in ours() {
        let mut filter = serving(&setting, "max-sessions=2", "");
        let (first, mut second) = (session(&filter), session(&filter));
        let mut third = filter.connect();
        let mut fourth = filter.connect();
        third.command(OFFER);
        fourth.command(OFFER);
        let before = filter.process().cpu_ticks();
        assert!(silent(&mut third), "{setting}");
        thread::sleep(Duration::from_secs(1));
        let used = filter.process().cpu_ticks() - before;
        assert!(used < 10, "{setting}: {used} ticks of a hundredth of a second while others wait");
        assert_eq!(second.ask("HELO h"), "CONTINUE", "{setting}");
        drop(first);
        assert!(third.reply().starts_with("OPTNEG"), "{setting}");
        assert!(silent(&mut fourth), "{setting}");
        drop(second);
        assert!(fourth.reply().starts_with("OPTNEG"), "{setting}");
        assert_eq!(told(&filter), 1, "{setting}: one line for the whole episode");
    }
}

/// Nothing is lost and nothing is refused when many come to a filter that takes few at a time.
#[test]
fn everybody_gets_a_session_in_the_end() {
    for setting in ours() {
        let filter = serving(&setting, "max-sessions=3", "on envfrom sleep 5\n");
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let mut mta = filter.connect();
                        mta.command(OFFER);
                        assert!(mta.receive(LIMIT).to_string().starts_with("OPTNEG"), "{setting}");
                        assert_eq!(mta.ask("MAIL <a>"), "CONTINUE", "{setting}");
                        assert_eq!(mta.ask("QUIT"), "EOF", "{setting}");
                    }
                });
            }
        });
        let closed = || filter.lines().iter().filter(|line| *line == "close").count();
        eventually(format_args!("{setting}: 100 sessions are over"), || closed() == 100);
    }
}

#[test]
fn a_refusal_after_the_wait() {
    for setting in ours() {
        for wait in [0, 1] {
            let filter = serving(&setting, &format!("max-sessions=1, admission-wait={wait}"), "");
            let mut first = session(&filter);
            let start = Instant::now();
            let mut others = [filter.connect(), filter.connect()];
            for mta in &mut others {
                mta.command(OFFER);
            }
            for mta in &mut others {
                let reply = mta.receive(LIMIT).to_string();
                assert!(reply.starts_with("OPTNEG"), "{setting} {wait}: {reply}");
                assert!(start.elapsed() >= Duration::from_secs(wait), "{setting} {wait}: {:?}", start.elapsed());
                assert_eq!(mta.ask("CONNECT h unknown"), "TEMPFAIL", "{setting} {wait}");
                assert_eq!(mta.ask("QUIT"), "EOF", "{setting} {wait}");
            }
            // The filter has seen one session only, and it goes on.
            assert_eq!(first.ask("HELO h"), "CONTINUE", "{setting} {wait}");
            assert_eq!(first.ask("QUIT"), "EOF", "{setting} {wait}");
            filter.wait_for("close");
            drop(session(&filter));
            assert!(!filter.lines().iter().any(|line| line.starts_with("connect")), "{setting} {wait}");
            assert_eq!(told(&filter), 1, "{setting} {wait}");
        }
    }
}

/// Nothing is said about those who have not even got a session.
#[test]
fn a_refused_peer_without_a_word() {
    for setting in ours() {
        let filter = serving(&setting, "max-sessions=1, admission-wait=0", "");
        let _first = session(&filter);
        let mut other = filter.connect();
        other.shutdown();
        assert_eq!(other.receive(LIMIT).to_string(), "EOF", "{setting}");
        let lines = filter.lines();
        assert!(!lines.iter().any(|line| line.contains("without a word")), "{setting}: {lines:?}");
    }
}

/// Who waits gets the session that becomes free in time, in the order of coming.
#[test]
fn a_session_within_the_wait() {
    for setting in ours() {
        let filter = serving(&setting, "max-sessions=1, admission-wait=60", "");
        let first = session(&filter);
        let mut others = [filter.connect(), filter.connect()];
        others.iter_mut().for_each(|mta| mta.command(OFFER));
        assert!(silent(&mut others[0]), "{setting}");
        drop(first);
        let [second, third] = &mut others;
        assert!(second.reply().starts_with("OPTNEG"), "{setting}");
        assert_eq!(second.ask("CONNECT h unknown"), "CONTINUE", "{setting}");
        assert!(silent(third), "{setting}");
        assert_eq!(second.ask("QUIT"), "EOF", "{setting}");
        assert!(third.reply().starts_with("OPTNEG"), "{setting}");
    }
}

/// A stop does not keep those waiting who never got a session.
#[test]
fn a_stop_with_connections_waiting() {
    for setting in ours() {
        let mut filter = serving(&setting, "max-sessions=1, admission-wait=60", "");
        let _first = session(&filter);
        let mut second = filter.connect();
        second.command(OFFER);
        assert!(silent(&mut second), "{setting}");
        filter.process().signal(ctests::Signal::TERM);
        assert!(second.receive(LIMIT).to_string().starts_with("EOF"), "{setting}");
        assert!(filter.process().wait(LIMIT).is_some_and(|status| status.success()), "{setting}");
    }
}

#[test]
fn strangers_do_not_stay() {
    for setting in ours() {
        let filter = serving(&setting, "negotiate-timeout=2", "");
        let mut known = session(&filter);
        let start = Instant::now();
        let mut silent = filter.connect();
        let mut slow = filter.connect();
        // A whole negotiation, one octet at a time.
        for octet in [0, 0, 0, 13, b'O', 0, 0, 0, 6] {
            slow.send(&[octet]);
            thread::sleep(Duration::from_millis(300));
        }
        for mta in [&mut silent, &mut slow] {
            assert_eq!(mta.reply(), "EOF", "{setting}");
        }
        assert!(start.elapsed() >= Duration::from_secs(2), "{setting}: {:?}", start.elapsed());
        assert_eq!(known.ask("HELO h"), "CONTINUE", "{setting}");
        // Once for both, like other things that happen again and again.
        let told = |line: &&String| line.contains("the MTA did not negotiate in time");
        assert_eq!(filter.lines().iter().filter(told).count(), 1, "{setting}: {:?}", filter.lines());
    }
}

/// The administrator's limit holds, whatever the program says.
#[test]
fn idle_sessions_end() {
    for setting in ours() {
        let filter = serving(&setting, "idle-timeout=2", "");
        let start = Instant::now();
        let (mut idle, mut busy) = (session(&filter), session(&filter));
        loop {
            assert_eq!(busy.ask("HELO h"), "CONTINUE", "{setting}");
            match idle.receive(Duration::from_millis(100)).to_string().as_str() {
                "silence" => assert!(start.elapsed() < LIMIT, "{setting}"),
                end => break assert_eq!(end, "EOF", "{setting}"),
            }
        }
        assert!(start.elapsed() >= Duration::from_secs(2), "{setting}: {:?}", start.elapsed());
        assert_eq!(filter.lines().iter().filter(|line| *line == "close").count(), 1, "{setting}");
        assert!(filter.lines().iter().any(|line| line.contains("the MTA sent nothing in time")), "{setting}");
    }
    let mut patient =
        launch(&Setting::ours(), "idle-timeout=0", &format!("start settimeout 1\n{PLAN}"), TempDir::new());
    patient.wait_for("opensocket 0");
    let mut mta = session(&patient);
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(mta.ask("HELO h"), "CONTINUE");
    assert!(patient.process().is_alive());
}

/// What an MTA makes of a refusal: it asks its client to come again later, and complains about nothing.
#[test]
fn postfix_understands_the_refusal() {
    let Some(postfix) = Postfix::start_or_skip("postfix_understands_the_refusal", &[]) else { return };
    let socket = postfix.filter_socket();
    let filter = Program::compiled("ctests/filters/verdicts.c", Setting::ours().library, postfix.directory())
        .with_options("max-sessions=1, admission-wait=0");
    let description = format!("unix:{}", socket.display());
    let service = filter.serve(&Setting::ours(), &socket, &[&description]);
    let mail = |client: &mut SmtpClient| client.ask("MAIL FROM:<a@example.com>").text;
    let mut busy = None;
    eventually("the session of `serve`, which looked whether the filter listens, is over", || {
        let mut client = postfix.smtp();
        let is_served = mail(&mut client).starts_with("250");
        busy = is_served.then_some(client);
        is_served
    });
    let refusal = mail(&mut postfix.smtp());
    assert!(refusal.starts_with("451 4.7.1"), "{refusal}");
    drop(busy);
    eventually("the next is served", || mail(&mut postfix.smtp()).starts_with("250"));
    assert_eq!(postfix.complaints(), [""; 0]);
    drop(service);
}
