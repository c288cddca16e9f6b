//! Recorded sessions, and the probe that plays them again.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use ctests::{Filter, MtaConnection, Setting, TempDir, opendkim::Signatures};
use milter_probe::{
    Failure, Target,
    replay::{Comparison, Difference, replay},
};
use milter_protocol::record::{Kind, entries};

use crate::{LIMIT, OFFER, assert_accepted, launch, patiently, refusal, stop};

const START: &str = "start opensocket 0\nstart note opened\nstart main\n";
const CHANGES: &str = "callbacks envfrom envrcpt eom\non envrcpt#2 setreply \"550\" \"5.7.1\" \"no\"\n\
                       on envrcpt#2 return REJECT\non eom addheader \"X\" \"y\"\non eom progress\n";

fn started(options: &str, plan: &str, directory: TempDir) -> Filter {
    let filter = launch(&Setting::ours(), options, &format!("{START}{plan}"), directory);
    filter.wait_for("note opened");
    filter
}

fn converse(mut mta: MtaConnection) {
    for command in [OFFER, "HELO h", "MACRO M i=Q1 ; MAIL <a>", "RCPT <b>", "RCPT <c>", "BODY text"] {
        let reply = mta.ask(command);
        assert!(["OPTNEG", "CONTINUE", "REPLYCODE"].iter().any(|start| reply.starts_with(start)), "{reply}");
    }
    assert!(mta.ask("BODYEOB").starts_with("ADDHEADER"));
    assert_eq!([mta.reply(), mta.reply()], ["PROGRESS", "CONTINUE"]);
    assert_eq!(mta.ask("QUIT"), "EOF");
}

/// The only record in a directory, when it has an entry of this kind.
fn record(directory: &Path, kind: Kind) -> (PathBuf, Vec<u8>) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let found: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        if let [path] = &found[..] {
            let octets = fs::read(path).unwrap();
            if entries(&octets).is_ok_and(|entries| entries.iter().any(|entry| entry.kind == kind)) {
                return (path.clone(), octets);
            }
        }
        assert!(Instant::now() < deadline, "{found:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn play(filter: &Filter, octets: &[u8]) -> Result<Comparison, Failure> {
    let stream = Target::Unix(filter.socket()).connect(LIMIT).expect("it listens");
    replay(stream, &entries(octets).unwrap(), LIMIT)
}

#[test]
fn a_session_is_recorded_and_played_again() {
    let records = TempDir::new();
    let option = format!("record={}", records.path().display());
    let mut filter = started(&option, CHANGES, TempDir::new());
    let pid = filter.process().pid();
    converse(patiently(filter.socket().as_path()));
    let (path, octets) = record(records.path(), Kind::End);
    stop(&mut filter);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(name.ends_with(&format!("Z-{pid}-1.milter")), "{name}");

    let entries = entries(&octets).unwrap();
    assert!(entries.is_sorted_by_key(|entry| entry.at));
    let of = |kind| entries.iter().filter(move |entry| entry.kind == kind).flat_map(|entry| entry.octets).copied();
    let sent: Vec<u8> = of(Kind::FromMta).collect();
    assert!(sent.ends_with(b"\0\0\0\x01Q"));
    assert!(sent.windows(9).any(|window| window == b"\0\0\0\x05M<a>\0"));
    assert_eq!(of(Kind::End).collect::<Vec<u8>>(), b"the MTA said quit");
    assert!(of(Kind::FromFilter).collect::<Vec<u8>>().ends_with(b"\0\0\0\x05hX\0y\0\0\0\0\x01p\0\0\0\x01c"));

    let mut same = started("", CHANGES, TempDir::new());
    assert_eq!(play(&same, &octets), Ok(Comparison::Same { commands: 9, replies: 8 }));
    stop(&mut same);
    let mut other = started("", &CHANGES.replace("\"no\"", "\"never\""), TempDir::new());
    let difference = Difference {
        reply: 5,
        command: "rcpt address=\"<c>\" arguments=[]".into(),
        recorded: "smtp-reply text=\"550 5.7.1 no\"".into(),
        now: "smtp-reply text=\"550 5.7.1 never\"".into(),
    };
    assert_eq!(play(&other, &octets), Ok(Comparison::Different(difference)));
    stop(&mut other);
    let mut crashing = started("", "on helo crash\n", TempDir::new());
    let Ok(Comparison::Different(Difference { now, .. })) = play(&crashing, &octets) else { panic!("it lives") };
    assert!(now.starts_with("negotiated"), "other callbacks, other steps: {now}");
    assert!(crashing.process().is_alive());
}

/// Debian's OpenDKIM answers a message of yesterday as it did then.
#[test]
fn opendkim_recorded() {
    let [directory, records] = [TempDir::new(), TempDir::new()];
    let Some(signatures) = Signatures::prepare_or_skip("opendkim_recorded", &directory) else { return };
    let socket = directory.join("opendkim.sock");
    let option = format!("record={}", records.path().display());
    let recorded = signatures.verify(&Setting::ours(), &socket, &option);
    assert_accepted(socket.clone(), "From: <a@example.net>\r\nTo: <b@example.net>\r\n\r\nnot signed\r\n");
    // Who only looked whether it listens has said nothing that could be recorded.
    let (_, octets) = record(records.path(), Kind::End);
    recorded.stop(LIMIT);
    let again = signatures.verify(&Setting::ours(), &socket, "");
    let stream = Target::Unix(socket).connect(LIMIT).expect("it listens");
    let comparison = replay(stream, &entries(&octets).unwrap(), LIMIT);
    assert!(matches!(comparison, Ok(Comparison::Same { replies: 5.., .. })), "{comparison:?}");
    again.stop(LIMIT);
}

/// What led to a crash is on disk, and crashes again.
#[test]
fn a_crash_is_recorded() {
    let records = TempDir::new();
    let option = format!("record={}", records.path().display());
    let mut filter = started(&option, "on helo crash\n", TempDir::new());
    let mut mta = patiently(filter.socket().as_path());
    assert!(mta.ask(OFFER).starts_with("OPTNEG"));
    assert_eq!(mta.ask("HELO h"), "EOF");
    assert!(filter.process().wait(LIMIT).is_some());
    let (_, octets) = record(records.path(), Kind::FromFilter);
    assert!(octets.ends_with(b"\0\0\0\x03Hh\0"));
    let mut again = started("", "on helo crash\n", TempDir::new());
    let comparison = play(&again, &octets);
    assert!(again.process().wait(LIMIT).is_some(), "{comparison:?}");
}

/// Mail goes on without its record, and one message says so.
#[test]
fn a_directory_that_is_removed_keeps_no_mail_waiting() {
    let directory = TempDir::new();
    let records = directory.join("records");
    fs::create_dir(&records).unwrap();
    let mut filter = started(&format!("record={}", records.display()), CHANGES, directory);
    // smfi_main looks for the directory; the record of a session is there before its first reply.
    assert!(patiently(filter.socket().as_path()).ask(OFFER).starts_with("OPTNEG"));
    fs::remove_dir_all(&records).unwrap();
    converse(patiently(filter.socket().as_path()));
    converse_again(&filter);
    stop(&mut filter);
    let told: Vec<String> = filter.lines().into_iter().filter(|line| line.starts_with("log 3 ")).collect();
    assert!(told.len() == 1 && told[0].contains("cannot record into"), "{told:?}");
}

fn converse_again(filter: &Filter) {
    let mut mta = filter.connect();
    assert!(mta.ask(OFFER).starts_with("OPTNEG"));
    assert_eq!(mta.ask("MAIL <a>"), "CONTINUE");
}

#[test]
fn a_directory_that_is_none_keeps_the_filter_from_starting() {
    let line = refusal("record=/nowhere", START, TempDir::new());
    assert!(line.contains("cannot record into /nowhere: No such file"), "{line}");
    let directory = TempDir::new();
    let file = directory.write("file", "");
    let line = refusal(&format!("record={}", file.display()), START, directory);
    assert!(line.contains("Not a directory"), "{line}");
    let line = refusal("record=relative", START, TempDir::new());
    assert!(line.contains("off or the absolute path of a directory"), "{line}");
}
