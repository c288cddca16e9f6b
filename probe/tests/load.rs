//! Load tests against scripted filters: what goes over the wire, what is counted, how it ends.

mod fake;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use fake::{Fake, Move, add_header, negotiated, replies, reply};
use milter_probe::load::{Crowd, Ground, Plan, Workload};
use milter_probe::{Mta, Target};
use milter_protocol::{Reply, Steps};
use serde_json::Value;

const MAIL: &str = "From: a@x\nTo: b@y, c@y\nMessage-ID: <1@x>\nSubject: s\n\nbody\n";

fn probe(task: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_milter-probe")).arg(task).args(arguments).output().unwrap()
}

fn load(fake: &Fake, arguments: &[&str]) -> Output {
    probe("load", &[&["--connections=1", fake.path().to_str().unwrap()], arguments].concat())
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

fn at_end(answer: &[Reply<'_>]) -> impl FnMut(char, &[u8]) -> Option<Vec<u8>> + Send + 'static {
    let octets = replies(answer);
    move |letter, _| (letter == 'E').then(|| octets.clone())
}

/// A filter that continues up to one command.
fn misbehaving_at(letter: char, bad: impl Fn() -> Move + Send + 'static) -> impl FnMut(char, &[u8]) -> Move + Send {
    move |heard, _| match heard {
        _ if heard == letter => bad(),
        'O' => Move::Say(negotiated(0, 0)),
        'D' | 'A' | 'Q' => Move::Say(Vec::new()),
        _ => Move::Say(reply(&Reply::Continue)),
    }
}

/// The dialogue of `send`, which real MTAs are the model of, without what only names the message.
#[test]
fn a_session_is_what_send_makes_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("message");
    std::fs::write(&file, MAIL).unwrap();
    let file = file.to_str().unwrap();
    let unwanted = (Steps::NO_MAIL | Steps::NO_HEADERS | Steps::NR_RCPT | Steps::LEADING_SPACE).bits();
    for mta in ["postfix", "sendmail"] {
        for steps in [0, unwanted, Steps::NO_REPLY.bits()] {
            let answer = move |letter, _: &[u8]| match letter {
                'M' | 'R' | 'C' | 'H' | 'T' | 'L' | 'N' | 'B' if steps == Steps::NO_REPLY.bits() => Some(Vec::new()),
                'R' if steps == unwanted => Some(Vec::new()),
                _ => None,
            };
            let sent = Fake::continuing(0, steps, answer);
            let path = sent.path();
            let output = probe("send", &["--as", mta, "--connect", path.to_str().unwrap(), file, file]);
            assert!(output.status.success(), "{}", text(&output.stderr));
            let loaded = Fake::continuing(0, steps, answer);
            let output = load(&loaded, &["--as", mta, "-n2", "--per-session=2", "--message", file]);
            assert!(output.status.success(), "{}", text(&output.stderr));
            let without_id = |heard: Vec<String>| {
                let heard = heard.into_iter().map(|line| {
                    ["0001", "0002", "LOAD"].iter().fold(line, |line, id| line.replace(&format!("4PROBE{id}"), "ID"))
                });
                heard.collect::<Vec<_>>()
            };
            assert_eq!(without_id(loaded.heard()), without_id(sent.heard()), "{mta} {steps:x}");
        }
    }
}

#[test]
fn verdicts_changes_and_durations_are_counted() {
    let fake = Fake::continuing(1, 0, at_end(&[add_header("X", "1"), Reply::Progress, Reply::Reject]));
    let output = load(&fake, &["-n3", "--per-session=3", "--json"]);
    assert_eq!(output.status.code(), Some(0), "a verdict is no failure");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (pointer, value) in [
        ("/messages", 3),
        ("/sessions", 1),
        ("/verdicts/rejected", 3),
        ("/modifications", 3),
        ("/milliseconds/message/count", 3),
        ("/milliseconds/a header/count", 30),
        ("/milliseconds/session/count", 1),
    ] {
        assert_eq!(result.pointer(pointer), Some(&Value::from(value)), "{pointer} {result:#}");
    }
    let (p50, max) = (&result["milliseconds"]["message"]["p50"], &result["milliseconds"]["message"]["max"]);
    assert!(0.0 < p50.as_f64().unwrap() && p50.as_f64().unwrap() <= max.as_f64().unwrap(), "{result:#}");
}

#[test]
fn every_early_verdict_ends_its_message_and_nothing_more() {
    for (letter, answer, verdict) in [
        ('M', Reply::Accept, "accepted"),
        ('R', Reply::ReplyCode(b"450 4.7.1 later"), "tempfailed"),
        ('L', Reply::Discard, "discarded"),
        ('B', Reply::Reject, "rejected"),
        ('H', Reply::Tempfail, "tempfailed"),
    ] {
        for mta in ["postfix", "sendmail"] {
            let octets = reply(&answer);
            let fake = Fake::continuing(0, 0, move |heard, _| (heard == letter).then(|| octets.clone()));
            let output = load(&fake, &["-n1", "--as", mta]);
            let said = text(&output.stdout);
            assert!(said.contains(&format!("1 {verdict}\n")) && output.status.success(), "{letter} {mta} {said}");
            let heard = fake.heard();
            assert!(!heard.iter().any(|line| line.starts_with('E')), "{letter} {mta} {heard:?}");
        }
    }
}

#[test]
fn failures_are_named_and_set_the_status() {
    let fake = Fake::start(misbehaving_at('M', || Move::HangUp));
    let output = load(&fake, &["--duration=60"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains("1 times the filter closed the connection at MAIL"), "{said}");
    assert!(said.contains("nobody listens") || said.contains("no such socket"), "{said}");
    assert!(said.contains("gave up"), "{said}");

    let fake = Fake::start(misbehaving_at('R', || Move::Sulk));
    let output = load(&fake, &["-n1", "--timeout=0.2"]);
    assert_eq!(output.status.code(), Some(8), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("no answer to RCPT within 0.2 seconds"));

    let output = probe("load", &["/no/such/socket", "--duration=60"]);
    assert_eq!(output.status.code(), Some(6));
    assert!(text(&output.stderr).contains("no such socket"), "{}", text(&output.stderr));

    let fake = Fake::start(|_, _| Move::Say(b"220 mail.example ESMTP\r\n".to_vec()));
    let output = load(&fake, &["--duration=60"]);
    assert_eq!(output.status.code(), Some(7));
    assert!(text(&output.stderr).contains("an SMTP or FTP server"), "{}", text(&output.stderr));
}

#[test]
fn rates_and_pauses_take_their_time() {
    let fake = Fake::continuing(0, 0, |_, _| None);
    let start = Instant::now();
    assert!(load(&fake, &["-n5", "--per-session=5", "--rate=20"]).status.success());
    assert!(start.elapsed() >= Duration::from_millis(200));

    // The session that finds the last message gone is the last one; the fake would not take another.
    let fake = Fake::continuing(0, 0, |_, _| None);
    let output = load(&fake, &["--duration=0.5", "--per-session=99", "--rate=20"]);
    assert!(output.status.success() && text(&output.stdout).contains("sessions     1,"), "{}", text(&output.stdout));

    let fake = Fake::continuing(0, 0, |_, _| None);
    let start = Instant::now();
    let output = load(&fake, &["-n1", "--pause=0.5", "--json"]);
    // HELO, MAIL, RCPT, DATA, and the end of the session.
    assert!(start.elapsed() >= Duration::from_millis(2500));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(result["milliseconds"]["message"]["max"].as_f64().unwrap() < 1500.0, "pauses do not count {result:#}");
}

#[test]
fn a_crowd_rests_until_it_is_told() {
    let fake = Fake::continuing(0, 0, |_, _| None);
    let target: Target = fake.path().to_str().unwrap().parse().unwrap();
    let plan = Plan::new(target, Workload::made_up(Mta::Sendmail, 1, 100));
    let ground = Ground::new(&plan).unwrap();
    let mut crowd = Crowd::gather(&ground).unwrap();
    crowd.deliver(1).unwrap();
    crowd.deliver(1).unwrap();
    drop(crowd);
    assert_eq!(fake.heard().iter().filter(|line| line.starts_with('E')).count(), 2);
}
