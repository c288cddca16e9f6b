//! The same mail through Sendmail.

use ctests::{
    Delivery, Library, Program, Sendmail, Service, Setting,
    comparison::{await_idle, same_with_each, stop},
    mailbag::{self, Fate, RECIPIENT, SENDER},
    opendkim::{DOMAIN, Signatures},
};

use crate::{fate, field, pymilter};

/// Verdict, stages at which a C filter passes it, code of Sendmail's answer, whether the message arrives.
const VERDICTS: [(&str, &[&str], &str, bool); 6] = [
    ("reject", &["header", "eoh", "body", "eom"], "554", false),
    ("later", &["header", "eoh", "body", "eom"], "450", false),
    ("discard", &["header", "eoh", "body", "eom"], "250", false),
    ("accept", &["header", "eoh", "body", "eom"], "250", true),
    ("quarantine", &["eom"], "250", false),
    ("shut", &["eom"], "421", false),
];

/// Passes the bag through `sendmail` past the filter that `serve` starts; `check` looks at each delivery.
fn same_fates(
    test: &str,
    sendmail: &Sendmail,
    serve: impl Fn(&Setting) -> Service,
    check: impl Fn(&Delivery),
) -> Vec<Fate> {
    same_with_each(test, sendmail.sink(), |setting| {
        let filter = serve(setting);
        let delivered = || {
            let delivery = sendmail.next();
            check(&delivery);
            delivery
        };
        let fates = mailbag::play(|| sendmail.smtp(), delivered);
        await_idle(&sendmail.filter_socket());
        stop(setting, filter);
        fates
    })
}

#[test]
fn opendkim_signs_and_verifies() {
    let test = "opendkim behind Sendmail";
    let Some(sendmail) = Sendmail::start_or_skip(test) else { return };
    let Some(signatures) = Signatures::prepare_or_skip(test, sendmail.directory()) else { return };
    let serve = |setting: &Setting| signatures.sign(setting, &sendmail.filter_socket());
    let fates = same_fates(test, &sendmail, serve, |_| ());
    for fate in &fates {
        let delivery = fate.delivery.as_ref().unwrap_or_else(|| panic!("{fate:?}"));
        // It signs for one domain, and never sees what Sendmail adds where there is no author.
        let ours = fate.name != "no header" && delivery.header("From").concat().contains(DOMAIN);
        assert_eq!(delivery.header("DKIM-Signature").len(), usize::from(ours), "{fate:?}");
    }
    assert!(fates.iter().any(|fate| fate.name == "plain"), "{fates:?}");

    let signer = serve(&Setting::ours());
    sendmail.smtp().submit(SENDER, &[RECIPIENT], mailbag::PLAIN);
    // As it was delivered: the date is signed.
    let delivery = sendmail.sink().next();
    assert!(signatures.is_valid(&delivery.message), "{}", delivery.message);
    stop(&Setting::ours(), signer);

    let tampered = delivery.message.replace("half past four", "half past five");
    same_with_each(test, sendmail.sink(), |setting| {
        let verifier = signatures.verify(setting, &sendmail.filter_socket());
        let mut client = sendmail.smtp();
        let mut verified = Vec::new();
        for (text, result) in [(&delivery.message, "dkim=pass"), (&tampered, "dkim=fail")] {
            client.submit(SENDER, &[RECIPIENT], text);
            let delivery = sendmail.next().stable();
            let found = delivery.header("Authentication-Results");
            assert!(matches!(&found[..], [field] if field.contains(result)), "{setting}: {found:?}");
            verified.push(delivery);
        }
        stop(setting, verifier);
        verified
    });
}

#[test]
fn pymilter_makes_every_change() {
    let test = "pymilter behind Sendmail";
    let Some(sendmail) = Sendmail::start_or_skip(test) else { return };
    let Some(python) = pymilter::python_or_skip(test) else { return };
    let serve = |setting: &Setting| pymilter::serve(&python, "every-change", setting, sendmail.directory());
    let fates = same_fates(test, &sendmail, serve, |delivery| {
        assert_eq!(delivery.header("X-Added"), ["at the end"], "{}", delivery.message);
        assert!(delivery.sender.starts_with("<keeper@lighthouse.example>"), "{}", delivery.sender);
        assert_eq!(delivery.recipients.len(), 3, "{:?}", delivery.recipients);
    });
    let seen = field(&fates, "X-Saw-0");
    assert!(seen.iter().all(|(_, first)| first.concat().starts_with("'connect'")), "{seen:?}");
    let several = fate(&fates, "several recipients");
    assert!(several.answer.contains("\n550-5.7.1 <ferry@pier.example>... The ferry takes\n"), "{several:?}");
}

#[test]
fn c_filter_makes_every_call() {
    let test = "a C filter behind Sendmail";
    let Some(sendmail) = Sendmail::start_or_skip(test) else { return };
    let compiler = Library::reference_or_skip(test).unwrap_or(Library::ours());
    let filter = Program::compiled("ctests/filters/every_call.c", compiler, sendmail.directory());
    let socket = sendmail.filter_socket();
    let address = format!("unix:{}", socket.display());
    let serve = |setting: &Setting| filter.serve(setting, &socket, &[&address]);
    let fates = same_fates(test, &sendmail, serve, |delivery| {
        assert_eq!(delivery.header("X-Failed"), ["nothing"], "a call did not give what it should");
        assert_eq!(delivery.header("X-First"), ["in front"], "{}", delivery.message);
    });
    assert!(fates.iter().all(|fate| fate.delivery.is_some()), "{fates:?}");
}

#[test]
fn c_filter_passes_every_verdict() {
    let test = "verdicts behind Sendmail";
    let Some(sendmail) = Sendmail::start_or_skip(test) else { return };
    let compiler = Library::reference_or_skip(test).unwrap_or(Library::ours());
    let filter = Program::compiled("ctests/filters/verdicts.c", compiler, sendmail.directory());
    let socket = sendmail.filter_socket();
    let address = format!("unix:{}", socket.display());
    let seen = same_with_each(test, sendmail.sink(), |setting| {
        let filter = filter.serve(setting, &socket, &[&address]);
        let mut client = sendmail.smtp();
        let mut seen = Vec::new();
        for recipient in ["<reject@harbour.example>", "<later@harbour.example>"] {
            client.expect(&format!("MAIL FROM:{SENDER}"), "250");
            seen.push((client.ask(&format!("RCPT TO:{recipient}")).text, None));
            client.expect("RSET", "250");
        }
        for (verdict, stages, code, arrives) in VERDICTS {
            for stage in stages {
                client.envelope(SENDER, &[RECIPIENT]);
                let reply = client.data(&mailbag::letter(&format!("{verdict}\nX-Verdict: {stage} {verdict}")));
                assert_eq!(reply.code(), code, "{setting}: {verdict} at {stage}: {}", reply.text);
                let answer = reply.text.replace(reply.queue_id().unwrap_or("NAME"), "NAME");
                // Sendmail delivers before it answers: a delivery too many is there when the last one is done.
                seen.push((answer, arrives.then(|| sendmail.next().stable())));
            }
        }
        stop(setting, filter);
        seen
    });
    assert_eq!(seen[0].0, "554-5.7.1 This is refused:\n554-5.7.1 100% of it\n554 5.7.1 for good");
    let marks: Vec<_> = seen.iter().filter_map(|(_, delivery)| Some(delivery.as_ref()?.header("X-Judged"))).collect();
    assert_eq!(marks, [vec![], vec![], vec![], vec!["yes".to_owned()]]);
}
