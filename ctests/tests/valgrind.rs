//! A filter that uses the whole interface under valgrind's memcheck: no error, nothing lost.

use std::{
    process::{Command, ExitStatus},
    time::Duration,
};

use ctests::{Compile, Library, MtaConnection, Program, Service, Setting, TempDir, skip};

const VALGRIND: [&str; 7] = [
    "valgrind",
    "--error-exitcode=99",
    "--leak-check=full",
    "--errors-for-leak-kinds=definite,indirect",
    "--show-leak-kinds=definite,indirect",
    "--num-callers=30",
    "--fair-sched=yes",
];

/// A program under valgrind is slow, and slower on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn is_installed(test: &str) -> bool {
    let installed = Command::new("valgrind").arg("--version").output().is_ok_and(|run| run.status.success());
    if !installed {
        skip(test, "valgrind");
    }
    installed
}

fn reply(mta: &mut MtaConnection, command: &str) -> String {
    mta.command(command);
    mta.receive(PATIENCE).to_string()
}

fn expect(mta: &mut MtaConnection, command: &str, expected: &str) {
    let found = reply(mta, command);
    assert!(found.starts_with(expected), "{command}: {found}");
}

fn negotiate(mta: &mut MtaConnection) {
    expect(mta, "OPTNEG 6 1ff 1fffff", "OPTNEG 6 1ff c00 ");
    mta.command("MACRO C j mx.harbour.example {daemon_name} valgrind");
    expect(mta, "CONNECT client.example inet 1234 192.0.2.1", "CONTINUE");
    expect(mta, "HELO client.example", "CONTINUE");
}

/// A message up to its last octet; returns the letters of everything that answers it.
fn message(mta: &mut MtaConnection) -> String {
    mta.command("MACRO M i NAME {mail_addr} mathilde@lighthouse.example");
    for command in ["MAIL <mathilde@lighthouse.example> SIZE=1000", "RCPT <otto@harbour.example>"] {
        expect(mta, command, "CONTINUE");
    }
    expect(mta, "RCPT <never@harbour.example>", "REPLYCODE \"550-5.7.1 Never.");
    for command in ["DATA", "HEADER Subject changeable", "HEADER X-Remove 1", "EOH"] {
        expect(mta, command, "CONTINUE");
    }
    for command in [r#"BODY "x"*65535"#, r#"BODY "short\r\n""#] {
        expect(mta, command, "CONTINUE");
    }
    mta.command("MACRO E i NAME");
    mta.command(r#"BODYEOB "and an end""#);
    let mut letters = String::new();
    loop {
        let answer = mta.receive(PATIENCE).to_string();
        letters.push_str(answer.split(' ').next().unwrap_or_default());
        match answer.as_str() {
            "CONTINUE" => return letters,
            // The filter tells here whether a call did not give what it should.
            told if told.starts_with("ADDHEADER \"X-Failed\"") => assert_eq!(told, r#"ADDHEADER "X-Failed" "nothing""#),
            _ => {}
        }
        letters.push(' ');
    }
}

const MODIFICATIONS: &str = "PROGRESS CHGHEADER CHGHEADER CHGHEADER CHGHEADER INSHEADER INSHEADER ADDHEADER \
    ADDHEADER CHGFROM ADDRCPT ADDRCPT_PAR DELRCPT REPLBODY REPLBODY REPLBODY REPLBODY QUARANTINE ADDHEADER CONTINUE";

/// Everything that peers do, friendly and not.
fn converse(connect: impl Fn() -> MtaConnection) {
    let mut mta = connect();
    negotiate(&mut mta);
    expect(&mut mta, "UNKNOWN FROBNICATE", "REPLYCODE \"500 5.5.1 What is that?");
    expect(&mut mta, "MAIL <later@lighthouse.example>", "REPLYCODE \"451 Come back later");
    mta.command("ABORT");
    assert_eq!(message(&mut mta), MODIFICATIONS);
    expect(&mut mta, "MAIL <mathilde@lighthouse.example>", "CONTINUE");
    mta.command("ABORT");
    assert_eq!(message(&mut mta), MODIFICATIONS);
    mta.command("QUIT_NC");
    // Another client on the same connection.
    mta.command("MACRO C j mx.harbour.example {daemon_name} valgrind");
    expect(&mut mta, "CONNECT other.example inet6 1234 2001:db8::1", "CONTINUE");
    expect(&mut mta, "HELO other.example", "CONTINUE");
    assert_eq!(message(&mut mta), MODIFICATIONS);
    mta.command("QUIT");
    assert_eq!(mta.receive(PATIENCE).to_string(), "EOF");

    // Several at once, ended by a hang-up in the middle of a message.
    let mut several = [connect(), connect(), connect()];
    several.iter_mut().for_each(negotiate);
    for mta in &mut several {
        expect(mta, "MAIL <mathilde@lighthouse.example>", "CONTINUE");
    }
    drop(several);

    // Some lose their threads.
    for _ in 0..3 {
        let mut mta = connect();
        negotiate(&mut mta);
        mta.command("MAIL <leave@lighthouse.example>");
        assert_eq!(mta.receive(PATIENCE).to_string(), "EOF");
    }

    // No MTA, and an MTA that loses its way.
    for octets in [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], b"\0\0\0\0", b"\0\0\0\x0d", b"\xff\xff\xff\xffM"]
    {
        let mut mta = connect();
        mta.send(octets);
        mta.shutdown();
        assert_eq!(mta.receive(PATIENCE).to_string(), "EOF", "{octets:?}");
    }
    let mut mta = connect();
    negotiate(&mut mta);
    mta.command("CONNECT again.example inet 1234 192.0.2.1");
    assert_eq!(mta.receive(PATIENCE).to_string(), "EOF");
}

fn assert_clean(setting: &Setting, filter: &Service, status: ExitStatus) {
    let output = filter.output();
    assert_eq!(status.code(), Some(0), "{setting}: {output}");
    assert!(output.contains("ERROR SUMMARY: 0 errors from 0 contexts"), "{setting}: {output}");
}

#[test]
fn memcheck() {
    if !is_installed("memcheck") {
        return;
    }
    let directory = TempDir::new();
    let program = Program::compiled("ctests/filters/every_call.c", Library::ours(), &directory);
    let symbols = Command::new("nm").args(["-D", "--undefined-only"]).arg(program.path()).output().expect("nm(1)");
    let calls = String::from_utf8_lossy(&symbols.stdout).matches(" smfi_").count();
    assert_eq!(calls, 26, "the filter does not use every call");

    let socket = directory.join("socket");
    let address = format!("unix:{}", socket.display());
    let connect = || MtaConnection::unix(&socket).expect("the filter listens");
    for setting in [Setting::ours(), Setting::model("threads")] {
        let mut filter = program.clone().under(&VALGRIND).serve(&setting, &socket, &[&address, "quarantine"]);
        converse(connect);
        // Stopped by its own call while a session is open; then, started anew, by a signal.
        let mut open = connect();
        negotiate(&mut open);
        let mut last = connect();
        negotiate(&mut last);
        expect(&mut last, "HELO stop", "CONTINUE");
        let status = filter.process().wait(PATIENCE).expect("it stops");
        assert_clean(&setting, &filter, status);

        let mut filter = program.clone().under(&VALGRIND).serve(&setting, &socket, &[&address, "quarantine"]);
        let mut open = connect();
        negotiate(&mut open);
        filter.process().signal(ctests::Signal::TERM);
        let status = filter.process().wait(PATIENCE).expect("it stops");
        assert_clean(&setting, &filter, status);
    }
}

/// Without this, a valgrind that checks nothing would pass as a clean filter.
#[test]
fn memcheck_finds_what_is_wrong() {
    if !is_installed("memcheck_finds_what_is_wrong") {
        return;
    }
    let directory = TempDir::new();
    for (name, statement) in [("lost", "return malloc(10) == NULL;"), ("read", "char *a = malloc(1); return a[1] & 0;")]
    {
        let source =
            directory.write(format!("{name}.c"), format!("#include <stdlib.h>\nint main(void) {{ {statement} }}\n"));
        let program = Compile::c(Library::ours()).source(&source).flag("-O0").to(directory.join(name));
        let run = Command::new(VALGRIND[0]).args(&VALGRIND[1..]).arg(&program).output().expect("valgrind");
        assert_eq!(run.status.code(), Some(99), "{name}: {}", String::from_utf8_lossy(&run.stderr));
    }
}
