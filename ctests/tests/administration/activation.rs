//! Sockets from a service manager: systemd-socket-activate starts the filter with the first connection.

use std::{path::Path, time::Duration};

use ctests::{Filter, MtaConnection, Setting, Surroundings, TempDir, free_port, skip};

use crate::{assert_negotiates, patiently, stop};

const LAUNCHER: &str = "/usr/bin/systemd-socket-activate";

/// A filter that starts when somebody connects to one of these sockets; `None` where there is no systemd.
fn activated(
    setting: &Setting,
    options: &str,
    sockets: &[&str],
    names: &str,
    plan: &str,
    directory: TempDir,
) -> Option<Filter> {
    if !Path::new(LAUNCHER).exists() {
        skip("activation", "systemd-socket-activate (systemd)");
        return None;
    }
    let mut wrapper = vec![LAUNCHER.to_owned(), "--setenv=LIBMILTER_OPTIONS".into()];
    wrapper.extend(sockets.iter().map(|socket| format!("--listen={socket}")));
    wrapper.extend((!names.is_empty()).then(|| format!("--fdname={names}")));
    // Set, if empty, so that there is something to pass on.
    let options = if options.is_empty() { "," } else { options };
    let surroundings = Surroundings { options: options.to_owned(), wrapper, ..Surroundings::default() };
    Some(Filter::launch_with(setting, &surroundings, plan, directory))
}

/// The filter's own description is the address of the socket that is passed.
#[test]
fn a_description_that_means_a_passed_socket() {
    for setting in [Setting::ours(), Setting::model("threads")] {
        // It asks for the removal of the socket in the way, which is not in the way.
        let plan = "start setconn $socket\nstart register\nstart opensocket 1\nstart main\n";
        let directory = TempDir::new();
        let socket = directory.join("socket");
        let path = socket.to_str().expect("a path of ours");
        let Some(mut filter) = activated(&setting, "socket-remove=yes", &[path], "", plan, directory) else { return };
        assert_negotiates(patiently(&socket));
        assert_negotiates(patiently(&socket));
        stop(&mut filter);
        assert!(socket.exists(), "{setting}: it is the service manager's");
    }
}

#[test]
fn addresses_that_mean_a_passed_socket() {
    for (passed, description) in
        [("127.0.0.1:PORT", "inet:PORT@127.0.0.1"), ("PORT", "inet:PORT"), ("PORT", "inet6:PORT")]
    {
        let port = free_port().to_string();
        let plan = format!(
            "start setconn {}\nstart register\nstart opensocket 0\nstart main\n",
            description.replace("PORT", &port)
        );
        let passed = passed.replace("PORT", &port);
        let Some(mut filter) = activated(&Setting::ours(), "", &[&passed], "", &plan, TempDir::new()) else { return };
        let port = port.parse().expect("a port");
        for _ in 0..2 {
            assert_negotiates(MtaConnection::patiently(|| MtaConnection::tcp("127.0.0.1", port)));
        }
        stop(&mut filter);
    }
}

/// By number, by name, and all that were passed; what is named twice is served once.
#[test]
fn passed_sockets_by_name() {
    for (connection, options, served) in [
        ("fd:3", "", "a"),
        ("fd:second", "", "b"),
        ("fd:first", "listen=fd:second", "ab"),
        ("fd:*", "", "abc"),
        ("fd:4", "listen=fd:*", "abc"),
    ] {
        let directory = TempDir::new();
        let paths = ["a", "b", "c"].map(|name| directory.join(name));
        let sockets = paths.each_ref().map(|path| path.to_str().expect("a path of ours"));
        let plan = format!("start setconn {connection}\nstart register\nstart opensocket 0\nstart main\n");
        let names = "first:second:third";
        let Some(mut filter) = activated(&Setting::ours(), options, &sockets, names, &plan, directory) else { return };
        let mut sessions: Vec<MtaConnection> = paths.iter().map(|path| patiently(path)).collect();
        filter.wait_for("opensocket 0");
        for (name, mta) in ["a", "b", "c"].into_iter().zip(&mut sessions) {
            if served.contains(name) {
                assert!(mta.ask(crate::OFFER).starts_with("OPTNEG"), "{connection}, {options}: {name}");
            } else {
                mta.command(crate::OFFER);
                let reply = mta.receive(Duration::from_millis(50)).to_string();
                assert!(!reply.starts_with("OPTNEG"), "{connection}, {options}: {name}");
            }
        }
        stop(&mut filter);
    }
}

#[test]
fn what_was_not_passed() {
    let directory = TempDir::new();
    let socket = directory.join("a");
    let plan = "start setconn fd:nobody\nstart register\nstart opensocket 0\nstart main\n";
    let path = socket.to_str().expect("a path of ours");
    let Some(filter) = activated(&Setting::ours(), "", &[path], "mail", plan, directory) else { return };
    drop(patiently(&socket));
    filter.wait_for("opensocket -1");
    let said = filter.wait_for("log 3 ");
    assert!(said.contains("none of the names in LISTEN_FDNAMES: mail"), "{said}");

    let filter = Filter::launch(&Setting::ours(), plan, TempDir::new());
    filter.wait_for("opensocket -1");
    let said = filter.wait_for("log 3 ");
    assert!(said.contains("no sockets were passed to this process"), "{said}");
}

/// The variables name a process: a child that inherits them was passed nothing.
#[test]
fn what_was_passed_to_somebody_else() {
    // Descriptor 3 would do.
    let plan = "start descriptor 3 unix given listening\nstart setconn fd:*\nstart register\nstart opensocket 0\n\
                start main\n";
    for (count, pid) in [("1", "1"), ("1", ""), ("one", "1"), ("-1", "1"), ("", "")] {
        let environment = vec![("LISTEN_FDS", count.to_owned()), ("LISTEN_PID", pid.to_owned())];
        let surroundings = Surroundings { environment, ..Surroundings::default() };
        let filter = Filter::launch_with(&Setting::ours(), &surroundings, plan, TempDir::new());
        assert_eq!(filter.wait_for("opensocket"), "opensocket -1", "{count} {pid}");
        let said = filter.wait_for("log 3 ");
        assert!(said.contains("no sockets were passed to this process"), "{said}");
    }
}

/// Whoever announces more than there is gets what there is.
#[test]
fn more_announced_than_passed() {
    let script = "export LISTEN_PID=$$ LISTEN_FDS=2147483647; exec \"$@\"";
    let wrapper = ["sh", "-c", script, "sh"].map(str::to_owned).to_vec();
    let surroundings = Surroundings { wrapper, ..Surroundings::default() };
    let directory = TempDir::new();
    let path = directory.join("given");
    let plan = format!(
        "start descriptor 3 unix {} listening\nstart setconn fd:*\nstart register\nstart opensocket 0\nstart main\n",
        path.display()
    );
    let filter = Filter::launch_with(&Setting::ours(), &surroundings, &plan, directory);
    filter.wait_for("opensocket 0");
    assert_negotiates(patiently(&path));
}

#[test]
fn descriptors_that_are_no_listeners() {
    for (descriptor, message) in [("fd:0", "fd:0 is not a socket"), ("fd:99", "fd:99 is not open")] {
        let plan = format!("start setconn {descriptor}\nstart register\nstart opensocket 0\nstart main\n");
        let filter = Filter::launch(&Setting::ours(), &plan, TempDir::new());
        filter.wait_for("opensocket -1");
        let said = filter.wait_for("log 3 ");
        assert!(said.contains(message), "{said}");
    }
}
