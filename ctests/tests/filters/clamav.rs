//! clamav-milter with a clamd that knows one signature.

use std::{
    os::unix::net::UnixStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ctests::{MailServer, Process, Program, TempDir, mail_server::HOST, mailbag::letter, skip};

use crate::{behind_postfix, behind_sendmail, fate, field, same_fates};

/// What the signature looks for, in messages of any kind.
const VIRUS: &str = "lighthouse-virus-of-a-test";

/// Starts clamd; returns when it answers at `directory`'s `clamd`.
fn clamd(clamd: &Program, directory: &TempDir) -> Process {
    std::fs::create_dir(directory.join("database")).expect("a fresh directory");
    let pattern: String = VIRUS.bytes().map(|octet| format!("{octet:02x}")).collect();
    directory.write("database/test.ndb", format!("Lighthouse.Test:0:*:{pattern}\n"));
    let socket = directory.join("clamd");
    let configuration = format!(
        "Foreground yes\nUser root\nDatabaseDirectory {}\nLocalSocket {}\nTemporaryDirectory {}\n",
        directory.join("database").display(),
        socket.display(),
        directory.path().display()
    );
    let configuration = directory.write("clamd.conf", configuration);
    let output = std::fs::File::create(directory.join("clamd.output")).expect("a fresh directory");
    let mut command = Command::new(clamd.path());
    command.arg("--config-file").arg(configuration).stdout(output.try_clone().expect("a descriptor")).stderr(output);
    let mut process = Process::spawn(&mut command);
    let deadline = Instant::now() + Duration::from_secs(30);
    while UnixStream::connect(&socket).is_err() {
        let output = std::fs::read_to_string(directory.join("clamd.output")).unwrap_or_default();
        assert!(process.is_alive() && Instant::now() < deadline, "clamd does not listen: {output}");
        thread::sleep(Duration::from_millis(10));
    }
    process
}

#[test]
fn finds_viruses_behind_postfix() {
    behind_postfix("clamav-milter behind Postfix", finds_viruses);
}

#[test]
fn finds_viruses_behind_sendmail() {
    behind_sendmail("clamav-milter behind Sendmail", finds_viruses);
}

fn finds_viruses(test: &str, mta: &dyn MailServer) {
    let (Some(filter), Some(daemon)) = (Program::installed("clamav-milter"), Program::installed("clamd")) else {
        skip(test, "clamav-milter and clamav-daemon");
        return;
    };
    let place = TempDir::new();
    let _daemon = clamd(&daemon, &place);
    for (action, answer) in [("Reject", "550 5.7.1 No Lighthouse.Test.UNOFFICIAL here"), ("Quarantine", "\nheld")] {
        let letters =
            [("virus", letter("virus").replace("half past four", VIRUS)), ("afterwards", letter("afterwards"))];
        let fates = same_fates(test, mta, &letters, |setting, directory| {
            let socket = directory.join("filter");
            let configuration = format!(
                "Foreground yes\nUser root\nMilterSocket {}\nClamdSocket unix:{}\nOnInfected {action}\n\
                 RejectMsg No %v here\nAddHeader Replace\nReportHostname {HOST}\nLogSyslog yes\n\
                 SupportMultipleRecipients yes\nTemporaryDirectory {}\n",
                socket.display(),
                place.join("clamd").display(),
                place.path().display()
            );
            let configuration = directory.write("clamav-milter.conf", configuration);
            filter.serve(setting, &socket, &["--config-file", configuration.to_str().expect("a path of ours")])
        });
        assert!(fate(&fates, "virus").answer.ends_with(answer), "{:?}", fate(&fates, "virus"));
        let status = field(&fates, "X-Virus-Status");
        let dirty: Vec<&str> = status.iter().filter(|(_, it)| *it != ["Clean"]).map(|(name, _)| *name).collect();
        let expected: &[&str] = if action == "Reject" { &[] } else { &["virus"] };
        assert_eq!(dirty, expected, "{status:?}");
    }
}
