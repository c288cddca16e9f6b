//! pymilter, Python's binding, with a script that makes every change.

use std::{process::Command, thread, time::Duration};

use ctests::{
    MailServer, MtaConnection, Postfix, Program, Service, Setting, TempDir,
    comparison::{assert_untroubled, same_with, stop},
    mailbag::{self, RECIPIENT, SENDER, letter},
    skip,
};

use crate::{behind_postfix, behind_sendmail, field, recipients, same_fates};

/// Debian's Python: that is where Debian's module is.
fn python_or_skip(test: &str) -> Option<Program> {
    let python = Program::installed("/usr/bin/python3").filter(|python| {
        let import = Command::new(python.path()).args(["-c", "import Milter"]).output();
        import.is_ok_and(|output| output.status.success())
    });
    if python.is_none() {
        skip(test, "python3-milter");
    }
    python
}

fn serve(python: &Program, kind: &str, setting: &Setting, directory: &TempDir) -> Service {
    let script = directory.write("every_change.py", include_str!("every_change.py"));
    let socket = directory.join("filter");
    let words = [script.to_str().expect("a path of ours"), &format!("unix:{}", socket.display()), kind];
    python.serve(setting, &socket, &words)
}

#[test]
fn every_change_behind_postfix() {
    behind_postfix("pymilter behind Postfix", every_change);
}

#[test]
fn every_change_behind_sendmail() {
    behind_sendmail("pymilter behind Sendmail", every_change);
}

fn every_change(test: &str, mta: &dyn MailServer) {
    let Some(python) = python_or_skip(test) else { return };
    let fates = same_fates(test, mta, &[], |setting, directory| serve(&python, "every-change", setting, directory));
    for fate in &fates {
        let delivery = fate.delivery.as_ref().unwrap_or_else(|| panic!("{fate:?}"));
        assert_eq!(delivery.header("X-Added"), ["at the end"], "{fate:?}");
        assert_eq!(delivery.header("X-Inserted"), ["at the top", "in third place, folded"], "{fate:?}");
        assert_eq!(delivery.header("X-Not-There"), ["now it is"], "{fate:?}");
        assert!(delivery.sender.starts_with("<keeper@lighthouse.example>"), "{fate:?}");
        assert_eq!(recipients(fate), ["<archive@harbour.example>", "<copy@harbour.example>", RECIPIENT], "{fate:?}");
        assert!(delivery.recipients[1].ends_with(" NOTIFY=NEVER"), "{fate:?}");
        let replaced = delivery.body().starts_with("Another body\nin three\npieces ====");
        assert_eq!(replaced, fate.name != "five megabytes", "{fate:?}");
    }
    for (message, saw) in field(&fates, "X-Saw-0") {
        let address = if message == "over IPv6" { " ('::1', " } else { " ('" };
        assert!(saw.concat().starts_with("'connect'") && saw.concat().contains(address), "{message}: {saw:?}");
    }
    assert!(
        fates.iter().any(|fate| fate.answer.contains("550-5.7.1 no mail, 100%\n550 5.7.1 of the time")),
        "{fates:?}"
    );
}

#[test]
fn every_verdict() {
    let test = "pymilter passes every verdict";
    let Some(python) = python_or_skip(test) else { return };
    let Some(postfix) = Postfix::start_or_skip(test, &mailbag::PARAMETERS) else { return };
    let settings = Setting::every_model().into_iter().chain(Setting::reference(test));
    let answers = same_with(settings, test, postfix.sink(), |setting| {
        let filter = serve(&python, "judge", setting, postfix.directory());
        let mut client = postfix.smtp();
        let mut answers = Vec::new();
        for subject in ["accept", "continue", "discard", "reject", "tempfail", "two lines", "quarantine", "exception"] {
            client.envelope(SENDER, &[RECIPIENT]);
            let reply = client.data(&letter(subject));
            let name = reply.queue_id().unwrap_or("NAME");
            match subject {
                "accept" | "continue" => drop(postfix.sink().next()),
                "quarantine" => {
                    postfix.release(name);
                    drop(postfix.sink().next());
                }
                _ => {}
            }
            answers.push(reply.text.replace(name, "NAME"));
        }
        client.expect("QUIT", "221");
        stop(setting, filter);
        answers
    });
    assert_untroubled(test, &postfix);
    let taken = "250 2.0.0 Ok: queued as NAME";
    let refused = "550 5.7.1 Command rejected";
    let postponed = "451 4.7.1 Service unavailable - try again later";
    let lines = "451-4.7.1 first\n451 4.7.1 second";
    let exception = "451 4.3.0 pymilter: untrapped exception in every-change";
    assert_eq!(answers, [taken, taken, taken, refused, postponed, lines, taken, exception]);
}

/// Python ends the threads that come back to it once it goes down, with `pthread_exit`, so every callback that runs
/// then ends its thread: that is no reason for the process to end badly.
#[test]
fn stopped_while_sessions_go_on() {
    let Some(python) = python_or_skip("pymilter is stopped while sessions go on") else { return };
    for setting in Setting::every_model() {
        for _ in 0..5 {
            let directory = TempDir::new();
            let filter = serve(&python, "every-change", &setting, &directory);
            let socket = directory.join("filter");
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let mut mta = MtaConnection::unix(&socket).expect("the filter listens");
                        assert!(mta.ask("OPTNEG 6 1ff 1fffff").starts_with("OPTNEG"));
                        // Not a message: a stop would wait for its end.
                        while mta.ask("HELO client.example") == "CONTINUE" {}
                    });
                }
                thread::sleep(Duration::from_millis(100));
                stop(&setting, filter);
            });
        }
    }
}
