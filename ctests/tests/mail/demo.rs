//! The filter of `make demo`.

use ctests::{MailServer, Postfix};

use crate::{Candidate, MESSAGE, RECIPIENT, SENDER, same_with_each, stable, stop};

#[test]
fn demo() {
    let Some(postfix) = Postfix::start_or_skip("demo behind Postfix", &[]) else { return };
    let candidates = Candidate::each("demo behind Postfix", "ctests/filters/demo.c", &postfix);
    let (refusal, deliveries) = same_with_each(&postfix, candidates, |candidate| {
        let filter = candidate.serve(&postfix, &[]);
        let mut client = postfix.smtp();
        client.expect(&format!("MAIL FROM:{SENDER}"), "250");
        let refusal = client.ask("RCPT TO:<nobody@harbour.example>");
        client.expect("RSET", "250");
        client.submit(SENDER, &[RECIPIENT], MESSAGE);
        let deliveries = [postfix.sink().next()];
        stop(&candidate.setting, filter);
        (refusal.text, stable(&deliveries))
    });
    assert_eq!(refusal, "550-5.1.1 There is nobody here.\n550 5.1.1 Write to somebody instead.");
    assert_eq!(deliveries[0].header("Subject"), ["[demo] Fog signal out of order"]);
    assert_eq!(deliveries[0].header("X-Demo-Filter"), ["demo saw message QUEUED"]);
    assert!(
        deliveries[0].body().ends_with("\nMathilde\n\n-- \nChecked by a filter that was compiled against libmilter.\n")
    );
}
