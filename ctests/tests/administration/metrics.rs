//! Numbers about a run, in a file and on a socket.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt, chown, symlink},
        net::UnixStream,
    },
    path::Path,
    process::{Command, Stdio},
};

use ctests::{
    Filter, MailServer, Postfix, Setting, TempDir, eventually, find, is_root,
    mailbag::{PLAIN, RECIPIENT, SENDER},
    opendkim::Signatures,
    skip,
};

use crate::{LIMIT, OFFER, OPENINGS, refusal, serving, stop};

const PLAN: &str = "start opensocket 0\nstart note opened\nstart main\non envrcpt#2 return REJECT\n\
                    on eom addheader \"X\" \"1\"\non eom addheader \"Y\" \"2\"\non eom replacebody \"new\"\n\
                    on eom sleep 20\non eom return ACCEPT\n";

fn settings() -> [Setting; 4] {
    [Setting::ours(), Setting::model("threads"), Setting::model("fork"), Setting::processes(2)]
}

/// One session with a message of which one recipient is refused, and one that breaks the protocol.
fn mail(filter: &Filter) {
    let mut mta = filter.connect();
    assert!(mta.ask(OFFER).starts_with("OPTNEG"));
    for command in ["HELO h", "MAIL <a>", "RCPT <b>"] {
        assert_eq!(mta.ask(command), "CONTINUE");
    }
    assert_eq!(mta.ask("RCPT <c>"), "REJECT");
    for command in ["DATA", "EOH", "BODY x"] {
        assert_eq!(mta.ask(command), "CONTINUE");
    }
    mta.command("BODYEOB");
    for reply in ["ADDHEADER \"X\" \"1\"", "ADDHEADER \"Y\" \"2\"", "REPLBODY \"new\"", "ACCEPT"] {
        assert_eq!(mta.receive(LIMIT).to_string(), reply);
    }
    assert_eq!(mta.ask("QUIT"), "EOF");
    let mut mta = filter.connect();
    assert!(mta.ask(OFFER).starts_with("OPTNEG"));
    assert_eq!(mta.ask("frame Z \"\""), "EOF");
}

/// The value of a series, whose labels are given without the filter's.
fn value(text: &str, series: &str) -> Option<f64> {
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}').expect("braces come in pairs");
    let comma = if labels.is_empty() { "" } else { "," };
    let (start, end) = (format!("milter_{name}{{filter=\""), format!("\"{comma}{labels}}} "));
    let value = text.lines().find_map(|line| line.strip_prefix(&start)?.split_once(&end));
    value.map(|(_, value)| value.parse().expect("a number"))
}

/// What [`mail`] amounts to, after the session with which `serving` has asked for life.
fn assert_numbers(setting: &Setting, text: &str) {
    let is =
        |series: &str, expected: f64| assert_eq!(value(text, series), Some(expected), "{setting} {series}\n{text}");
    is("sessions_total", 3.0);
    is("sessions_open", 0.0);
    is("messages_total", 1.0);
    is(r#"verdicts_total{callback="helo",verdict="continue"}"#, 1.0);
    is(r#"verdicts_total{callback="envrcpt",verdict="continue"}"#, 1.0);
    is(r#"verdicts_total{callback="envrcpt",verdict="reject"}"#, 1.0);
    is(r#"verdicts_total{callback="eom",verdict="accept"}"#, 1.0);
    assert_eq!(value(text, r#"verdicts_total{callback="close",verdict="continue"}"#), None, "{setting}");
    is(r#"callback_duration_seconds_count{callback="close"}"#, 3.0);
    is(r#"callback_duration_seconds_count{callback="eom"}"#, 1.0);
    is(r#"callback_duration_seconds_bucket{callback="eom",le="0.01"}"#, 0.0);
    is(r#"callback_duration_seconds_bucket{callback="eom",le="60"}"#, 1.0);
    is(r#"callback_duration_seconds_bucket{callback="eom",le="+Inf"}"#, 1.0);
    assert!(value(text, r#"callback_duration_seconds_sum{callback="eom"}"#) >= Some(0.02), "{setting}\n{text}");
    is(r#"modifications_total{kind="add_header"}"#, 2.0);
    is(r#"modifications_total{kind="replace_body"}"#, 1.0);
    is(r#"modifications_total{kind="quarantine"}"#, 0.0);
    is(r#"protocol_errors_total{kind="unknown_command"}"#, 1.0);
    is(r#"protocol_errors_total{kind="frame"}"#, 0.0);
    is("log_lines_suppressed_total", 0.0);
    // Three offers of 17 octets; HELO 7, MAIL 9, two RCPT of 9, DATA 5, EOH 5, BODY 6, BODYEOB 5, QUIT 5, the odd one 5.
    is("received_bytes_total", f64::from(3 * 17 + 7 + 9 + 2 * 9 + 5 + 5 + 6 + 5 + 5 + 5));
    assert!(value(text, "sent_bytes_total") > Some(100.0), "{setting}\n{text}");
    assert!(value(text, "threads") >= Some(1.0), "{setting}\n{text}");
}

/// What Prometheus itself thinks of it.
fn assert_checked(test: &str, text: &str) {
    let Some(promtool) = find("promtool") else { return skip(test, "promtool") };
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads all");
    let output = child.wait_with_output().expect("a child can be waited for");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}\n{text}", String::from_utf8_lossy(&said));
}

/// What Debian's OpenDKIM does behind Postfix.
#[test]
fn opendkim_measured() {
    const TEST: &str = "opendkim_measured";
    let Some(postfix) = Postfix::start_or_skip(TEST, &[]) else { return };
    let Some(signatures) = Signatures::prepare_or_skip(TEST, postfix.directory()) else { return };
    for setting in [Setting::ours(), Setting::model("threads")] {
        let path = postfix.directory().join("metrics.prom");
        let option = format!("metrics={}", path.display());
        let filter = signatures.sign_with(&setting, &postfix.filter_socket(), "", &option);
        for _ in 0..2 {
            postfix.smtp().submit(SENDER, &[RECIPIENT], PLAIN);
            assert!(signatures.is_valid(&postfix.sink().next().message), "{setting}");
        }
        filter.stop(LIMIT);
        let text = fs::read_to_string(&path).expect("it is there");
        for (series, expected) in [
            ("messages_total", 2.0),
            (r#"verdicts_total{callback="envrcpt",verdict="continue"}"#, 2.0),
            (r#"verdicts_total{callback="eom",verdict="accept"}"#, 2.0),
            (r#"callback_duration_seconds_count{callback="eom"}"#, 2.0),
            // The signature, and one that names OpenDKIM.
            (r#"modifications_total{kind="insert_header"}"#, 4.0),
            (r#"protocol_errors_total{kind="frame"}"#, 0.0),
        ] {
            assert_eq!(value(&text, series), Some(expected), "{setting} {series}\n{text}");
        }
        assert!(value(&text, "received_bytes_total") > Some(2.0 * PLAIN.len() as f64), "{setting}\n{text}");
        assert_checked(TEST, &text);
    }
}

#[test]
fn a_file_has_the_numbers_of_all_processes() {
    for setting in settings() {
        let directory = TempDir::new();
        let path = directory.join("metrics.prom");
        let mut filter = serving(&setting, &format!("metrics={}", path.display()), PLAN, directory);
        mail(&filter);
        stop(&mut filter);
        let text = fs::read_to_string(&path).expect("it is there");
        assert_numbers(&setting, &text);
        assert_checked("metrics in a file", &text);
        assert_eq!(fs::metadata(&path).expect("our own").permissions().mode() & 0o7777, 0o644, "{setting}");
        let left = fs::read_dir(filter.directory()).expect("our own directory").flatten();
        let hidden = left.filter(|entry| entry.file_name().to_string_lossy().starts_with('.')).count();
        assert_eq!(hidden, 0, "{setting}: something is left behind");
        // The next run takes the place of its own file.
        let directory = TempDir::new();
        let mut filter = serving(&setting, &format!("metrics={}", path.display()), PLAN, directory);
        stop(&mut filter);
        assert_eq!(value(&fs::read_to_string(&path).expect("it is there"), "sessions_total"), Some(1.0), "{setting}");
    }
}

#[test]
fn a_file_is_written_while_the_filter_runs() {
    for setting in [Setting::ours(), Setting::processes(2)] {
        let directory = TempDir::new();
        let path = directory.join("metrics.prom");
        let mut filter = serving(&setting, &format!("metrics={}", path.display()), PLAN, directory);
        mail(&filter);
        let messages = || value(&fs::read_to_string(&path).expect("it is always there"), "messages_total");
        eventually(format_args!("{setting}: the message is counted"), || messages() == Some(1.0));
        stop(&mut filter);
    }
}

fn ask(path: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).expect("somebody listens");
    stream.write_all(request.as_bytes()).expect("a few octets");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn a_socket_answers_whoever_asks() {
    for setting in [Setting::ours(), Setting::model("threads")] {
        let directory = TempDir::new();
        // Somebody has left it behind.
        let path = directory.stale_socket("metrics.sock");
        let mut filter = serving(&setting, &format!("metrics=unix:{}", path.display()), PLAN, directory);
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o666, "{setting}");
        // Some never ask, never read and never go.
        let _idle: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).expect("somebody listens")).collect();
        mail(&filter);
        filter.wait_for("close");
        let mut text = String::new();
        eventually(format_args!("{setting}: no session is open"), || {
            text = ask(&path, "");
            value(&text, "sessions_open") == Some(0.0)
        });
        assert_numbers(&setting, &text);
        assert_checked("metrics on a socket", &text);
        let answer = ask(&path, &format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(8000)));
        let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
        assert_numbers(&setting, body);
        stop(&mut filter);
        assert!(!path.exists(), "{setting}: it is removed");
    }
}

#[test]
fn what_is_not_ours_stays() {
    let start = |target: &str| refusal(&format!("metrics={target}"), OPENINGS[0], TempDir::new());
    let directory = TempDir::new();
    let [file, link, empty] = ["file", "link", "empty"].map(|name| directory.join(name));
    fs::write(&file, "precious").expect("our own directory");
    fs::write(&empty, "").expect("our own directory");
    symlink(&empty, &link).expect("our own directory");
    for path in [&file, &link, &empty] {
        let said = start(&path.display().to_string());
        assert!(said.contains("there is something that is not ours"), "{said}");
        let said = start(&format!("unix:{}", path.display()));
        assert!(said.contains("option metrics=unix:"), "{said}");
    }
    if is_root() {
        let other = directory.join("other");
        fs::write(&other, "# Numbers about the filter recorder.\n").expect("our own directory");
        chown(&other, Some(1), Some(1)).expect("root may give files away");
        assert!(start(&other.display().to_string()).contains("there is something that is not ours"));
    } else {
        skip("what_is_not_ours_stays", "root, to make a file of somebody else");
    }
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "precious");
    assert!(fs::symlink_metadata(&link).expect("it is there").is_symlink());
    assert!(!fs::metadata(&empty).expect("it is there").file_type().is_socket());
    let said = start(&directory.join("none/metrics").display().to_string());
    assert!(said.contains("No such file or directory"), "{said}");
    for wrong in ["relative", "unix:relative", ""] {
        assert!(start(wrong).contains("off, the absolute path of a file, or unix: and that of a socket"), "{wrong}");
    }
    let said = refusal("model=fork, metrics=unix:/nowhere/x", OPENINGS[0], TempDir::new());
    assert!(said.contains("with model=fork or processes=N use metrics=PATH"), "{said}");
}

/// The file of another filter, or of this one under another name, costs the numbers and no mail.
#[test]
fn the_file_of_another_filter_stays() {
    const NEIGHBOUR: &str = "# Numbers about the filter neighbour.\n";
    for setting in settings() {
        let place = TempDir::new();
        let path = place.write("metrics.prom", NEIGHBOUR);
        let mut filter = serving(&setting, &format!("metrics={}", path.display()), PLAN, TempDir::new());
        mail(&filter);
        stop(&mut filter);
        let told = filter.lines().iter().filter(|line| line.contains("give each filter a file of its own")).count();
        assert_eq!(told, 1, "{setting}: {:?}", filter.lines());
        assert_eq!(fs::read_to_string(&path).expect("it is there"), NEIGHBOUR, "{setting}");
    }
}

/// A file that cannot be written any more costs a line in the log.
#[test]
fn mail_goes_on_without_the_directory() {
    for setting in settings() {
        let directory = TempDir::new();
        let place = TempDir::new();
        let path = place.join("metrics.prom");
        let mut filter = serving(&setting, &format!("metrics={}", path.display()), PLAN, directory);
        // At once, whatever is being written there.
        fs::rename(place.path(), filter.directory().join("moved")).expect("our own directories");
        mail(&filter);
        stop(&mut filter);
        let told = filter.lines().iter().filter(|line| line.contains("cannot write the metrics")).count();
        assert_eq!(told, 1, "{setting}: {:?}", filter.lines());
    }
}
