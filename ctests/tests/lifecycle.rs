//! From smfi_register to the end of the process: registration, start, the surroundings in which
//! programs call smfi_main. The numbers are those of the tables in `ctests/README.md`.

use std::{
    fs,
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::{Command, Stdio},
};

use ctests::{
    Compile, Filter, Library, MtaConnection, PATIENCE, Process, Setting, TempDir, eventually, free_port, is_root, skip,
};

const OFFER: &str = "OPTNEG 6 1ff 1fffff";

/// Runs a plan to its end and returns the record.
fn complete(setting: &Setting, plan: &str) -> Vec<String> {
    complete_in(setting, plan, TempDir::new())
}

fn complete_in(setting: &Setting, plan: &str, directory: TempDir) -> Vec<String> {
    let mut filter = Filter::launch(setting, plan, directory);
    let status = filter.process().wait(PATIENCE);
    assert!(
        status.is_some_and(|status| status.success()),
        "{setting}: {status:?}\n{plan}\n{}\n{}",
        filter.lines().join("\n"),
        filter.output()
    );
    filter.lines()
}

/// The record without log messages.
fn quiet(lines: &[String]) -> Vec<&str> {
    lines.iter().map(String::as_str).filter(|line| !line.starts_with("log ")).collect()
}

fn errors(lines: &[String]) -> usize {
    lines.iter().filter(|line| line.starts_with("log 3 ")).count()
}

fn start_steps(steps: &[&str]) -> String {
    steps.iter().map(|step| format!("start {step}\n")).collect()
}

/// A directory that every user may write to.
fn shared_directory() -> TempDir {
    let directory = TempDir::new();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("our own directory");
    directory
}

#[test]
fn l01_versions_of_register() {
    let refused = ["0", "1", "5", "6", "0x01000100", "0x02000001", "-1"];
    let taken = ["2", "3", "4", "0x01000000", "0x01000002", "0x0100007f", "0x81000001", "0x01800001"];
    for setting in Setting::each("l01_versions_of_register") {
        for (versions, result, logged) in [(&refused[..], "register -1", 1), (&taken[..], "register 0", 0)] {
            let plan: String =
                versions.iter().map(|version| format!("start use-version {version}\nstart register\n")).collect();
            let lines = complete(&setting, &plan);
            assert_eq!(quiet(&lines), vec![result; versions.len()], "{setting}");
            assert_eq!(errors(&lines), logged * versions.len(), "{setting}");
        }
    }
}

#[test]
fn l02_calls_without_context() {
    for setting in Setting::each("l02_calls_without_context") {
        let lines = complete(&setting, "start without-context all\n");
        assert_eq!(lines[..2], ["getpriv NULL", "setpriv -1"], "{setting}");
        assert_eq!(lines.len(), 15, "{setting}");
        let failed = |line: &String| line.ends_with(" -1") || line.ends_with(" NULL");
        assert!(lines.iter().all(failed), "{setting}: {lines:?}");
    }
}

#[test]
fn defect_25_calls_that_crashed() {
    let ours = Setting::ours();
    assert_eq!(complete(&ours, "start without-context setsymlist\n"), ["setsymlist -1"]);
    let lines = complete(&ours, &start_steps(&["setconn $socket", "main"]));
    assert_eq!(quiet(&lines)[0], "setconn 0");
    assert!(quiet(&lines)[1].starts_with("main -1"), "{lines:?}");
}

#[test]
fn defect_40_failed_register() {
    // Nor is a filter left that was registered before.
    for before in [&["setconn $socket"][..], &["setconn $socket", "register"]] {
        let steps = [before, &["use-version 99", "register", "opensocket", "main"]].concat();
        let lines = complete(&Setting::ours(), &start_steps(&steps));
        let after = &quiet(&lines)[before.len()..];
        assert_eq!(after[..2], ["register -1", "opensocket -1"], "{lines:?}");
        assert!(after[2].starts_with("main -1"), "{lines:?}");
        // There is no filter whose name such a message could begin with.
        assert!(lines.iter().any(|line| line.starts_with("log 3 \"smfi_opensocket: no filter: ")), "{lines:?}");
    }
}

#[test]
fn d16_register_again_and_again() {
    for setting in Setting::each("d16_register_again_and_again") {
        let plan = start_steps(&[
            "use-version 99",
            "register",
            "use-version 2",
            "register",
            "use-version 0x01000001",
            "register",
            "setconn $socket",
            "opensocket",
            "main",
        ]) + "callbacks close negotiate\n";
        let filter = Filter::launch(&setting, &plan, TempDir::new());
        filter.wait_for("opensocket 0");
        assert!(filter.connect().ask(OFFER).starts_with("OPTNEG"), "{setting}");
        filter.wait_for("negotiate");
        let lines = filter.lines();
        assert_eq!(quiet(&lines)[..3], ["register -1", "register 0", "register 0"], "{setting}");
    }
}

#[test]
fn setters_check_their_arguments() {
    for setting in Setting::each("setters_check_their_arguments") {
        let lines = complete(
            &setting,
            &start_steps(&[
                "setconn NULL",
                "setconn \"\"",
                "opensocket",
                "register",
                "opensocket",
                "main",
                "setbacklog 0",
                "setbacklog -1",
                "setbacklog 1",
                "settimeout -5",
                "settimeout 2147483647",
                "setdbg -1",
                "setdbg 0",
                "setmaxdatasize 100",
                "setmaxdatasize 65535",
                "version",
                "stop",
            ]),
        );
        let expected = [
            "setconn -1",
            "setconn -1",
            "opensocket -1",
            "register 0",
            "opensocket -1",
            "main -1",
            "setbacklog -1",
            "setbacklog -1",
            "setbacklog 0",
            "settimeout 0",
            "settimeout 0",
            "setdbg 0",
            "setdbg 0",
            "setmaxdatasize 65535",
            "setmaxdatasize 100",
            "version 0 1.0.1",
            "version of nothing 0",
            "stop 0",
        ];
        // What errno says about a call out of order is not defined.
        let lines: Vec<&str> =
            quiet(&lines).into_iter().map(|line| line.split(" errno").next().unwrap_or(line)).collect();
        assert_eq!(lines, expected, "{setting}");
    }
}

#[test]
fn d19_calls_in_other_orders() {
    let orders = [
        ["register", "settimeout 60", "setbacklog 5", "setdbg 0", "setconn $socket", "main"],
        ["settimeout 60", "setdbg 0", "setconn $socket", "setbacklog 5", "register", "main"],
    ];
    for setting in Setting::each("d19_calls_in_other_orders") {
        for order in orders {
            let mut filter = Filter::launch(&setting, &start_steps(&order), TempDir::new());
            filter.wait_for(order[4].split(' ').next().expect("a step has a name"));
            assert_eq!(connect_patiently(&filter).ask(OFFER), "OPTNEG 6 1ff 0", "{setting}");
            assert!(filter.process().is_alive(), "{setting}");
        }
    }
}

/// Connects to the usual socket of a filter that opens it in smfi_main.
#[track_caller]
fn connect_patiently(filter: &Filter) -> MtaConnection {
    MtaConnection::patiently(|| MtaConnection::unix(filter.socket()))
}

#[test]
fn l09_d21_fork_between_opensocket_and_main() {
    for setting in Setting::each("l09_d21_fork_between_opensocket_and_main") {
        let plan = start_steps(&["setconn $socket", "register", "opensocket", "threads", "fork", "main"]);
        let filter = Filter::launch(&setting, &plan, TempDir::new());
        filter.wait_for("threads 1");
        let mut mta = filter.connect();
        assert!(mta.ask(OFFER).starts_with("OPTNEG"), "{setting}");
        assert_eq!(mta.ask("HELO h"), "CONTINUE", "{setting}");
    }
}

#[test]
fn d27_one_worker_after_another() {
    for setting in Setting::each("d27_one_worker_after_another") {
        let plan =
            start_steps(&["setconn $socket", "register", "opensocket", "supervise 3", "main"]) + "on helo exit 3\n";
        let mut filter = Filter::launch(&setting, &plan, TempDir::new());
        filter.wait_for("opensocket 0");
        for _ in 0..3 {
            let mut mta = filter.connect();
            assert!(mta.ask(OFFER).starts_with("OPTNEG"), "{setting}");
            assert_eq!(mta.ask("HELO h"), "EOF", "{setting}");
        }
        assert!(filter.process().wait(PATIENCE).is_some(), "{setting}");
        let ended = filter.lines().iter().filter(|line| *line == "child ended 3").count();
        assert_eq!(ended, 3, "{setting}");
    }
}

#[test]
fn d20_all_descriptors_closed_before_main() {
    for setting in Setting::each("d20_all_descriptors_closed_before_main") {
        let plan = start_steps(&[
            "setconn $socket",
            "register",
            "settimeout 9",
            "setbacklog 5",
            "threads",
            "descriptors",
            "close-all",
            "note closed",
            "main",
        ]);
        let filter = Filter::launch(&setting, &plan, TempDir::new());
        filter.wait_for("note closed");
        let lines = filter.lines();
        assert!(lines.contains(&"threads 1".to_owned()), "{setting}: {lines:?}");
        assert!(lines.contains(&"descriptors 0 1 2".to_owned()), "{setting}: {lines:?}");
        let mut mta = connect_patiently(&filter);
        assert!(mta.ask(OFFER).starts_with("OPTNEG"), "{setting}");
        assert_eq!(mta.ask("HELO h"), "CONTINUE", "{setting}");
    }
}

#[test]
fn opensocket_leaves_one_descriptor_and_no_thread() {
    for setting in Setting::each("opensocket_leaves_one_descriptor_and_no_thread") {
        let plan = start_steps(&["setconn $socket", "register", "opensocket", "threads", "descriptors", "signals"]);
        let lines = complete(&setting, &plan);
        let expected = ["threads 1", "descriptors 0 1 2 3", "signals blocked:, PIPE not ignored"];
        assert_eq!(quiet(&lines)[3..], expected, "{setting}");
    }
}

#[test]
fn d23_umask_decides_the_mode_of_the_socket() {
    for setting in Setting::each("d23_umask_decides_the_mode_of_the_socket") {
        for (umask, mode) in [("0777", 0), ("0117", 0o660), ("0", 0o777)] {
            let steps = [&format!("umask {umask}"), "setconn $socket", "register", "opensocket", "sleep 60000"];
            let filter = Filter::launch(&setting, &start_steps(&steps), TempDir::new());
            filter.wait_for("opensocket 0");
            let metadata = fs::symlink_metadata(filter.socket()).expect("the socket exists");
            assert_eq!(metadata.permissions().mode() & 0o777, mode, "{setting} umask {umask}");
        }
    }
}

#[test]
fn d24_the_description_is_the_caller_s() {
    for setting in Setting::each("d24_the_description_is_the_caller_s") {
        for description in ["$socket", "local:sock", ":sock2", "sock3"] {
            let plan = start_steps(&[&format!("setconn {description}"), "register", "opensocket"]);
            let lines = complete(&setting, &plan);
            assert_eq!(quiet(&lines), ["setconn 0", "register 0", "opensocket 0"], "{setting} {description}");
        }
    }
}

#[test]
fn d26_chroot_before_main() {
    if !is_root() {
        return skip("d26_chroot_before_main", "root");
    }
    for setting in Setting::each("d26_chroot_before_main") {
        let directory = TempDir::new();
        fs::create_dir(directory.join("jail")).expect("our own directory");
        let plan = start_steps(&["setconn unix:/inside", "register", "chroot jail", "note in", "main"]);
        let filter = Filter::launch(&setting, &plan, directory);
        filter.wait_for("note in");
        let inside = filter.directory().join("jail/inside");
        let mut mta = MtaConnection::patiently(|| MtaConnection::unix(&inside));
        assert!(mta.ask(OFFER).starts_with("OPTNEG"), "{setting}");
    }
}

#[test]
fn d17_descriptors_of_old_headers() {
    let test = "d17_descriptors_of_old_headers";
    let expected = [("2", "CONTINUE", "CONTINUE"), ("3", "REJECT", "CONTINUE"), ("4", "REJECT", "TEMPFAIL")];
    for library in Library::both(test) {
        for optimisation in ["-O0", "-O2"] {
            let directory = TempDir::new();
            let program = Compile::c(library)
                .source("ctests/filters/old_descriptor.c")
                .flag(optimisation)
                .flag("-std=gnu89")
                .to(directory.join("old"));
            for (version, unknown, data) in expected {
                let socket = directory.join(format!("socket{version}"));
                let mut command = Command::new(&program);
                command.arg(version).arg(format!("unix:{}", socket.display())).stdout(Stdio::piped());
                let mut process = Process::spawn(&mut command);
                let mut ready = [0; 6];
                let output = process.child().stdout.as_mut().expect("asked for");
                output.read_exact(&mut ready).expect("the filter starts");
                process.assert_uses(library);
                let mut mta = MtaConnection::unix(&socket).expect("a listening filter");
                assert!(mta.ask(OFFER).starts_with("OPTNEG"));
                assert_eq!(mta.ask("HELO h"), "CONTINUE");
                assert_eq!(mta.ask("UNKNOWN x"), unknown, "{} {version}", library.origin());
                assert_eq!(mta.ask("MAIL <a>"), "CONTINUE");
                assert_eq!(mta.ask("RCPT <b>"), "CONTINUE");
                assert_eq!(mta.ask("DATA"), data, "{} {version}", library.origin());
                drop(mta);
                assert!(process.is_alive());
            }
        }
    }
}

#[test]
fn l10_socket_file_after_a_stop() {
    let test = "l10_socket_file_after_a_stop";
    if !is_root() {
        skip(test, "root");
    }
    for setting in Setting::each(test) {
        let mut users = vec![("setuid 65534", false)];
        if is_root() {
            users.push(("note root", true));
        } else {
            users[0].0 = "note user";
        }
        for (user, stays) in users {
            let plan = start_steps(&[user, "setconn $socket", "register", "opensocket", "main"]);
            let mut filter = Filter::launch(&setting, &plan, shared_directory());
            filter.wait_for("opensocket 0");
            let answered = filter.connect().ask(OFFER);
            assert!(answered.starts_with("OPTNEG"), "{setting}");
            filter.process().signal(ctests::Signal::TERM);
            assert!(filter.process().wait(PATIENCE).is_some(), "{setting}");
            assert_eq!(filter.socket().exists(), stays, "{setting}, {user}");
        }
    }
}

#[test]
fn l08_tcp_descriptor_that_does_not_listen() {
    for setting in Setting::each("l08_tcp_descriptor_that_does_not_listen") {
        let port = free_port();
        let plan =
            start_steps(&[&format!("descriptor 9 inet {port}"), "setconn fd:9", "register", "opensocket", "main"]);
        let filter = Filter::launch(&setting, &plan, TempDir::new());
        filter.wait_for("opensocket 0");
        let mut mta = MtaConnection::tcp("127.0.0.1", port).expect("a listening filter");
        assert!(mta.ask(OFFER).starts_with("OPTNEG"), "{setting}");
    }
}

#[test]
fn debug_output_tells_commands_transitions_and_ends() {
    for setting in [Setting::ours(), Setting::model("threads")] {
        let plan = "start setdbg 6\nstart setconn $socket\nstart register\nstart opensocket\nstart main\n";
        let mut filter = Filter::launch(&setting, plan, TempDir::new());
        assert_eq!(filter.wait_for("opensocket"), "opensocket 0", "{setting}");
        let mut mta = filter.connect();
        assert!(mta.ask(OFFER).starts_with("OPTNEG"));
        assert_eq!(mta.ask("HELO h"), "CONTINUE");
        assert_eq!(mta.ask("RCPT <b>"), "EOF");
        filter.process().signal(rustix::process::Signal::TERM);
        assert!(filter.process().wait(PATIENCE).is_some());
        let output = filter.output();
        for line in [
            "[1] got cmd 'O' len 12",
            "[1] cur 0 new 1 nextmask 2",
            "[1] milter_negotiate: mta_actions=0x1ff, mta_flags=0x1fffff, actions=0x1ff, flags=0x0",
            "[1] got cmd 'H' len 2",
            "[1] RCPT: abort: cur 3 (0x8) new 5 (0x20) next 0x18",
        ] {
            assert!(output.lines().any(|printed| printed == line), "{setting}: {line}\n{output}");
        }
    }
}

/// The ways in which a callback can reach the library: itself, in a thread of its own, in a child.
const WAYS: [&str; 3] = ["", "later 0 ", "in-child "];

/// A filter that runs, and a session with it. The steps run in HELO.
fn running(setting: &Setting, steps: &[String]) -> (Filter, MtaConnection) {
    let plan = start_steps(&["setconn $socket", "register", "opensocket", "main"])
        + &steps.iter().map(|step| format!("on helo#1 {step}\n")).collect::<String>();
    let filter = Filter::launch(setting, &plan, TempDir::new());
    filter.wait_for("opensocket 0");
    let mut mta = filter.connect();
    assert!(mta.ask(OFFER).starts_with("OPTNEG"), "{setting}");
    (filter, mta)
}

/// What a program sets for a run does not change the one in progress: its socket stays, and is served on.
#[test]
fn settings_during_a_run_leave_it_alone() {
    let test = "settings_during_a_run_leave_it_alone";
    // Another description makes no difference to a socket that is open.
    let calls = ["opensocket 0", "setbacklog 1", "setdbg 6", "settimeout 1", "setconn other", "opensocket 1"];
    for setting in Setting::every_model().into_iter().chain(Setting::reference(test)) {
        for way in WAYS {
            let (mut filter, mut mta) = running(&setting, &calls.map(|call| format!("{way}{call}")));
            let inode = || fs::symlink_metadata(filter.socket()).map(|socket| socket.ino()).ok();
            let before = inode();
            assert_eq!(mta.ask("HELO h"), "CONTINUE", "{setting} {way}");
            let succeeded = || {
                let lines = filter.lines();
                let count = |result: &str| lines.iter().filter(|line| *line == result).count();
                // The socket was set and opened once before.
                let others = ["setbacklog 0", "setdbg 0", "settimeout 0"].map(count);
                (count("opensocket 0"), count("setconn 0"), others) == (3, 2, [1; 3])
            };
            eventually(format_args!("{setting} {way}"), succeeded);
            assert_eq!(inode(), before, "{setting} {way}");
            assert!(!filter.directory().join("other").exists(), "{setting} {way}");
            for _ in 0..4 {
                assert!(filter.connect().ask(OFFER).starts_with("OPTNEG"), "{setting} {way}");
            }
            assert_eq!(errors(&filter.lines()), 0, "{setting} {way}: {:?}", filter.lines());
            assert!(filter.process().is_alive(), "{setting} {way}");
        }
    }
}

/// The filter of a run is the one that was registered before it, in open sessions and new ones.
#[test]
fn register_during_a_run_is_for_the_next() {
    for setting in Setting::every_model() {
        for way in WAYS {
            let steps = ["use-version 2".to_owned(), format!("{way}register"), "note called".to_owned()];
            let (filter, mut mta) = running(&setting, &steps);
            assert_eq!(mta.ask("HELO h"), "CONTINUE", "{setting} {way}");
            filter.wait_for("note called");
            let registered = || filter.lines().iter().filter(|line| *line == "register 0").count() == 2;
            eventually(format_args!("{setting} {way}register"), registered);
            // A filter of version 2 is not asked about unknown commands.
            assert_eq!(mta.ask("HELO again"), "CONTINUE", "{setting} {way}");
            assert!(filter.connect().ask(OFFER).starts_with("OPTNEG"), "{setting} {way}");
            assert_eq!(errors(&filter.lines()), 0, "{setting} {way}: {:?}", filter.lines());
        }
    }
}

/// A stop ahead of the run: smfi_main ends at once and leaves the socket as a stop during the run does.
#[test]
fn difference_stop_between_opensocket_and_main() {
    let test = "difference_stop_between_opensocket_and_main";
    let users: &[(&str, bool)] = if is_root() {
        &[("note root", true), ("setuid 65534", false)]
    } else {
        skip(test, "root");
        &[("note user", false)]
    };
    for setting in Setting::every_model().into_iter().chain(Setting::reference(test)) {
        for &(user, stays) in users {
            let steps = [user, "setconn $socket", "register", "opensocket", "stop", "main", "note over"];
            let lines = complete_and_look(&setting, &start_steps(&steps), stays);
            // The reference has closed its socket, whose file is in the way of another one.
            let fails = setting.library.origin() == ctests::Origin::Reference && stays;
            let expected = if fails { "main -1 errno set" } else { "main 0 errno 0" };
            assert!(lines.iter().any(|line| line == expected), "{setting} {user}: {lines:?}");
        }
    }
}

/// Runs a plan to its end in a directory that every user may write to. Says whether the socket is there afterwards.
fn complete_and_look(setting: &Setting, plan: &str, stays: bool) -> Vec<String> {
    let mut filter = Filter::launch(setting, plan, shared_directory());
    let status = filter.process().wait(PATIENCE);
    assert!(status.is_some_and(|status| status.success()), "{setting}: {status:?} {:?}", filter.lines());
    assert_eq!(filter.socket().exists(), stays, "{setting}: {:?}", filter.lines());
    filter.lines()
}

/// A line of the log is one line of visible text, whatever the names in it are.
#[test]
fn names_cannot_change_what_the_log_shows() {
    let plan = "name \"f\\x1b[2J\\n\\xe2\\x80\\xae\"\nstart setconn \"inet:1@h\\x0d\\xe2\\x80\\xae\"\nstart register\nstart opensocket\n";
    let lines = complete(&Setting::ours(), plan);
    let error = lines.iter().find(|line| line.starts_with("log 3 ")).expect("no such host");
    // The record escapes backslashes.
    assert!(error.contains(r"f\\u{1b}[2J\\n\\u{202e}: Unable to create"), "{error}");
    assert!(error.contains(r"unknown host name h\\r\\u{202e}"), "{error}");
}
