//! Debian's OpenDKIM: signatures for the whole bag, and what it finds of them in the next MTA.

use ctests::{
    MailServer, Setting,
    comparison::{same_with_each, stop},
    mailbag::{self, RECIPIENT, SENDER},
    opendkim::{DOMAIN, Signatures},
};

use crate::{behind_postfix, behind_sendmail, same_fates};

#[test]
fn signs_and_verifies_behind_postfix() {
    behind_postfix("opendkim and the bag behind Postfix", signs_and_verifies);
}

#[test]
fn signs_and_verifies_behind_sendmail() {
    behind_sendmail("opendkim and the bag behind Sendmail", signs_and_verifies);
}

fn signs_and_verifies(test: &str, mta: &dyn MailServer) {
    let Some(signatures) = Signatures::prepare_or_skip(test, mta.directory()) else { return };
    let socket = mta.filter_socket();
    let fates = same_fates(test, mta, &[], |setting, _| signatures.sign(setting, &socket));
    for fate in fates.iter().filter(|fate| fate.name != "from afar") {
        let delivery = fate.delivery.as_ref().unwrap_or_else(|| panic!("it does not arrive: {fate:?}"));
        // It signs for one domain, and never sees what Sendmail adds where there is no author.
        let ours = fate.name != "no header" && delivery.header("From").concat().contains(DOMAIN);
        assert_eq!(delivery.header("DKIM-Signature").len(), usize::from(ours), "{fate:?}");
    }

    let signer = signatures.sign(&Setting::ours(), &socket);
    mta.smtp().submit(SENDER, &[RECIPIENT], mailbag::PLAIN);
    // As it was delivered: the date is signed.
    let delivery = mta.sink().next();
    assert!(signatures.is_valid(&delivery.message), "{}", delivery.message);
    stop(&Setting::ours(), signer);

    let tampered = delivery.message.replace("half past four", "half past five");
    assert!(!signatures.is_valid(&tampered), "the verifier accepts everything");
    same_with_each(test, mta.sink(), |setting| {
        let verifier = signatures.verify(setting, &socket, "");
        let mut client = mta.smtp();
        let mut verified = Vec::new();
        for (text, result) in [(&delivery.message, "dkim=pass"), (&tampered, "dkim=fail")] {
            client.submit(SENDER, &[RECIPIENT], text);
            let delivery = mta.next().stable();
            let found = delivery.header("Authentication-Results");
            assert!(matches!(&found[..], [field] if field.contains(result)), "{setting}: {found:?}");
            verified.push(delivery);
        }
        client.expect("QUIT", "221");
        stop(setting, verifier);
        verified
    });
}
