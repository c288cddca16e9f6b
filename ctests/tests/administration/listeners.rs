//! Several listeners at once.

use std::{fs, net::TcpListener};

use ctests::{MtaConnection, Setting, TempDir, free_port, skip};

use crate::{LIMIT, OFFER, OPENINGS, assert_negotiates, launch, patiently, serving, stop};

#[test]
fn several_listeners() {
    let has_inet6 = TcpListener::bind("[::1]:0").is_ok();
    if !has_inet6 {
        skip("several_listeners (inet6)", "an IPv6 loopback address");
    }
    for setting in Setting::every_model() {
        for plan in OPENINGS {
            let (port, port6, directory) = (free_port(), free_port(), TempDir::new());
            let second = directory.join("second");
            let mut options =
                format!("listen=inet:{port}@127.0.0.1, listen=unix:{}, socket-remove=yes", second.display());
            if has_inet6 {
                options += &format!(", listen=inet6:{port6}@[::1]");
            }
            let mut filter = serving(&setting, &options, plan, directory);
            let mut sessions = vec![patiently(&filter.socket()), patiently(&second)];
            sessions.push(MtaConnection::tcp("127.0.0.1", port).expect("a listening filter"));
            if has_inet6 {
                sessions.push(MtaConnection::tcp("::1", port6).expect("a listening filter"));
            }
            for mta in &mut sessions {
                assert!(mta.ask(OFFER).starts_with("OPTNEG"), "{setting}");
                assert_eq!(mta.ask("HELO h"), "CONTINUE", "{setting}");
            }
            stop(&mut filter);
            assert!(!filter.socket().exists() && !second.exists(), "{setting}");
            assert!(MtaConnection::tcp("127.0.0.1", port).is_err(), "{setting}");
        }
    }
}

/// All or none: what was opened before is closed and removed, and the message names what failed.
#[test]
fn one_listener_that_fails() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it is bound").port();
    let directory = TempDir::new();
    let path = directory.join("socket");
    let plan = "start opensocket 0\nstart main\n";
    let keep = directory.path().to_owned();
    let mut filter = launch(&Setting::ours(), &format!("listen=inet:{port}@127.0.0.1"), plan, directory);
    assert!(filter.process().wait(LIMIT).is_some());
    let lines = filter.lines();
    let said = lines.iter().find(|line| line.starts_with("log 3 ")).expect("a message");
    assert!(said.contains(&format!("on conn inet:{port}@127.0.0.1: Address already in use")), "{said}");
    assert!(lines.contains(&"opensocket -1".to_owned()), "{lines:?}");
    assert!(!path.exists(), "{keep:?}");
}

#[test]
fn inet6_takes_ipv4_where_the_system_does_so() {
    let only = fs::read_to_string("/proc/sys/net/ipv6/bindv6only").unwrap_or_else(|_| "1".into());
    if only.trim() != "0" || TcpListener::bind("[::1]:0").is_err() {
        return skip("inet6_takes_ipv4_where_the_system_does_so", "IPv6 with net.ipv6.bindv6only=0");
    }
    let port = free_port();
    let plan = format!("start setconn inet6:{port}\nstart opensocket 0\nstart note opened\nstart main\n");
    let filter = launch(&Setting::ours(), "", &plan, TempDir::new());
    filter.wait_for("note opened");
    for host in ["127.0.0.1", "::1"] {
        assert_negotiates(MtaConnection::tcp(host, port).expect("a listening filter"));
    }
}
