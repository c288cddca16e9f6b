//! The tool as its users meet it: exit status, streams, messages.

mod fake;

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use fake::{Fake, Move, add_header, replies, reply};
use milter_protocol::Reply;
use milter_protocol::modification::Modification;

const MAIL: &str = "From: a@x\nTo: b@y\nSubject: s\n\nbody \x1b[31m\n";

fn send(socket: &std::path::Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_milter-probe"))
        .args(["send", "--connect"])
        .arg(socket)
        .args(arguments)
        .env_remove("CLICOLOR_FORCE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A child that refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

#[test]
fn the_exit_status_is_the_verdict() {
    let quarantine = || Reply::Modify(Modification::Quarantine { reason: b"odd" });
    for (answer, status) in [
        (vec![Reply::Continue], 0),
        (vec![Reply::Accept], 0),
        (vec![Reply::Reject], 1),
        (vec![Reply::ReplyCode(b"554 5.7.1 no")], 1),
        (vec![Reply::Tempfail], 3),
        (vec![Reply::Discard], 4),
        (vec![quarantine(), Reply::Continue], 5),
        (vec![quarantine(), Reply::Reject], 1),
        (vec![Reply::ReplyCode(b"200 what")], 7),
    ] {
        let octets = replies(&answer);
        let fake = Fake::continuing(0x1ff, 0, move |letter, _| (letter == 'E').then(|| octets.clone()));
        let output = send(&fake.path(), &["-"], MAIL);
        assert_eq!(output.status.code(), Some(status), "{answer:?} {}", text(&output.stderr));
        fake.heard();
    }
}

#[test]
fn failures_have_a_status_and_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none");
    let said = |output: &Output| (output.status.code().unwrap(), text(&output.stderr));

    let (status, line) = said(&send(&missing, &["-"], MAIL));
    assert_eq!((status, line.lines().count()), (6, 1));
    assert!(line.contains("no such socket"), "{line}");

    let fake = Fake::start(|letter, _| if letter == 'O' { Move::HangUp } else { Move::Sulk });
    let (status, line) = said(&send(&fake.path(), &["-"], MAIL));
    assert_eq!(status, 7);
    assert!(line.contains("during negotiation"), "{line}");

    let fake = Fake::start(|_, _| Move::Sulk);
    let (status, line) = said(&send(&fake.path(), &["-t", "0.1", "-"], MAIL));
    assert_eq!(status, 8);
    assert!(line.contains("no answer to negotiation within 0.1 seconds"), "{line}");

    let (status, line) = said(&send(&missing, &["/no/such/message"], ""));
    assert_eq!(status, 9);
    assert!(line.contains("/no/such/message"), "{line}");

    assert_eq!(said(&send(&missing, &[], "")).0, 2);
    assert_eq!(said(&send(&missing, &["--output", "x", "-", "-"], MAIL)).0, 2);
}

#[test]
fn a_pipe_gets_plain_text_and_every_octet() {
    let add = |letter, _: &[u8]| (letter == 'E').then(|| replies(&[add_header("X-New", "1"), Reply::Continue]));
    let fake = Fake::continuing(1, 0, add);
    let report = text(&send(&fake.path(), &["-"], MAIL).stdout);
    assert!(report.contains("Verdict: accepted at the end of the message\n"), "{report}");
    assert!(report.contains("1. add header X-New\n      + X-New: 1\n"), "{report}");
    assert!(report.ends_with("Subject: s\nX-New: 1\n\nbody \x1b[31m\n"), "{report}");
    assert_eq!(report.matches('\x1b').count(), 1, "only the message's own: {report}");
}

#[test]
fn output_takes_the_message_alone() {
    let add = |letter, _: &[u8]| (letter == 'E').then(|| replies(&[add_header("X-New", "1"), Reply::Continue]));
    let expected = MAIL.replace("\n\n", "\nX-New: 1\n\n");
    let output = send(&Fake::continuing(1, 0, add).path(), &["--output", "-", "-"], MAIL);
    assert_eq!((text(&output.stdout), text(&output.stderr)), (expected.clone(), String::new()));

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("result.eml");
    let output = send(&Fake::continuing(1, 0, add).path(), &["--output", file.to_str().unwrap(), "-"], MAIL);
    assert_eq!(fs::read_to_string(&file).unwrap(), expected);
    assert!(text(&output.stdout).contains("Verdict") && !text(&output.stdout).contains("would deliver"));

    let reject = |letter, _: &[u8]| (letter == 'E').then(|| reply(&Reply::Reject));
    let output = send(&Fake::continuing(1, 0, reject).path(), &["--output", "-", "-"], MAIL);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()));
    assert!(text(&output.stderr).contains("rejected: 554") || text(&output.stderr).contains("rejected: 550"));
}
