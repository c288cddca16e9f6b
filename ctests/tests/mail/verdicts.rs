//! A filter that refuses, postpones, discards, accepts and quarantines at every stage.

use ctests::{
    MailServer, Postfix,
    comparison::stop,
    mailbag::{RECIPIENT, SENDER, letter},
};

use crate::{Candidate, same_with_each, stable};

const REJECTED: &str = "554-5.7.1 This is refused:\n554-5.7.1 100% of it\n554 5.7.1 for good";
const POSTPONED: &str = "450 4.7.1 Not now";
const TAKEN: &str = "250 2.0.0 Ok: queued as NAME";

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Refused,
    Vanishes,
    Held,
    /// It arrives with the mark that the filter sets at the end.
    Marked,
    /// It arrives, but the filter did not see the end.
    Unmarked,
}

/// Verdict, stages at which to pass it, answer of the MTA, fate.
const TABLE: [(&str, &[&str], &str, Fate); 6] = [
    ("reject", &["header", "eoh", "body", "eom"], REJECTED, Fate::Refused),
    ("later", &["header", "eoh", "body", "eom"], POSTPONED, Fate::Refused),
    ("discard", &["header", "eoh", "body", "eom"], TAKEN, Fate::Vanishes),
    ("accept", &["header", "eoh", "body"], TAKEN, Fate::Unmarked),
    ("accept", &["eom"], TAKEN, Fate::Marked),
    ("quarantine", &["eom"], TAKEN, Fate::Held),
];

#[test]
fn verdicts() {
    let test = "verdicts behind Postfix";
    let Some(postfix) = Postfix::start_or_skip(test, &[]) else { return };
    same_with_each(test, &postfix, Candidate::each(test, "ctests/filters/verdicts.c", &postfix), |candidate| {
        let filter = candidate.serve(&postfix, &[]);
        let mut client = postfix.smtp();
        let mut deliveries = Vec::new();
        for (verdict, stages, answer, fate) in TABLE {
            for stage in stages {
                let case = format!("{candidate}: {verdict} at {stage}");
                client.envelope(SENDER, &[RECIPIENT]);
                let request = format!("{verdict} at {stage}\nX-Verdict: {stage} {verdict}");
                let reply = client.data(&letter(&request));
                let name = reply.queue_id().unwrap_or("NAME");
                assert_eq!(reply.text.replace(name, "NAME"), answer, "{case}");
                let held = postfix.queue().iter().filter(|entry| entry.contains("\"hold\"")).count();
                assert_eq!(held, usize::from(fate == Fate::Held), "{case}");
                match fate {
                    Fate::Refused | Fate::Vanishes => {}
                    Fate::Held => {
                        postfix.release(name);
                        deliveries.push(postfix.sink().next());
                    }
                    Fate::Marked | Fate::Unmarked => {
                        let delivery = postfix.sink().next();
                        let marks: &[&str] = if fate == Fate::Marked { &["yes"] } else { &[] };
                        assert_eq!(delivery.header("X-Judged"), marks, "{case}");
                        deliveries.push(delivery);
                    }
                }
            }
        }
        client.expect(&format!("MAIL FROM:{SENDER}"), "250");
        for (recipient, answer) in [("reject", REJECTED), ("later", POSTPONED), ("otto", "250 2.1.5 Ok")] {
            assert_eq!(client.ask(&format!("RCPT TO:<{recipient}@harbour.example>")).text, answer, "{candidate}");
        }
        assert_eq!(client.data(&letter("to the one that is left")).code(), "250");
        deliveries.push(postfix.sink().next());
        assert_eq!(deliveries.last().map(|last| last.recipients.len()), Some(1), "{candidate}");
        // The whole message goes, whoever else it was for.
        client.submit(SENDER, &[RECIPIENT, "<discard@harbour.example>"], &letter("to nobody"));
        client.submit(SENDER, &[RECIPIENT], &letter("the last one"));
        deliveries.push(postfix.sink().next());
        assert_eq!(deliveries.last().map(|last| last.header("Subject").concat()), Some("the last one".into()));
        stop(&candidate.setting, filter);
        stable(&deliveries)
    });
}
