//! Debian's OpenDKIM, as it is packaged, on each library behind Postfix.

use std::os::unix::{fs::PermissionsExt, net::UnixStream};

use ctests::{
    Delivery, MailServer, PATIENCE, Postfix, Setting, SmtpClient,
    comparison::stop,
    eventually, find, free_port,
    mailbag::{PLAIN, RECIPIENT, SENDER, letter},
    opendkim::Signatures,
    skip,
};

use crate::{same_with_each, stable};

/// Runs the same mail past every library; the deliveries have to be the same.
fn on_each(test: &str, parameters: &[(&str, &str)], run: impl Fn(&Setting, &Postfix, &Signatures) -> Vec<Delivery>) {
    let Some(postfix) = Postfix::start_or_skip(test, parameters) else { return };
    let Some(signatures) = Signatures::prepare_or_skip(test, postfix.directory()) else { return };
    same_with_each(test, &postfix, Setting::each(test), |setting| stable(&run(setting, &postfix, &signatures)));
}

fn assert_signed(signatures: &Signatures, delivery: &Delivery) {
    assert_eq!(delivery.header("DKIM-Signature").len(), 1, "{}", delivery.message);
    assert!(signatures.is_valid(&delivery.message), "{}", delivery.message);
}

/// With the umask of Debian's configuration the socket is for OpenDKIM's own group only. What helps is an option of
/// the library, of which OpenDKIM knows nothing.
#[test]
fn a_socket_for_the_group_of_postfix() {
    const UMASK: &str = "UMask 007\n";
    const TEST: &str = "opendkim with a socket for the group of Postfix";
    let Some(postfix) = Postfix::start_or_skip(TEST, &[]) else { return };
    let Some(signatures) = Signatures::prepare_or_skip(TEST, postfix.directory()) else { return };
    let socket = postfix.filter_socket();
    for setting in [Setting::ours(), Setting::model("threads")] {
        let filter = signatures.sign_with(&setting, &socket, UMASK, "");
        let mut client = postfix.smtp();
        assert!(client.ask(&format!("MAIL FROM:{SENDER}")).text.starts_with("451"), "{setting}: {}", postfix.log());
        // The log is written by another process.
        eventually("Postfix says why", || postfix.log().contains("Permission denied"));
        drop(client);
        stop(&setting, filter);

        let filter = signatures.sign_with(&setting, &socket, UMASK, "socket-mode=0660, socket-group=postfix");
        let found = std::fs::metadata(&socket).expect("it listens there");
        assert_eq!(found.permissions().mode() & 0o7777, 0o660, "{setting}");
        postfix.smtp().submit(SENDER, &[RECIPIENT], PLAIN);
        assert_signed(&signatures, &postfix.sink().next());
        stop(&setting, filter);
    }
}

/// OpenDKIM knows nothing of socket activation, and keeps its own description of the socket.
#[test]
fn starts_with_the_first_connection() {
    const TEST: &str = "opendkim with socket activation";
    let Some(launcher) = find("systemd-socket-activate") else { return skip(TEST, "systemd") };
    let port = free_port();
    let milters = format!("inet:127.0.0.1:{port}");
    let Some(postfix) = Postfix::start_or_skip(TEST, &[("smtpd_milters", &milters)]) else { return };
    let Some(signatures) = Signatures::prepare_or_skip(TEST, postfix.directory()) else { return };
    let filter = signatures.sign_activated(&Setting::ours(), &launcher, port, postfix.directory());
    for _ in 0..2 {
        postfix.smtp().submit(SENDER, &[RECIPIENT], PLAIN);
        assert_signed(&signatures, &postfix.sink().next());
    }
    stop(&Setting::ours(), filter);
}

#[test]
fn session_with_everything_that_happens() {
    on_each("opendkim in long sessions", &[], |setting, postfix, signatures| {
        let signer = signatures.sign(setting, &postfix.filter_socket());
        let mut client = postfix.smtp();
        client.submit(SENDER, &[RECIPIENT], &letter("1 first"));
        client.submit(SENDER, &[RECIPIENT, "<watch@harbour.example>", "<ferry@pier.example>"], &letter("2 several"));
        client.envelope(SENDER, &[RECIPIENT]);
        client.expect("RSET", "250");
        client.expect("MAIL FROM:<somebody@elsewhere.example>", "250");
        client.expect("NOOP", "250");
        client.expect("RSET", "250");
        client.submit(SENDER, &[RECIPIENT], &letter("3 after a reset"));
        client.expect("EHLO again.example", "250");
        client.submit("<>", &[RECIPIENT], &letter("4 from nobody"));
        client.expect("QUIT", "221");

        let mut client = postfix.smtp();
        client.envelope(SENDER, &[RECIPIENT]);
        client.expect("DATA", "354");
        client.send("Subject: cut off\r\n\r\nThis message has no e");
        drop(client);

        let mut client = postfix.smtp();
        client.submit(SENDER, &[RECIPIENT], &letter("5 after a lost client"));
        client.submit(SENDER, &[RECIPIENT], &letter(&format!("6 long {}", "line\n ".repeat(2000))));
        drop(client);
        let deliveries = postfix.sink().collect(6);
        let subjects: Vec<String> = deliveries.iter().flat_map(|delivery| delivery.header("Subject")).collect();
        assert!(
            subjects.iter().zip("123456".chars()).all(|(subject, digit)| subject.starts_with(digit)),
            "{subjects:?}"
        );
        assert_eq!(deliveries[1].recipients.len(), 3);
        deliveries.iter().for_each(|delivery| assert_signed(signatures, delivery));
        stop(setting, signer);
        deliveries
    });
}

#[test]
fn many_sessions_at_once() {
    on_each("opendkim with many sessions", &[], |setting, postfix, signatures| {
        const SESSIONS: usize = 8;
        let signer = signatures.sign(setting, &postfix.filter_socket());
        let mut clients: Vec<SmtpClient> = (0..SESSIONS).map(|_| postfix.smtp()).collect();
        for round in 0..3 {
            for client in &mut clients {
                client.envelope(SENDER, &[RECIPIENT]);
            }
            for (number, client) in clients.iter_mut().enumerate() {
                let body = "0123456789".repeat(6) + "\n";
                let reply = client.data(&(letter(&format!("{round} {number}")) + &body.repeat(200 * number)));
                assert_eq!(reply.code(), "250", "{}", reply.text);
            }
        }
        let deliveries = postfix.sink().collect(3 * SESSIONS);
        deliveries.iter().for_each(|delivery| assert_signed(signatures, delivery));
        // With sessions still open.
        stop(setting, signer);
        deliveries
    });
}

#[test]
fn protocol_version_2() {
    on_each("opendkim and milter_protocol=2", &[("milter_protocol", "2")], |setting, postfix, signatures| {
        let signer = signatures.sign(setting, &postfix.filter_socket());
        postfix.smtp().submit(SENDER, &[RECIPIENT, "<watch@harbour.example>"], PLAIN);
        let delivery = postfix.sink().next();
        assert_signed(signatures, &delivery);
        stop(setting, signer);
        vec![delivery]
    });
}

#[test]
fn mail_from_the_sendmail_command() {
    let parameters = [("non_smtpd_milters", "$filter"), ("smtpd_milters", "")];
    on_each("opendkim and the sendmail command", &parameters, |setting, postfix, signatures| {
        let signer = signatures.sign(setting, &postfix.filter_socket());
        postfix.sendmail("mathilde@lighthouse.example", &["otto@harbour.example"], PLAIN);
        let delivery = postfix.sink().next();
        assert_signed(signatures, &delivery);
        stop(setting, signer);
        vec![delivery]
    });
}

#[test]
fn stop_and_start() {
    on_each("opendkim stops and starts", &[], |setting, postfix, signatures| {
        let socket = postfix.filter_socket();
        let opendkim = signatures.sign(setting, &socket);
        let mut client = postfix.smtp();
        client.submit(SENDER, &[RECIPIENT], &letter("1"));
        let (status, _) = opendkim.stop(PATIENCE);
        assert_eq!(status.code(), Some(0), "{setting}: {status}");
        // A filter of root's leaves the file; OpenDKIM removes a stale one when it starts.
        assert!(socket.exists(), "{setting}");
        assert!(UnixStream::connect(&socket).is_err(), "{setting}");
        drop(client);

        let opendkim = signatures.sign(setting, &socket);
        postfix.smtp().submit(SENDER, &[RECIPIENT], &letter("2"));
        let deliveries = postfix.sink().collect(2);
        deliveries.iter().for_each(|delivery| assert_signed(signatures, delivery));
        stop(setting, opendkim);
        deliveries
    });
}
