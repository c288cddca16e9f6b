//! MIMEDefang: the filter, its multiplexor and workers that run a script.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        net::UnixStream,
    },
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ctests::{MailServer, Process, Program, TempDir, mailbag::letter, skip};

use crate::{behind_postfix, behind_sendmail, fate, field, recipients, same_fates};

/// The account that the package makes; the programs refuse to be root.
const ACCOUNT: &str = "defang";

fn account() -> Option<u32> {
    let output = Command::new("id").args(["-u", ACCOUNT]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// Starts the multiplexor; returns when it listens.
fn multiplexor(program: &Program, place: &TempDir, socket: &Path) -> Process {
    let script = place.write("filter.pl", include_str!("mimedefang-filter.pl"));
    let worker = place.write("worker", format!("#!/bin/sh\nexec mimedefang.pl -f {} \"$@\"\n", script.display()));
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).expect("our own");
    let output = fs::File::create(place.join("output")).expect("our own directory");
    let mut command = Command::new(program.path());
    command
        .args(["-D", "-U", ACCOUNT, "-m", "2", "-x", "4", "-f"])
        .arg(worker)
        .arg("-z")
        .arg(place.join("spool"))
        .arg("-s")
        .arg(socket)
        .stdout(output.try_clone().expect("a descriptor"))
        .stderr(output);
    let mut process = Process::spawn(&mut command);
    let deadline = Instant::now() + Duration::from_secs(30);
    while UnixStream::connect(socket).is_err() {
        let output = fs::read_to_string(place.join("output")).unwrap_or_default();
        assert!(process.is_alive() && Instant::now() < deadline, "the multiplexor does not listen: {output}");
        thread::sleep(Duration::from_millis(10));
    }
    process
}

#[test]
fn judges_and_changes_behind_postfix() {
    behind_postfix("mimedefang behind Postfix", judges_and_changes);
}

#[test]
fn judges_and_changes_behind_sendmail() {
    behind_sendmail("mimedefang behind Sendmail", judges_and_changes);
}

fn judges_and_changes(test: &str, mta: &dyn MailServer) {
    let programs = ["mimedefang", "mimedefang-multiplexor"].map(Program::installed);
    let ([Some(filter), Some(daemon)], Some(account)) = (programs, account()) else {
        skip(test, "mimedefang");
        return;
    };
    let place = TempDir::new();
    let spool = place.join("spool");
    fs::create_dir(&spool).expect("a fresh directory");
    fs::set_permissions(&spool, fs::Permissions::from_mode(0o750)).expect("our own");
    chown(&spool, Some(account), None).expect("root may give directories away");
    let multiplexed = spool.join("multiplexor");
    let _daemon = multiplexor(&daemon, &place, &multiplexed);
    let letters = ["bounce", "tempfail", "sender", "quarantine"].map(|word| (word, letter(word)));
    let fates = same_fates(test, mta, &letters, |setting, directory| {
        // The account has to be able to make the socket, and Sendmail to trust the directory.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).expect("our own");
        let socket = directory.join("filter");
        let paths = [&multiplexed, &spool, &socket].map(|path| path.to_str().expect("a path of ours"));
        let words = ["-D", "-U", ACCOUNT, "-m", paths[0], "-z", paths[1], "-p", paths[2], "-r", "-H", "-s", "-t", "-q"];
        filter.serve(setting, &socket, &words)
    });
    assert_eq!(fate(&fates, "bounce").answer, "554 5.7.8 Refused as asked");
    assert_eq!(fate(&fates, "tempfail").answer, "451 4.7.8 Postponed as asked");
    assert!(fate(&fates, "quarantine").answer.ends_with("\nheld"));
    let sender = fate(&fates, "sender").delivery.as_ref().expect("it arrives");
    assert!(sender.sender.starts_with("<keeper@lighthouse.example>"), "{sender:?}");
    assert_eq!(sender.header("Subject"), ["Changed: sender"], "{sender:?}");
    let several = fate(&fates, "several recipients");
    assert!(several.answer.contains("\n550 5.7.9 "), "{several:?}");
    assert!(several.answer.ends_with("The ferry takes no mail"), "{several:?}");
    assert_eq!(recipients(several), ["<archive@harbour.example>", "<otto@harbour.example>"]);
    let unmarked: Vec<_> = field(&fates, "X-Defang-Added").into_iter().filter(|(_, it)| it.len() != 1).collect();
    assert_eq!(unmarked, []);
    let multipart = fate(&fates, "multipart").delivery.as_ref().expect("it arrives");
    assert!(multipart.body().contains("An attachment was dropped."), "{multipart:?}");
}
