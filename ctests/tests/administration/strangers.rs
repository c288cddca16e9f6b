//! Peers that are no MTAs: one line says what they are.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

use ctests::{Filter, MtaConnection, Setting, TempDir, eventually, free_port};

use crate::{LIMIT, OFFER, OPENINGS, launch, serving, stop};

const SILENT: &str = "the peer hung up without a word, like a port scan or a health check";

/// What they say first, and what is said about them.
const STRANGERS: [(&[u8], &str); 7] = [
    (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "like an HTTP client, not like an MTA"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "like a TLS client, not like an MTA"),
    (b"EHLO client.example\r\n", "like an SMTP client, not like an MTA"),
    (b"220 mx.example ESMTP\r\n", "like an SMTP server, not like an MTA"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", "like an SSH client, not like an MTA"),
    (b"\0\0\0\x01c", "'c' is a reply: the peer is another filter, not an MTA"),
    (b"", SILENT),
];

fn log_lines(filter: &Filter) -> Vec<String> {
    filter.lines().into_iter().filter(|line| line.starts_with("log ")).collect()
}

#[test]
fn each_is_named_in_one_line() {
    for setting in Setting::every_model() {
        for (octets, description) in STRANGERS {
            let mut filter = serving(&setting, "", OPENINGS[0], TempDir::new());
            // The same again and again.
            for _ in 0..3 {
                let mut peer = UnixStream::connect(filter.socket()).expect("it listens");
                peer.set_read_timeout(Some(LIMIT)).expect("a limit");
                peer.write_all(octets).expect("a few octets");
                // It may have hung up already.
                let _ = peer.shutdown(Shutdown::Write);
                let _ = peer.read_to_end(&mut Vec::new());
            }
            // What comes after them is served.
            let mut mta = filter.connect();
            assert!(mta.ask(OFFER).starts_with("OPTNEG"), "{setting}");
            let expected = if octets.is_empty() { 1 } else { 3 };
            eventually(format_args!("{setting}: {expected} lines like '{description}'"), || {
                log_lines(&filter).len() >= expected
            });
            let lines = log_lines(&filter);
            let is_right = |line: &String| line.contains(description);
            assert!(lines.len() == expected && lines.iter().all(is_right), "{setting}: {lines:?}");
            assert_eq!(mta.ask("QUIT"), "EOF");
            stop(&mut filter);
        }
    }
}

/// As health checks of load balancers end a connection.
#[test]
fn a_reset_without_a_word_is_no_error() {
    for setting in Setting::every_model() {
        let port = free_port();
        let plan = format!("start setconn inet:{port}@127.0.0.1\nstart main\n");
        let mut filter = launch(&setting, "", &plan, TempDir::new());
        let connect = || MtaConnection::patiently(|| MtaConnection::tcp("127.0.0.1", port));
        assert!(connect().ask(OFFER).starts_with("OPTNEG"), "{setting}");
        for _ in 0..3 {
            let peer = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
            rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).expect("a socket");
        }
        assert!(connect().ask(OFFER).starts_with("OPTNEG"), "{setting}");
        eventually(format_args!("{setting}: a line about those who say nothing"), || !log_lines(&filter).is_empty());
        stop(&mut filter);
        let lines = log_lines(&filter);
        assert!(matches!(&lines[..], [line] if line.contains(SILENT)), "{setting}: {lines:?}");
    }
}

/// What does not count as the start of a session is a word all the same.
#[test]
fn who_has_said_something_is_not_called_silent() {
    for setting in Setting::every_model() {
        let filter = serving(&setting, "", OPENINGS[0], TempDir::new());
        let mut mta = filter.connect();
        mta.command("MACRO C j=example");
        mta.shutdown();
        assert_eq!(mta.reply(), "EOF", "{setting}");
        assert_eq!(log_lines(&filter), [""; 0], "{setting}");
    }
}
