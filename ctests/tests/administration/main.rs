//! What administrators set, with filters that know nothing of it.

mod activation;
mod faults;
mod hints;
mod limits;
mod links;
mod listeners;
mod metrics;
mod notification;
mod record;
mod slow_callbacks;
mod socket_files;
mod strangers;
mod trace;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ctests::{Filter, MtaConnection, Setting, Signal, Surroundings, TempDir};
use milter_probe::{Client, Envelope, Fate, Mail, Mta, Session, Target};

const OFFER: &str = "OPTNEG 6 1ff 1fffff";
const LIMIT: Duration = ctests::PATIENCE;

/// With and without smfi_opensocket: the socket is made in either.
const OPENINGS: [&str; 2] = ["start opensocket 0\nstart note opened\nstart main\n", "start note opened\nstart main\n"];

fn launch(setting: &Setting, options: &str, plan: &str, directory: TempDir) -> Filter {
    let surroundings = Surroundings { options: options.to_owned(), ..Surroundings::default() };
    let plan = format!("start umask 077\nstart setconn $socket\nstart register\n{plan}");
    Filter::launch_with(setting, &surroundings, &plan, directory)
}

/// The same, when it listens.
fn serving(setting: &Setting, options: &str, plan: &str, directory: TempDir) -> Filter {
    let filter = launch(setting, options, plan, directory);
    filter.wait_for("note opened");
    assert_negotiates(patiently(filter.socket().as_path()));
    filter
}

fn patiently(path: &Path) -> MtaConnection {
    MtaConnection::patiently(|| MtaConnection::unix(path))
}

fn assert_negotiates(mut mta: MtaConnection) {
    assert!(mta.ask(OFFER).starts_with("OPTNEG"));
}

/// A session of a few commands; says how long it takes from its end until the filter has hung up.
fn greet(filter: &Filter) -> Duration {
    let mut mta = patiently(filter.socket().as_path());
    assert!(mta.ask(OFFER).starts_with("OPTNEG"));
    for command in ["CONNECT h unknown", "HELO h", "MAIL <a>", "RCPT <b>"] {
        assert_eq!(mta.ask(command), "CONTINUE");
    }
    let start = Instant::now();
    assert_eq!(mta.ask("QUIT"), "EOF");
    start.elapsed()
}

/// Passes a message to a filter as Postfix would.
fn assert_accepted(socket: PathBuf, text: &str) {
    let mta = Mta::Postfix;
    let stream = Target::Unix(socket).connect(mta.patience().connect).expect("it listens");
    let mut session = Session::negotiate(stream, mta, mta.patience()).expect("it negotiates");
    session.greet(&Client::default(), "localhost", &[]).expect("it answers");
    let envelope = Envelope::suggested_by(text.as_bytes());
    let outcome = session.deliver(&Mail::parse(text.as_bytes()), &envelope, &mut |_| {}).expect("it answers");
    assert_eq!(outcome.fate, Fate::Accepted);
    session.quit().expect("it takes the end of the session");
}

/// Runs a filter that has to refuse its start, and returns what it said about that.
fn refusal(options: &str, plan: &str, directory: TempDir) -> String {
    let mut filter = launch(&Setting::ours(), options, plan, directory);
    assert!(filter.process().wait(LIMIT).is_some(), "{options}: it starts\n{}", filter.lines().join("\n"));
    let lines = filter.lines();
    assert!(lines.iter().any(|line| line.starts_with("main -1")), "{options}: {lines:?}");
    let left: Vec<_> = fs::read_dir(filter.directory()).expect("our own directory").collect();
    let hidden = left.iter().flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with('.')).count();
    assert_eq!(hidden, 0, "{options}: something is left behind");
    lines.into_iter().find(|line| line.starts_with("log 3 ")).unwrap_or_else(|| panic!("{options}: no message"))
}

fn stop(filter: &mut Filter) {
    filter.process().signal(Signal::TERM);
    assert!(filter.process().wait(LIMIT).is_some_and(|status| status.success()), "{}", filter.lines().join("\n"));
}

#[test]
fn signals_left_to_the_program() {
    for setting in Setting::every_model() {
        let plan = "start stop-on HUP\nstart opensocket 0\nstart note opened\nstart main\non helo signals\n";
        let mut filter = serving(&setting, "signals=leave", plan, TempDir::new());
        let mut mta = filter.connect();
        assert!(mta.ask(OFFER).starts_with("OPTNEG"), "{setting}");
        assert_eq!(mta.ask("HELO h"), "CONTINUE", "{setting}");
        assert_eq!(filter.wait_for("signals"), "signals blocked:, PIPE ignored", "{setting}");
        // Its own handler calls smfi_stop.
        filter.process().signal(Signal::HUP);
        assert!(filter.process().wait(LIMIT).is_some_and(|status| status.success()), "{setting}");
        assert_eq!(filter.wait_for("main"), "main 0 errno 0", "{setting}");

        let mut filter = serving(&setting, "signals=leave", OPENINGS[0], TempDir::new());
        filter.process().signal(Signal::TERM);
        // Nothing of ours catches it.
        assert!(filter.process().wait(LIMIT).is_some_and(|status| status.code().is_none()), "{setting}");
    }
}
