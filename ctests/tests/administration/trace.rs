//! The trace: what MTA and filter say to each other, as lines that are written without mail waiting for it.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ctests::{
    Filter, MtaConnection, Setting, TempDir, eventually,
    opendkim::{DOMAIN, Signatures},
};
use serde_json::Value;

use crate::{LIMIT, OFFER, assert_accepted, launch, refusal, stop};

const START: &str = "start opensocket 0\nstart note opened\nstart main\n";

/// One of everything.
const PLAN: &str = r#"
start opensocket 0
start note opened
start main
callbacks connect envfrom envrcpt body eom close
flags 3
on connect addheader "X" "early"
on envfrom getsymval "i"
on envfrom getsymval "none"
on envfrom getsymval NULL
on envrcpt#1 setreply NULL NULL NULL
on envrcpt#1 setmlreply "5x0" NULL "a" "b"
on envrcpt#2 setreply "550" "5.7.1" "not\r\nso"
on envrcpt#2 setreply "550" "5.7.1" "not so"
on envrcpt#2 return REJECT
on eom addheader "X-Mark" "one\n\x09two"
on eom insheader -1 "X" "v"
on eom quarantine ""
on eom delrcpt "<b>"
on eom progress
on eom replacebody "a new body"
on close setpriv NULL
"#;

const CONVERSATION: [&str; 9] = [
    OFFER,
    "MACRO C j=mx.example {if_name}=lo ; CONNECT host.example inet 25 192.0.2.1",
    "HELO h",
    "MACRO M i=Q1 ; MAIL <a> SIZE=1",
    "RCPT <b>",
    "RCPT <c>",
    r#"HEADER Subject "a \"b\"\xe4""#,
    r#"BODY "secret\r\n""#,
    "BODYEOB",
];

/// What a trace of it says, but for what differs from run to run.
const TEXT: &str = r#"
command: negotiate version=6 actions=STEPS
reply: negotiated version=6 actions=add-headers,change-body steps=no-helo,no-headers,no-eoh,no-unknown,no-data macros={}
command: macros stage=connect macros={j="mx.example" {if_name}="lo"}
command: connect host="host.example" family=inet address="192.0.2.1" port=25
call: smfi_addheader name="X" value="early" result=MI_FAILURE reason="messages can be changed at their end only, in xxfi_eom"
callback: xxfi_connect verdict=SMFIS_CONTINUE seconds=TIME
reply: continue
command: helo name="h"
reply: continue
command: macros stage=mail macros={i="Q1"}
command: mail address="<a>" arguments=["SIZE=1"]
call: smfi_getsymval name="i" value="Q1"
call: smfi_getsymval name="none" value=NULL
call: smfi_getsymval name="" value=NULL
callback: xxfi_envfrom verdict=SMFIS_CONTINUE seconds=TIME
reply: continue
command: rcpt address="<b>" arguments=[]
call: smfi_setreply result=MI_FAILURE reason="an argument is NULL, empty or out of range"
call: smfi_setmlreply result=MI_FAILURE reason="the reply code is not 4xx or 5xx"
callback: xxfi_envrcpt verdict=SMFIS_CONTINUE seconds=TIME
reply: continue
command: rcpt address="<c>" arguments=[]
call: smfi_setreply result=MI_FAILURE reason="a line holds a line break"
call: smfi_setreply text="550 5.7.1 not so" result=MI_SUCCESS
callback: xxfi_envrcpt verdict=SMFIS_REJECT seconds=TIME
reply: smtp-reply text="550 5.7.1 not so"
command: header name="Subject" value="a \"b\"\xe4"
reply: continue
command: body octets=8
callback: xxfi_body verdict=SMFIS_CONTINUE seconds=TIME
reply: continue
command: end-of-message
call: smfi_addheader name="X-Mark" value="one\n\ttwo" result=MI_SUCCESS
call: smfi_insheader result=MI_FAILURE reason="an argument is NULL, empty or out of range"
call: smfi_quarantine result=MI_FAILURE reason="an argument is NULL, empty or out of range"
call: smfi_delrcpt address="<b>" result=MI_FAILURE reason="SMFIF_DELRCPT was not negotiated: set it in xxfi_flags, if the MTA offers it"
reply: add-header name="X-Mark" value="one\n\ttwo"
reply: progress
call: smfi_progress result=MI_SUCCESS
call: smfi_replacebody octets=10 result=MI_SUCCESS
callback: xxfi_eom verdict=SMFIS_CONTINUE seconds=TIME
reply: replace-body octets=10
reply: continue
command: quit
callback: xxfi_close verdict=SMFIS_CONTINUE seconds=TIME
session: end reason="the MTA said quit"
"#;

fn started(setting: &Setting, options: &str, plan: &str, directory: TempDir) -> Filter {
    let filter = launch(setting, options, plan, directory);
    filter.wait_for("note opened");
    filter
}

fn patiently(filter: &Filter) -> MtaConnection {
    crate::patiently(filter.socket().as_path())
}

/// Goes through the conversation, up to and with QUIT.
fn converse(filter: &Filter) {
    let mut mta = patiently(filter);
    for commands in CONVERSATION {
        let mut reply = mta.ask(commands);
        while ["ADDHEADER", "PROGRESS", "REPLBODY"].iter().any(|start| reply.starts_with(start)) {
            reply = mta.reply();
        }
        let is_answer = ["CONTINUE", "OPTNEG", "REPLYCODE"].iter().any(|start| reply.starts_with(start));
        assert!(is_answer, "{commands}: {reply}");
    }
    assert_eq!(mta.ask("QUIT"), "EOF");
}

/// A few commands, each answered with continue.
fn greet(filter: &Filter) {
    let mut mta = patiently(filter);
    assert!(mta.ask(OFFER).starts_with("OPTNEG"));
    for command in ["CONNECT h unknown", "HELO h", "MAIL <a>", "RCPT <b>"] {
        assert_eq!(mta.ask(command), "CONTINUE");
    }
}

/// Debian's OpenDKIM signs a message, and the trace says so.
#[test]
fn opendkim_traced() {
    let directory = TempDir::new();
    let Some(signatures) = Signatures::prepare_or_skip("opendkim_traced", &directory) else { return };
    let (path, option) = trace_in(&directory, "trace");
    let socket = directory.join("opendkim.sock");
    let service = signatures.sign_with(&Setting::ours(), &socket, "", &option);
    let text = format!("From: <a@{DOMAIN}>\r\nTo: <b@example.net>\r\nSubject: traced\r\n\r\nsecret\r\n");
    assert_accepted(socket, &text);
    // The first session was the one that found it listening.
    let trace = wait_for_line(&path, " 2 session: end");
    service.stop(LIMIT);
    for part in [
        "command: header name=\"Subject\" value=\" traced\"",
        "callback: xxfi_eom verdict=SMFIS_ACCEPT",
        "call: smfi_insheader index=0 name=\"DKIM-Signature\" value=\"",
        "reply: insert-header index=0 name=\"DKIM-Signature\"",
        "reply: accept",
    ] {
        assert!(trace.contains(part), "no {part} in\n{trace}");
    }
    assert!(!trace.contains("secret"));
}

fn wait_for_line(path: &Path, part: &str) -> String {
    let mut text = String::new();
    eventually(format_args!("{part} in {}", path.display()), || {
        text = fs::read_to_string(path).unwrap_or_default();
        // The last line may be one that is being written.
        text.ends_with('\n') && text.lines().any(|line| line.contains(part))
    });
    text
}

fn trace_in(directory: &TempDir, name: &str) -> (PathBuf, String) {
    let path = directory.join(name);
    let option = format!("trace={}", path.display());
    (path, option)
}

#[test]
fn text_line_by_line() {
    for model in ["pool", "threads", "fork", "pool, processes=2"] {
        let setting = Setting::model(model);
        let directory = TempDir::new();
        let (path, option) = trace_in(&directory, "trace");
        let mut filter = started(&setting, &option, PLAN, directory);
        let pid = filter.process().pid();
        converse(&filter);
        wait_for_line(&path, "session: end");
        stop(&mut filter);

        assert_eq!(fs::metadata(&path).expect("a trace").permissions().mode() & 0o7777, 0o600);
        let text = fs::read_to_string(&path).expect("UTF-8");
        let mut elapsed = 0.0;
        let mut seen = String::from("\n");
        for line in text.lines() {
            let [time, since, filter, session, rest] = line.splitn(5, ' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let shape: String = time.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
            assert_eq!(shape, "0000-00-00T00:00:00.000000Z", "{line}");
            let since: f64 = since.parse().expect("seconds");
            assert!(since >= elapsed, "{line}");
            elapsed = since;
            let process: u32 = filter.strip_prefix("recorder[").unwrap().trim_end_matches(']').parse().unwrap();
            assert_eq!((process == pid, session), (matches!(model, "pool" | "threads"), "1"), "{line}");
            let mut rest = rest.to_owned();
            if let Some((front, seconds)) = rest.split_once(" seconds=") {
                assert!(seconds.parse::<f64>().is_ok_and(|seconds| seconds < 10.0), "{line}");
                rest = format!("{front} seconds=TIME");
            }
            if let Some((front, _)) = rest.split_once("actions=").filter(|(front, _)| front.contains("negotiate ")) {
                rest = format!("{front}actions=STEPS");
            }
            seen += &rest;
            seen.push('\n');
        }
        assert_eq!(seen, TEXT, "{setting}");
    }
}

#[test]
fn json_line_by_line() {
    let directory = TempDir::new();
    let (path, option) = trace_in(&directory, "trace");
    let options = format!("{option}, trace-format=json, trace-body=4");
    let mut filter = started(&Setting::ours(), &options, PLAN, directory);
    converse(&filter);
    stop(&mut filter);
    let text = fs::read_to_string(&path).expect("UTF-8");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let names: Vec<String> = lines
        .iter()
        .map(|line| format!("{}: {}", line["event"].as_str().unwrap(), line["what"].as_str().unwrap()))
        .collect();
    let wanted: Vec<String> =
        TEXT.trim().lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(names, wanted);
    for line in &lines {
        assert_eq!((&line["session"], &line["filter"]), (&1.into(), &"recorder".into()));
        assert!(line["elapsed"].is_f64() && line["pid"].is_u64() && line["time"].as_str().unwrap().ends_with('Z'));
    }
    let find = |what: &str| lines.iter().find(|line| line["what"] == what).unwrap_or_else(|| panic!("no {what}"));
    assert_eq!(find("macros")["macros"], serde_json::json!({"j": "mx.example", "{if_name}": "lo"}));
    assert_eq!(find("mail")["arguments"], serde_json::json!(["SIZE=1"]));
    assert_eq!(find("header")["value"], "a \"b\"\u{fffd}");
    assert_eq!((&find("body")["octets"], &find("body")["body"]), (&8.into(), &"secr".into()));
    assert_eq!(find("smfi_replacebody")["body"], "a ne");
    assert_eq!(find("negotiated")["actions"], serde_json::json!(["add-headers", "change-body"]));
    assert!(find("xxfi_eom")["seconds"].is_f64());
}

#[test]
fn the_standard_error_and_the_system_log() {
    let filter = started(&Setting::ours(), "trace=stderr", START, TempDir::new());
    greet(&filter);
    eventually("it is on the standard error", || filter.output().contains("command: rcpt"));
    let filter = started(&Setting::ours(), "trace=syslog", START, TempDir::new());
    greet(&filter);
    let is_told = |line: &String| line.starts_with("log 6 ") && line.contains("command: rcpt");
    eventually("it is in the system log", || filter.lines().iter().any(is_told));
}

#[test]
fn a_file_that_is_moved_away_is_followed_by_another() {
    let directory = TempDir::new();
    let (path, option) = trace_in(&directory, "trace");
    let mut filter = started(&Setting::ours(), &option, START, directory);
    greet(&filter);
    let old = path.with_extension("1");
    let first = wait_for_line(&path, "session: end");
    fs::rename(&path, &old).expect("our own directory");
    // It is looked at once a second.
    thread::sleep(Duration::from_millis(1100));
    greet(&filter);
    wait_for_line(&path, "session: end");
    stop(&mut filter);
    assert_eq!(fs::read_to_string(&old).expect("it has only been moved"), first);
    assert_eq!(fs::metadata(&path).expect("a new one").permissions().mode() & 0o7777, 0o600);
}

#[test]
fn existing_lines_stay() {
    let directory = TempDir::new();
    let (path, option) = trace_in(&directory, "trace");
    fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o640).open(&path).expect("our directory");
    fs::write(&path, "2026-11-22T20:37:02.123456Z before\n").expect("our own file");
    let mut filter = started(&Setting::ours(), &option, START, directory);
    greet(&filter);
    stop(&mut filter);
    let text = fs::read_to_string(&path).expect("UTF-8");
    assert!(
        text.lines().next().is_some_and(|line| line.ends_with(" before")) && text.contains("command: rcpt"),
        "{text}"
    );
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let directory = TempDir::new();
    let (path, option) = trace_in(&directory, "trace");
    let other = directory.write("other", "other\n");
    symlink(&other, &path).expect("our own directory");
    let line = refusal(&option, START, directory);
    assert!(line.contains("cannot open the trace /"), "{line}");

    let directory = TempDir::new();
    let (path, option) = trace_in(&directory, "trace");
    fs::hard_link(directory.write("other", "other\n"), &path).expect("our own directory");
    let line = refusal(&option, START, directory);
    assert!(line.contains("it has another name"), "{line}");

    let directory = TempDir::new();
    let (path, option) = trace_in(&directory, "trace");
    fs::write(&path, "root:x:0:0\n").expect("our own directory");
    let line = refusal(&option, START, directory);
    assert!(line.contains("there is something else in it"), "{line}");

    let directory = TempDir::new();
    let line = refusal("trace=/nowhere/at/all", START, directory);
    assert!(line.contains("cannot open the trace /nowhere/at/all: No such file"), "{line}");
    let line = refusal("trace=relative", START, TempDir::new());
    assert!(line.contains("off, stderr, syslog or an absolute path"), "{line}");
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().is_ok_and(|status| status.success()));
}

/// Somebody has the FIFO open and does not read; then somebody reads.
#[test]
fn a_reader_that_does_not_read_keeps_no_mail_waiting() {
    const MARK: &[u8] = b"left-out";
    let directory = TempDir::new();
    let (path, option) = trace_in(&directory, "trace");
    fifo(&path);
    let reader = fs::OpenOptions::new().read(true).write(true).open(&path).expect("a FIFO");
    let value = "x".repeat(50_000);
    let mut filter = started(&Setting::ours(), &option, START, directory);
    let mut mta = patiently(&filter);
    assert!(mta.ask(OFFER).starts_with("OPTNEG"));
    for command in ["CONNECT h unknown", "HELO h", "MAIL <a>", "RCPT <b>"] {
        assert_eq!(mta.ask(command), "CONTINUE");
    }
    // Several times what the queue and the pipe hold.
    let start = Instant::now();
    for _ in 0..60 {
        assert_eq!(mta.ask(&format!("HEADER X {value}")), "CONTINUE");
    }
    assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());

    let (done, seen) = std::sync::mpsc::channel();
    let mut reading: File = reader;
    thread::spawn(move || {
        let (mut text, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        while let Ok(len) = reading.read(&mut buffer) {
            let unread = text.len().saturating_sub(MARK.len());
            text.extend_from_slice(&buffer[..len]);
            if text[unread..].windows(MARK.len()).any(|window| window == MARK) {
                let _ = done.send(text);
                return;
            }
        }
    });
    let deadline = Instant::now() + LIMIT;
    let text = loop {
        // The count comes with the next line for which there is room.
        assert_eq!(mta.ask("HEADER Y y"), "CONTINUE");
        match seen.recv_timeout(Duration::from_millis(100)) {
            Ok(text) => break text,
            Err(_) => assert!(Instant::now() < deadline, "nobody says that lines were left out"),
        }
    };
    let text = String::from_utf8(text).expect("UTF-8");
    assert!(text.starts_with("20") && text.contains("command: header name=\"X\""));
    stop(&mut filter);
}

/// Nobody has the FIFO open: what is said waits for a reader, and a stop does not.
#[test]
fn a_fifo_without_a_reader_keeps_no_mail_waiting() {
    let directory = TempDir::new();
    let (path, option) = trace_in(&directory, "trace");
    fifo(&path);
    let mut filter = started(&Setting::ours(), &option, START, directory);
    greet(&filter);
    stop(&mut filter);
}
