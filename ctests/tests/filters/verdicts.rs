//! A C filter that passes every verdict at every stage, behind Sendmail; behind Postfix it is in `tests/mail`.

use ctests::{
    Library, MailServer, Program, Sendmail,
    comparison::{assert_untroubled, same_with_each, stop},
    mailbag::{self, RECIPIENT, SENDER},
    sendmail::LOCAL,
};

/// Verdict, stages at which a C filter passes it, code of Sendmail's answer, whether the message arrives.
const VERDICTS: [(&str, &[&str], &str, bool); 6] = [
    ("reject", &["header", "eoh", "body", "eom"], "554", false),
    ("later", &["header", "eoh", "body", "eom"], "450", false),
    ("discard", &["header", "eoh", "body", "eom"], "250", false),
    ("accept", &["header", "eoh", "body", "eom"], "250", true),
    ("quarantine", &["eom"], "250", false),
    ("shut", &["eom"], "421", false),
];

#[test]
fn every_verdict_behind_sendmail() {
    let test = "verdicts behind Sendmail";
    let Some(sendmail) = Sendmail::start_or_skip(test, LOCAL) else { return };
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
    assert_untroubled(test, &sendmail);
    assert_eq!(seen[0].0, "554-5.7.1 This is refused:\n554-5.7.1 100% of it\n554 5.7.1 for good");
    let marks: Vec<_> = seen.iter().filter_map(|(_, delivery)| Some(delivery.as_ref()?.header("X-Judged"))).collect();
    assert_eq!(marks, [vec![], vec![], vec![], vec!["yes".to_owned()]]);
}
