//! Peers that are no MTAs: one line says what they are.

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
};

use ctests::{Setting, TempDir, eventually};

use crate::{LIMIT, OFFER, OPENINGS, serving, stop};

/// What they say first, and what is said about them.
const STRANGERS: [(&[u8], &str); 7] = [
    (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "like an HTTP client, not like an MTA"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "like a TLS client, not like an MTA"),
    (b"EHLO client.example\r\n", "like an SMTP client, not like an MTA"),
    (b"220 mx.example ESMTP\r\n", "like an SMTP server, not like an MTA"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", "like an SSH client, not like an MTA"),
    (b"\0\0\0\x01c", "'c' is a reply: the peer is another filter, not an MTA"),
    (b"", "the peer hung up without a word, like a port scan or a health check"),
];

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
            let lines = || filter.lines().into_iter().filter(|line| line.starts_with("log ")).collect::<Vec<_>>();
            let expected = if octets.is_empty() { 1 } else { 3 };
            eventually(format_args!("{setting}: {expected} lines like '{description}'"), || lines().len() >= expected);
            let lines = lines();
            let is_right = |line: &String| line.contains(description);
            assert!(lines.len() == expected && lines.iter().all(is_right), "{setting}: {lines:?}");
            assert_eq!(mta.ask("QUIT"), "EOF");
            stop(&mut filter);
        }
    }
}
