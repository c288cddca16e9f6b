//! Programs of `examples/` that change messages.

use ctests::{
    Delivery, Library, MailServer, Program,
    comparison::{assert_untroubled, same_with_each, stop},
    mailbag::{RECIPIENT, SENDER, letter},
};

use crate::{behind_postfix, behind_sendmail};

/// Passes messages through the example with every library, and shows each delivery to `check`.
fn pass(test: &str, mta: &dyn MailServer, source: &str, messages: &[&str], check: impl Fn(&Delivery)) {
    let compiler = Library::reference_or_skip(test).unwrap_or(Library::ours());
    let filter = Program::compiled(source, compiler, mta.directory());
    let socket = mta.filter_socket();
    let address = format!("unix:{}", socket.display());
    same_with_each(test, mta.sink(), |setting| {
        let filter = filter.serve(setting, &socket, &[&address]);
        let mut client = mta.smtp();
        let mut bodies = Vec::new();
        for message in messages {
            client.submit(SENDER, &[RECIPIENT], message);
            let delivery = mta.next();
            check(&delivery);
            bodies.push(delivery.body().to_owned());
        }
        stop(setting, filter);
        bodies
    });
    assert_untroubled(test, mta);
}

/// Postfix counts the fields that are left, Sendmail those that were removed, too: whoever removes them from the last
/// to the first need not care.
fn add_header(test: &str, mta: &dyn MailServer) {
    let forged = letter("marks\nX-Checked: 1\nx-checked: 2\nX-Checked: 3\nX-Checked: 4");
    pass(test, mta, "examples/add_header.c", &[&forged, &letter("no marks"), &forged], |delivery| {
        let marks = delivery.header("X-Checked");
        assert!(matches!(&marks[..], [mark] if mark.starts_with("by ") && !mark.contains("unknown")), "{marks:?}");
        // Below the field of the MTA itself.
        let names: Vec<&str> = delivery.message.lines().filter_map(|line| Some(line.split_once(": ")?.0)).collect();
        assert_eq!(names[..2], ["Received", "X-Checked"], "{}", delivery.message);
    });
}

#[test]
fn add_header_behind_postfix() {
    behind_postfix("examples/add_header.c behind Postfix", add_header);
}

#[test]
fn add_header_behind_sendmail() {
    behind_sendmail("examples/add_header.c behind Sendmail", add_header);
}

fn replace_body(test: &str, mta: &dyn MailServer) {
    let parts = include_str!("../../mail/multipart.eml");
    pass(test, mta, "examples/replace_body.c", &[parts, &letter("one part")], |delivery| {
        assert!(!delivery.message.contains("text/csv"), "{}", delivery.message);
        let body = delivery.body().trim_end();
        assert!(body.ends_with("--=_part_7f3a--") || body.ends_with("Mathilde"), "{}", delivery.message);
    });
}

#[test]
fn replace_body_behind_postfix() {
    behind_postfix("examples/replace_body.c behind Postfix", replace_body);
}

#[test]
fn replace_body_behind_sendmail() {
    behind_sendmail("examples/replace_body.c behind Sendmail", replace_body);
}

fn no_reply(test: &str, mta: &dyn MailServer) {
    // Postfix does not show filters the first line, Return-Path, and Sendmail does.
    let shown = |subject| letter(subject).split_once('\n').expect("it has lines").1.to_owned();
    pass(test, mta, "examples/no_reply.c", &[&shown("some"), &shown("more\nX-More: 1")], |delivery| {
        let fields = if delivery.header("X-More").is_empty() { 9 } else { 10 };
        let counted = delivery.header("X-Counted").concat();
        assert!(counted.starts_with(&format!("{fields} fields, ")), "{}", delivery.message);
    });
}

#[test]
fn no_reply_behind_postfix() {
    behind_postfix("examples/no_reply.c behind Postfix", no_reply);
}

#[test]
fn no_reply_behind_sendmail() {
    behind_sendmail("examples/no_reply.c behind Sendmail", no_reply);
}
