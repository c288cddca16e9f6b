//! Socket descriptions and socket files.

use std::{
    fs,
    net::TcpListener,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixListener,
    },
    time::{Duration, Instant},
};

use ctests::{Filter, MtaConnection, Setting, Signal, TempDir, free_port, is_free, is_root, skip};

const OFFER: &str = "OPTNEG 6 1ff 1fffff";
const LIMIT: Duration = ctests::PATIENCE;

fn opening(description: &str, remove: &str) -> String {
    format!("start setconn {description}\nstart register\nstart opensocket {remove}\n")
}

/// Runs a plan to its end and returns the record without log messages, and the number of errors.
fn complete(setting: &Setting, plan: &str, directory: TempDir) -> (Vec<String>, usize) {
    let mut filter = Filter::launch(setting, plan, directory);
    let status = filter.process().wait(LIMIT);
    assert!(
        status.is_some_and(|status| status.success()),
        "{setting}: {status:?}\n{plan}\n{}\n{}",
        filter.lines().join("\n"),
        filter.output()
    );
    let (logs, calls): (Vec<_>, Vec<_>) = filter.lines().into_iter().partition(|line| line.starts_with("log "));
    (calls, logs.iter().filter(|line| line.starts_with("log 3 ")).count())
}

#[test]
fn l03_longest_path() {
    for setting in Setting::each("l03_longest_path") {
        for (length, result) in [(106, "opensocket 0"), (107, "opensocket -1")] {
            let directory = TempDir::new();
            let start = directory.join("").to_str().expect("an UTF-8 path").to_owned();
            let path = format!("{start}{}", "p".repeat(length - start.len()));
            let (calls, errors) = complete(&setting, &opening(&format!("unix:{path}"), "0"), directory);
            assert_eq!(calls[2], result, "{setting} {length}");
            assert_eq!(errors > 0, result == "opensocket -1", "{setting} {length}");
        }
    }
}

#[test]
fn l04_spellings_of_the_loopback_address() {
    let has_inet6 = TcpListener::bind("[::1]:0").is_ok();
    if !has_inet6 {
        skip("l04_spellings_of_the_loopback_address (inet6)", "an IPv6 loopback address");
    }
    let inet = [
        "INET:PORT@127.0.0.1",
        "inet:PORT@localhost",
        "inet:PORT@[127.0.0.1]",
        "inet:PORT@[127.1]",
        "inet:PORT",
        "inet:PORTabc@127.0.0.1",
    ];
    let inet6 = ["inet6:PORT@[::1]", "inet6:PORT@[IPv6:::1]", "inet6:PORT@::1", "Inet6:PORT"];
    for setting in Setting::each("l04_spellings_of_the_loopback_address") {
        let inet6 = inet6.iter().filter(|_| has_inet6).map(|description| (*description, "::1"));
        for (description, host) in inet.iter().map(|description| (*description, "127.0.0.1")).chain(inet6) {
            let port = free_port();
            let description = description.replace("PORT", &port.to_string());
            let filter = Filter::launch(&setting, &(opening(&description, "0") + "start main\n"), TempDir::new());
            filter.wait_for("opensocket 0");
            let mut mta =
                MtaConnection::tcp(host, port).unwrap_or_else(|error| panic!("{setting} {description}: {error}"));
            assert!(mta.ask(OFFER).starts_with("OPTNEG"), "{setting} {description}");
        }
    }
}

#[test]
fn l04_service_name() {
    if !is_free(465) {
        return skip("l04_service_name", "permission to bind port 465 (smtps), and nobody else on it");
    }
    if !fs::read_to_string("/etc/services").is_ok_and(|services| {
        services.lines().any(|line| {
            line.split_whitespace().next() == Some("submissions") || line.split_whitespace().any(|w| w == "smtps")
        })
    }) {
        return skip("l04_service_name", "/etc/services with smtps (netbase)");
    }
    for setting in Setting::each("l04_service_name") {
        let (calls, _) = complete(&setting, &opening("inet:smtps@127.0.0.1", "0"), TempDir::new());
        assert_eq!(calls[2], "opensocket 0", "{setting}");
    }
}

#[test]
fn l05_descriptions_that_are_none() {
    let descriptions = [
        "inet:PORT@[127.0.0.1",
        "inet:PORT@[localhost]",
        "inet6:PORT@[127.0.0.1]",
        "inet:PORT@",
        "inet:",
        "\"inet: PORT@127.0.0.1\"",
        "inet:-5@127.0.0.1",
        "inet:PORT@::1",
        "fd:abc",
        "fd:-1",
        "fd:3x",
        "fd:99",
        "inet:PORT@[255.255.255.255]",
        "inet:no-such-service@127.0.0.1",
    ];
    for setting in Setting::each("l05_descriptions_that_are_none") {
        for description in descriptions {
            let description = description.replace("PORT", &free_port().to_string());
            let plan = opening(&description, "0") + "start main\n";
            // The reference listens on a file named "inet" in its second attempt with some of these.
            if setting.library.origin() == ctests::Origin::Reference && description.contains("no-such") {
                continue;
            }
            let (calls, errors) = complete(&setting, &plan, TempDir::new());
            assert_eq!(calls[2], "opensocket -1", "{setting} {description}");
            assert!(calls[3].starts_with("main -1"), "{setting} {description}: {calls:?}");
            assert!(errors > 0, "{setting} {description} fails without a message");
        }
    }
}

#[test]
fn l06_defect_41_unknown_kind_of_socket() {
    let plan = opening("foo:/x", "0") + "start main\n";
    let directory = TempDir::new();
    let mut filter = Filter::launch(&Setting::ours(), &plan, directory);
    assert!(filter.process().wait(LIMIT).is_some(), "{}", filter.lines().join("\n"));
    let lines = filter.lines();
    assert!(lines.contains(&"opensocket -1".to_owned()), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("main -1")), "{lines:?}");
    assert!(!filter.directory().join("foo").exists());
}

#[test]
fn defect_42_descriptions_that_mean_something_else() {
    let ours = Setting::ours();
    for description in ["unix:", "local:", "fd:", "inet:99999@127.0.0.1"] {
        let (calls, errors) = complete(&ours, &(opening(description, "0") + "start main\n"), TempDir::new());
        assert_eq!(calls[2], "opensocket -1", "{description}");
        assert!(calls[3].starts_with("main -1"), "{description}: {calls:?}");
        assert!(errors > 0, "{description} fails without a message");
    }
}

#[test]
fn defect_42_a_descriptor_of_the_caller_stays_open() {
    // Descriptor 1 is a regular file, on which listen(2) fails.
    let plan = opening("fd:1", "0") + "start descriptors\n";
    let (calls, _) = complete(&Setting::ours(), &plan, TempDir::new());
    assert_eq!(calls[2..], ["opensocket -1", "descriptors 0 1 2"]);
}

#[test]
fn l07_stale_socket_files() {
    for setting in Setting::each("l07_stale_socket_files") {
        let stale = || {
            let directory = TempDir::new();
            directory.stale_socket("socket");
            directory
        };
        let regular = || {
            let directory = TempDir::new();
            directory.write("socket", "mail");
            directory
        };
        let main = "start setconn $socket\nstart register\nstart main\n";
        let (calls, errors) = complete(&setting, main, stale());
        assert!(calls[2].starts_with("main -1") && errors > 0, "{setting}: {calls:?}");
        for (remove, directory, result) in [
            ("1", stale(), "0"),
            ("256", stale(), "-1"),
            ("0", stale(), "-1"),
            ("257", stale(), "0"),
            ("1", TempDir::new(), "0"),
            ("1", regular(), "-1"),
        ] {
            let (calls, _) = complete(&setting, &opening("$socket", remove), directory);
            assert_eq!(calls[2], format!("opensocket {result}"), "{setting} opensocket({remove})");
        }
    }
}

#[test]
fn opensocket_twice() {
    for setting in Setting::each("opensocket_twice") {
        let plan = opening("$socket", "0") + "start setconn inet:nowhere@\nstart opensocket 1\n";
        let (calls, _) = complete(&setting, &plan, TempDir::new());
        assert_eq!(calls[2..], ["opensocket 0", "setconn 0", "opensocket 0"], "{setting}");
    }
}

/// A path that is taken stays what it is.
#[test]
fn a_regular_file_is_not_removed() {
    for setting in Setting::each("a_regular_file_is_not_removed") {
        let directory = TempDir::new();
        let file = directory.write("socket", "mail");
        let mut filter = Filter::launch(&setting, &opening("$socket", "1"), directory);
        assert!(filter.process().wait(LIMIT).is_some());
        assert_eq!(fs::read_to_string(file).expect("still there"), "mail", "{setting}");
    }
}

#[test]
fn l08_unix_descriptor_and_its_file() {
    for setting in Setting::each("l08_unix_descriptor_and_its_file") {
        let directory = TempDir::new();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("our own directory");
        let path = directory.join("given");
        let plan =
            format!("start descriptor 9 unix {} listening\n", path.display()) + &opening("fd:9", "0") + "start main\n";
        let mut filter = Filter::launch(&setting, &plan, directory);
        filter.wait_for("opensocket 0");
        let mut mta = MtaConnection::unix(&path).expect("a listening filter");
        assert!(mta.ask(OFFER).starts_with("OPTNEG"), "{setting}");
        drop(mta);
        filter.process().signal(Signal::TERM);
        assert!(filter.process().wait(LIMIT).is_some(), "{setting}");
        assert!(fs::symlink_metadata(&path).is_ok_and(|file| file.file_type().is_socket()), "{setting}");
    }
}

/// Filters unlink the file themselves before the end.
#[test]
fn d25_socket_file_that_has_gone() {
    for setting in Setting::each("d25_socket_file_that_has_gone") {
        let mut filter = Filter::launch(&setting, &(opening("$socket", "0") + "start main\n"), TempDir::new());
        filter.wait_for("opensocket 0");
        assert!(filter.connect().ask(OFFER).starts_with("OPTNEG"), "{setting}");
        fs::remove_file(filter.socket()).expect("the socket exists");
        filter.process().signal(Signal::TERM);
        assert!(filter.process().wait(LIMIT).is_some_and(|status| status.success()), "{setting}");
        assert_eq!(filter.wait_for("main"), "main 0 errno 0", "{setting}");
    }
}

/// A relative path is relative to the directory at the time of opening.
#[test]
fn relative_path() {
    for setting in Setting::each("relative_path") {
        let directory = TempDir::new();
        fs::create_dir(directory.join("elsewhere")).expect("our own directory");
        let plan =
            "start setconn local:here\nstart register\nstart chdir elsewhere\nstart opensocket\nstart sleep 60000\n";
        let filter = Filter::launch(&setting, plan, directory);
        filter.wait_for("opensocket 0");
        assert!(filter.directory().join("elsewhere/here").exists(), "{setting}");
    }
}

/// At the end only the socket that the filter made is removed, not one that has taken its place.
#[test]
fn defect_46_a_socket_of_somebody_else() {
    for setting in [Setting::ours(), Setting::model("threads")] {
        let directory = TempDir::new();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("our own directory");
        // Root's files stay anyway.
        let user = if is_root() { "start setuid 65534\n" } else { "" };
        let plan = format!("{user}{}start main\n", opening("$socket", "0"));
        let mut filter = Filter::launch(&setting, &plan, directory);
        filter.wait_for("opensocket 0");
        assert!(filter.connect().ask(OFFER).starts_with("OPTNEG"), "{setting}");
        fs::remove_file(filter.socket()).expect("the socket exists");
        let _other = UnixListener::bind(filter.socket()).expect("the path is free");
        filter.process().signal(Signal::TERM);
        assert!(filter.process().wait(LIMIT).is_some_and(|status| status.success()), "{setting}");
        assert!(filter.socket().exists(), "{setting}");
    }
}

/// Small packets in both directions do not wait for each other's acknowledgement.
#[test]
fn defect_23_messages_over_tcp_are_quick() {
    for setting in [Setting::ours(), Setting::model("threads")] {
        let port = free_port();
        let plan = opening(&format!("inet:{port}@127.0.0.1"), "0")
            + "start main\non eom addheader \"X\" \"y\"\non eom progress\non eom delrcpt \"<b>\"\n";
        let filter = Filter::launch(&setting, &plan, TempDir::new());
        filter.wait_for("opensocket 0");
        let mut mta = MtaConnection::tcp("127.0.0.1", port).expect("a listening filter");
        assert!(mta.ask(OFFER).starts_with("OPTNEG"), "{setting}");
        let mut times = [Duration::ZERO; 20];
        for time in &mut times {
            let start = Instant::now();
            for command in ["MAIL <a>", "RCPT <b>"] {
                assert_eq!(mta.ask(command), "CONTINUE", "{setting}");
            }
            assert_eq!(mta.ask("BODYEOB"), "ADDHEADER \"X\" \"y\"", "{setting}");
            for reply in ["PROGRESS", "DELRCPT \"<b>\"", "CONTINUE"] {
                assert_eq!(mta.reply(), reply, "{setting}");
            }
            *time = start.elapsed();
        }
        // A delayed acknowledgement takes 40 milliseconds, and each of them would wait for one.
        let quickest = times.iter().min();
        assert!(quickest < Some(&Duration::from_millis(30)), "{setting}: {times:?}");
    }
}
