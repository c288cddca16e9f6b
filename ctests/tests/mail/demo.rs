//! The filter of `make demo`.

use ctests::{
    MailServer, Postfix,
    comparison::stop,
    mailbag::{PLAIN, RECIPIENT, SENDER},
};

use crate::{Candidate, same_with_each, stable};

#[test]
fn demo() {
    let test = "demo behind Postfix";
    let Some(postfix) = Postfix::start_or_skip(test, &[]) else { return };
    let candidates = Candidate::each(test, "ctests/filters/demo.c", &postfix);
    let seen = same_with_each(test, &postfix, candidates, |candidate| {
        let filter = candidate.serve(&postfix, &[]);
        let mut client = postfix.smtp();
        client.expect(&format!("MAIL FROM:{SENDER}"), "250");
        let refusal = client.ask("RCPT TO:<nobody@harbour.example>");
        client.expect("RSET", "250");
        client.submit(SENDER, &[RECIPIENT], PLAIN);
        let deliveries = [postfix.sink().next()];
        stop(&candidate.setting, filter);
        vec![(refusal.text, stable(&deliveries))]
    });
    let (refusal, deliveries) = &seen[0];
    assert_eq!(refusal, "550-5.1.1 There is nobody here.\n550 5.1.1 Write to somebody instead.");
    assert_eq!(deliveries[0].header("Subject"), ["[demo] Fog signal out of order"]);
    assert_eq!(deliveries[0].header("X-Demo-Filter"), ["demo saw message QUEUED"]);
    assert!(
        deliveries[0].body().ends_with("\nMathilde\n\n-- \nChecked by a filter that was compiled against libmilter.\n")
    );
}
