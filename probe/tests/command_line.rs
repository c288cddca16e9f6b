//! The tool as its users meet it: exit status, streams, messages.

mod fake;

use std::fs;
use std::io::{Read, Write};
use std::process::{Command as Process, Output, Stdio};
use std::time::Duration;

use fake::{Fake, Move, add_header, replies, reply};
use milter_protocol::modification::Modification;
use milter_protocol::record::{Entry, Kind, MAGIC};
use milter_protocol::{Actions, Command, Reply, Stage, Steps};
use rustix::pty;

const MAIL: &str = "From: a@x\nTo: b@y\nSubject: s\n\nbody \x1b[31m\n";

fn send(socket: &std::path::Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Process::new(env!("CARGO_BIN_EXE_milter-probe"))
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

/// Changes a line of the header, adds one, and replaces the body.
fn rewriting(letter: char, _: &[u8]) -> Option<Vec<u8>> {
    let change = Modification::ChangeHeader { index: 1, name: b"Subject", value: b"t" };
    let body = Reply::ReplaceBody(b"BODY\x1b\r\n");
    (letter == 'E').then(|| replies(&[Reply::Modify(change), add_header("X-New", "1"), body, Reply::Continue]))
}

/// `before` and what [`rewriting`] makes of it, as `send` has them in a pipe and on a terminal.
const DIFFERENCE: &str = "\
--- -
+++ - as Postfix would deliver it
@@ -1,5 +1,6 @@
 From: a@x
 To: b@y
-Subject: s
+Subject: t
+X-New: 1
 
-body \x1b[31m
+BODY\x1b
";

#[test]
fn a_diff_shows_what_differs() {
    let fake = Fake::continuing(0x3f, 0, rewriting);
    let report = text(&send(&fake.path(), &["--diff", "-"], MAIL).stdout);
    assert!(report.ends_with(&format!("\nWhat differs in the message\n{DIFFERENCE}")), "{report}");

    let fake = Fake::continuing(0x3f, 0, |_, _| None);
    let report = text(&send(&fake.path(), &["--diff", "-"], &MAIL.replace('\n', "\r\n")).stdout);
    assert!(report.ends_with("\nThe message is as it was\n"), "{report}");

    for wrong in [&["--diff", "--json", "-"][..], &["--diff", "-o", "-", "-"], &["--json", "-o", "-", "-"]] {
        assert_eq!(send(&fake.path(), wrong, MAIL).status.code(), Some(2), "{wrong:?}");
    }
}

/// Runs a process whose standard output and errors are one terminal, and gives what that shows.
fn on_a_terminal(process: &mut Process) -> String {
    let terminal = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).unwrap();
    pty::grantpt(&terminal).unwrap();
    pty::unlockpt(&terminal).unwrap();
    let name = pty::ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let line = fs::File::options().read(true).write(true).open(name).unwrap();
    let errors = line.try_clone().unwrap();
    process
        .env("TERM", "xterm")
        .env_remove("CLICOLOR")
        .env_remove("CLICOLOR_FORCE")
        .stdin(Stdio::null())
        .stdout(line)
        .stderr(errors);
    let mut child = process.spawn().unwrap();
    // The terminal ends with its last user, who must not be this process.
    process.stdout(Stdio::null()).stderr(Stdio::null());
    let mut shown = Vec::new();
    // Linux then says EIO.
    let _ = fs::File::from(terminal).read_to_end(&mut shown);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    text(&shown).replace("\r\n", "\n")
}

/// Passes `MAIL` to a filter that rewrites it, with `send --diff` as `see` runs it, and gives what that saw.
fn difference(see: impl FnOnce(&mut Process) -> String) -> String {
    let fake = Fake::continuing(0x3f, 0, rewriting);
    let directory = tempfile::tempdir().unwrap();
    let message = directory.path().join("message");
    fs::write(&message, MAIL).unwrap();
    let mut process = Process::new(env!("CARGO_BIN_EXE_milter-probe"));
    process.args(["send", "--diff", "--connect"]).arg(fake.path()).arg(message).env_remove("NO_COLOR");
    see(&mut process)
}

#[test]
fn a_diff_has_colours_on_a_terminal_or_as_its_reader_wants_it() {
    let forced = |process: &mut Process| text(&process.env("CLICOLOR_FORCE", "1").output().unwrap().stdout);
    for coloured in [difference(on_a_terminal), difference(forced)] {
        for line in ["\x1b[36m@@ -1,5 +1,6 @@\x1b[0m", "\x1b[31m-Subject: s\x1b[0m", "\x1b[32m+X-New: 1\x1b[0m"] {
            assert!(coloured.lines().any(|found| found == line), "{line:?} is not in {coloured:?}");
        }
        assert!(coloured.contains("-body \\u{1b}[31m"), "what a mail says must not reach the terminal: {coloured:?}");
    }
    let plain = difference(|process| on_a_terminal(process.env("NO_COLOR", "1")));
    assert!(plain.contains("\n-Subject: s\n+Subject: t\n") && !plain.contains('\x1b'), "{plain:?}");
}

#[test]
fn load_has_a_bar_on_a_terminal_only() {
    let load = |fake: &Fake| {
        let mut process = Process::new(env!("CARGO_BIN_EXE_milter-probe"));
        process
            .args(["load", "--connections", "1", "--messages", "50", "--per-session", "50"])
            .arg(fake.path())
            .env_remove("CLICOLOR_FORCE");
        process
    };
    let shown = on_a_terminal(&mut load(&Fake::continuing(0, 0, |_, _| None)));
    assert!(shown.contains("/50 ") && shown.contains("50 accepted"), "{shown:?}");
    let output = load(&Fake::continuing(0, 0, |_, _| None)).output().unwrap();
    assert!(text(&output.stdout).contains("50 accepted") && output.stderr.is_empty(), "{output:?}");
    assert!(!output.stdout.contains(&b'\x1b'), "{output:?}");
}

#[test]
fn json_has_a_line_for_each_message() {
    let fake = Fake::continuing(0x3f, 0, |letter, payload| match (letter, payload) {
        ('R', b"<bad@y>\0") => Some(reply(&Reply::ReplyCode(b"550 5.1.1 nobody"))),
        _ => rewriting(letter, payload),
    });
    let directory = tempfile::tempdir().unwrap();
    let second = directory.path().join("second");
    fs::write(&second, "\n").unwrap();
    let second = second.to_str().unwrap();
    let output = send(&fake.path(), &["--json", "-f", "a@x SIZE=9", "-r", "b@y", "-r", "bad@y", "-", second], MAIL);
    let said = text(&output.stdout);
    let lines: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let nobody = |name: &str| serde_json::json!({"address": name, "arguments": []});
    let sender = serde_json::json!({"address": "a@x", "arguments": ["SIZE=9"]});
    assert_eq!(
        lines[0],
        serde_json::json!({
            "socket": format!("unix:{}", fake.path().display()),
            "mta": "Postfix",
            "file": "-",
            "envelope": {"from": sender, "to": [nobody("b@y"), nobody("bad@y")]},
            "verdict": "accepted",
            "stage": "the end of the message",
            "reply": ["250 2.0.0 Ok: queued as 4PROBE0001"],
            "refused": [{"address": "bad@y", "arguments": [], "reply": ["550 5.1.1 nobody"]}],
            "changes": [
                {"change": "change header", "index": 1, "name": "Subject", "value": "t", "before": "s"},
                {"change": "add header", "name": "X-New", "value": "1"},
                {"change": "replace body", "octets": 7, "packets": 1},
            ],
            "remarks": [],
            "delivered": {
                "envelope": {"from": sender, "to": [nobody("b@y")]},
                "message": "From: a@x\nTo: b@y\nSubject: t\nX-New: 1\n\nBODY\u{1b}\n",
            },
        })
    );
    assert_eq!((lines.len(), &lines[1]["file"]), (2, &second.into()));

    let fake = Fake::continuing(0, 0, |letter, _| (letter == 'M').then(|| reply(&Reply::Reject)));
    let output = send(&fake.path(), &["--json", "-"], MAIL);
    assert_eq!(output.status.code(), Some(1));
    let rejected: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&rejected["verdict"], &rejected["delivered"]), (&"rejected".into(), &serde_json::Value::Null));
}

#[test]
fn the_command_line_says_who_comes_and_in_which_pieces() {
    let fake = Fake::continuing(0, 0, |_, _| None);
    let options = ["--client", "mx.y[192.0.2.7]:25", "--helo", "ehlo.y", "--tls", "--chunk", "5", "-m", "extra=1", "-"];
    assert_eq!(send(&fake.path(), &options, MAIL).status.code(), Some(0));
    let heard = fake.heard();
    for line in [
        "C mx.y|4|\\x19192.0.2.7|",
        "D H{tls_version}|TLSv1.3|{cipher}|TLS_AES_256_GCM_SHA384|{cipher_bits}|256|",
        "H ehlo.y|",
    ] {
        assert!(heard.iter().any(|found| found == line), "{line} is not in {heard:?}");
    }
    assert!(heard.iter().any(|line| line.starts_with("D C") && line.ends_with("{extra}|1|")), "{heard:?}");
    let pieces: Vec<_> = heard.iter().filter(|line| line.starts_with("B ")).collect();
    assert_eq!(pieces, ["B 5 octets", "B 5 octets", "B 2 octets"]);
    for chunk in ["0", "65536", "many"] {
        assert_eq!(send("/no/such/socket".as_ref(), &["--chunk", chunk, "-"], MAIL).status.code(), Some(2), "{chunk}");
    }
}

/// Runs a sub-command and gives its exit status, output and errors.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let output =
        Process::new(env!("CARGO_BIN_EXE_milter-probe")).args(arguments).env_remove("CLICOLOR_FORCE").output().unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// A filter that negotiates after some time, and asks for macros.
fn slow(milliseconds: u64) -> Fake {
    let answer = Reply::Negotiated {
        version: 6,
        actions: Actions::ADD_HEADERS | Actions::QUARANTINE,
        steps: Steps::NO_HELO | Steps::NO_BODY | Steps::NR_MAIL | Steps::SKIP,
        macros: vec![(Stage::Mail, b"i {auth_authen}"), (Stage::Data, b"")],
    };
    let answer = reply(&answer);
    Fake::start(move |letter, _| match letter {
        'O' => {
            std::thread::sleep(std::time::Duration::from_millis(milliseconds));
            Move::Say(answer.clone())
        }
        _ => Move::Say(Vec::new()),
    })
}

#[test]
fn ping_is_one_line_and_a_status_for_monitoring() {
    for (delay, limits, status, word) in [
        (0, &["-w", "30000", "-c", "40000"][..], 0, "OK"),
        (50, &["--warning", "20", "--critical", "40000"], 1, "WARNING"),
        (50, &["--warning", "10", "--critical", "20"], 2, "CRITICAL"),
        (50, &["-c", "20.5"], 2, "CRITICAL"),
    ] {
        let fake = slow(delay);
        let path = fake.path();
        let (code, line, errors) = run(&[&["ping", path.to_str().unwrap()], limits].concat());
        assert_eq!((code, line.lines().count(), &errors[..]), (status, 1, ""), "{line}");
        let start = format!("MILTER {word} - unix:{} negotiates protocol version 6 in ", path.display());
        assert!(line.starts_with(&start), "{line}");
        let (_, data) = line.trim_end().split_once(" | time=").unwrap();
        let [time, warning, critical, "0"] = data.split(';').collect::<Vec<_>>()[..] else { panic!("{data}") };
        let time: f64 = time.strip_suffix("ms").unwrap().parse().unwrap();
        assert!(time >= delay as f64 && time < 30_000.0, "{line}");
        let given = |name: &[&str]| {
            let at = limits.iter().position(|option| name.contains(option));
            at.map(|at| limits[at + 1].to_owned()).unwrap_or_default()
        };
        assert_eq!((warning, critical), (&*given(&["-w", "--warning"]), &*given(&["-c", "--critical"])), "{line}");
        assert_eq!(fake.heard().last().unwrap(), "Q");
    }
}

#[test]
fn ping_tells_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none");
    let missing = missing.to_str().unwrap();
    let (status, line, errors) = run(&["ping", missing]);
    assert_eq!((status, &errors[..]), (2, ""));
    assert_eq!(
        line,
        format!("MILTER CRITICAL - unix:{missing}: cannot connect: no such socket; is the filter running?\n")
    );

    let fake = Fake::start(|_, _| Move::Sulk);
    let (status, line, _) = run(&["ping", "-t", "0.2", fake.path().to_str().unwrap()]);
    assert_eq!(status, 2);
    assert!(line.starts_with("MILTER CRITICAL - ") && line.contains("no answer to negotiation"), "{line}");

    let fake = Fake::start(|_, _| Move::HangUp);
    let (status, line, _) = run(&["ping", fake.path().to_str().unwrap()]);
    assert_eq!(status, 2);
    assert!(line.contains("closed the connection during negotiation"), "{line}");

    // Not a word about the filter where the question is wrong.
    let (status, line, _) = run(&["ping", "-w", "2", "-c", "1", missing]);
    assert_eq!(status, 3);
    assert!(line.starts_with("MILTER UNKNOWN - --warning is above --critical"), "{line}");
    for wrong in [&["ping"][..], &["ping", "-w", "soon", missing], &["ping", "mail.example:25"]] {
        let (status, line, errors) = run(wrong);
        assert_eq!((status, &line[..]), (3, ""), "{wrong:?}");
        assert!(!errors.is_empty(), "{wrong:?}");
    }
    assert_eq!(run(&["ping", "--help"]).0, 0);
}

#[test]
fn inspect_says_what_a_filter_asks_for() {
    let fake = slow(0);
    let (status, said, _) = run(&["inspect", fake.path().to_str().unwrap()]);
    assert_eq!(status, 0, "{said}");
    assert!(said.starts_with(&format!("Filter at unix:{}, asked by Postfix\n", fake.path().display())), "{said}");
    for line in [
        "  version  6",
        "  may      add headers, quarantine",
        "  and      may skip the rest of the body",
        "connect           sent and answered   j {daemon_name} {daemon_addr} v _",
        "helo              macros only         {tls_version} {cipher} {cipher_bits} {cert_subject} {cert_issuer}",
        "mail              sent, not answered  i {auth_authen} (the filter's choice)",
        "data              sent and answered   - (the filter's choice)",
        "body              not sent            -",
        "end of message    sent and answered   i",
        "unknown commands  sent and answered   -",
    ] {
        assert!(said.lines().any(|found| found == line), "{line}\n{said}");
    }
    assert_eq!(fake.heard().last().unwrap(), "Q");

    let fake = slow(0);
    let (status, said, _) = run(&["inspect", "--as", "sendmail", "--json", fake.path().to_str().unwrap()]);
    assert_eq!(status, 0, "{said}");
    let found: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(found["mta"], "Sendmail");
    assert_eq!(found["actions"], serde_json::json!(["add headers", "quarantine"]));
    assert_eq!(found["stages"].as_array().unwrap().len(), 10);
    let mail = serde_json::json!({
        "stage": "mail", "treatment": "sent, not answered", "macros": ["i", "{auth_authen}"], "macros_chosen": true
    });
    assert_eq!(found["stages"][2], mail);

    let directory = tempfile::tempdir().unwrap();
    assert_eq!(run(&["inspect", directory.path().join("none").to_str().unwrap()]).0, 6);
    assert_eq!(run(&["inspect"]).0, 2);
}

#[test]
fn shells_complete_sub_commands_and_options() {
    for shell in ["bash", "zsh", "fish"] {
        let (status, script, _) = run(&["completions", shell]);
        assert_eq!(status, 0, "{shell}");
        for word in ["milter-probe", "inspect", "warning"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let (_, script, _) = run(&["completions", "bash"]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("completions");
    fs::write(&file, script).unwrap();
    // What bash itself offers for the start of a word.
    let ask = r#". "$1"
        read -r _ _ function _ <<< "$(complete -p milter-probe | grep -o -- '-F .*' | sed 's/^/x /')"
        COMP_WORDS=(milter-probe ins) COMP_CWORD=1
        "$function" milter-probe ins milter-probe
        echo "${COMPREPLY[@]}""#;
    let output = Process::new("bash").args(["--norc", "-c", ask, "bash"]).arg(&file).output().unwrap();
    assert_eq!(text(&output.stdout), "inspect\n", "{}", text(&output.stderr));
}

/// A session of an offer, HELO and QUIT, with these octets as the reply to HELO.
fn record(answer: &[u8]) -> Vec<u8> {
    let mut offer = Vec::new();
    let (actions, steps) = (Actions::empty(), Steps::empty());
    Command::Negotiate { version: 6, actions, steps }.encode(&mut offer);
    let answered = fake::negotiated(0, 0);
    let mut record = MAGIC.to_vec();
    for (kind, octets) in [
        (Kind::About, &b"a test"[..]),
        // Packets in pieces, and several at once.
        (Kind::FromMta, &offer[..3]),
        (Kind::FromMta, &offer[3..]),
        (Kind::FromFilter, &answered),
        (Kind::FromMta, b"\0\0\0\x03Hh\0"),
        (Kind::FromFilter, &reply(&Reply::Progress)),
        (Kind::FromFilter, answer),
        (Kind::FromMta, b"\0\0\0\x01Q"),
        (Kind::End, b"over"),
    ] {
        Entry { kind, at: Duration::ZERO, octets }.encode(&mut record);
    }
    record
}

fn replay(socket: &std::path::Path, record: &[u8]) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("record");
    fs::write(&file, record).unwrap();
    let output = Process::new(env!("CARGO_BIN_EXE_milter-probe"))
        .args(["replay", "--timeout", "0.5", "--connect"])
        .args([socket, &file])
        .output()
        .unwrap();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn a_replay_shows_the_first_difference() {
    let continuing = || Fake::continuing(0, 0, |_, _| None);
    let fake = continuing();
    let same = replay(&fake.path(), &record(&reply(&Reply::Continue)));
    assert_eq!(same, (Some(0), "the same: 2 replies to 3 commands\n".into()));
    assert_eq!(fake.heard().last().map(String::as_str), Some("Q"));

    let (status, said) = replay(&continuing().path(), &record(&reply(&Reply::ReplyCode(b"550 no"))));
    assert_eq!(status, Some(1));
    let wanted =
        "reply 2 differs\n  to        helo name=\"h\"\n  recorded  smtp-reply text=\"550 no\"\n  now       continue\n";
    assert_eq!(said, wanted);

    let whole = record(&reply(&Reply::Continue));
    let (status, said) = replay(&continuing().path(), &whole[..whole.len() - 1]);
    assert_eq!(status, Some(0));
    assert!(said.starts_with("the same: 2 replies to 3 commands\nmilter-probe: "), "{said}");
    assert!(said.ends_with("the record has no end: the filter has crashed, or could not write on\n"), "{said}");

    let (status, said) = replay(&continuing().path(), &record(b""));
    assert_eq!(status, Some(1));
    assert!(said.contains("recorded  nothing more\n  now       continue"), "{said}");

    let hanging_up = Fake::start(|letter, _| match letter {
        'O' => Move::Say(fake::negotiated(0, 0)),
        _ => Move::HangUp,
    });
    let (status, said) = replay(&hanging_up.path(), &record(&reply(&Reply::Continue)));
    assert_eq!(status, Some(1));
    assert!(said.contains("recorded  continue\n  now       the filter hangs up"), "{said}");
}

#[test]
fn a_replay_that_cannot_be() {
    let sulking = Fake::start(|_, _| Move::Sulk);
    assert_eq!(replay(&sulking.path(), &record(b"")).0, Some(8));
    let nobody = tempfile::tempdir().unwrap();
    assert_eq!(replay(&nobody.path().join("socket"), &record(b"")).0, Some(6));
    let (status, said) = replay(&nobody.path().join("socket"), b"From: a\n");
    assert_eq!(status, Some(9));
    assert!(said.contains("this is not a recorded session"), "{said}");
}
