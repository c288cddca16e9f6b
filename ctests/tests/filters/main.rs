//! Debian's other filters, as they are packaged: the mail of a whole bag with every library, behind each MTA.

mod amavis;
mod clamav;
mod every_call;
mod examples;
mod mimedefang;
mod opendkim;
mod opendmarc;
mod perl;
mod pymilter;
mod spamass;
mod verdicts;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use ctests::{
    MailServer, Postfix, Sendmail, Service, Setting, TempDir,
    comparison::{assert_untroubled, same_with_each, stop},
    has_ipv6,
    mailbag::{self, Fate},
    sendmail::LOCAL,
    skip,
};

/// Runs a scenario with a Postfix of the test's own.
fn behind_postfix(test: &str, scenario: impl FnOnce(&str, &dyn MailServer)) {
    if let Some(postfix) = Postfix::start_or_skip(test, &mailbag::PARAMETERS) {
        scenario(test, &postfix);
    }
}

/// Runs a scenario with a Sendmail of the test's own.
fn behind_sendmail(test: &str, scenario: impl FnOnce(&str, &dyn MailServer)) {
    if let Some(sendmail) = Sendmail::start_or_skip(test, LOCAL) {
        scenario(test, &sendmail);
    }
}

/// Passes the bag, `letters`, and one from each client that is somewhere else through the MTA past the filter that
/// `serve` starts. Returns what became of it: the same with every library.
fn same_fates(
    test: &str,
    mta: &dyn MailServer,
    letters: &[(&'static str, String)],
    serve: impl Fn(&Setting, &TempDir) -> Service,
) -> Vec<Fate> {
    let over_ipv6 = has_ipv6();
    if !over_ipv6 {
        skip(&format!("{test} (client at ::1)"), "an IPv6 loopback address");
    }
    let fates = same_with_each(test, mta.sink(), |setting| {
        let filter = serve(setting, mta.directory());
        admit_everybody(&mta.filter_socket());
        let mut fates = mailbag::play(mta);
        fates.extend(letters.iter().map(|(name, letter)| mailbag::pass(mta, mta.smtp(), name, letter)));
        if over_ipv6 {
            let letter = mailbag::letter("Over IPv6");
            fates.push(mailbag::pass(mta, mta.smtp_over_ipv6(), "over IPv6", &letter));
        }
        if mta.takes_xclient() {
            let letter = mailbag::letter("From afar");
            let from = |address| mailbag::pass(mta, mailbag::from_afar(mta, address), "from afar", &letter);
            fates.extend(["IPV6:2001:db8::25", "192.0.2.25"].map(from));
        }
        stop(setting, filter);
        fates
    });
    assert_untroubled(test, mta);
    fates
}

/// Some filters keep their socket to their own group.
fn admit_everybody(socket: &Path) {
    fs::set_permissions(socket, fs::Permissions::from_mode(0o777)).expect("root may do that");
}

/// The one message of this name.
fn fate<'a>(fates: &'a [Fate], name: &str) -> &'a Fate {
    fates.iter().find(|fate| fate.name == name).unwrap_or_else(|| panic!("no message '{name}'"))
}

/// The values of a header field in each message that arrived.
fn field(fates: &[Fate], name: &str) -> Vec<(&'static str, Vec<String>)> {
    let arrived = fates.iter().filter_map(|fate| Some((fate.name, fate.delivery.as_ref()?)));
    arrived.map(|(message, delivery)| (message, delivery.header(name))).collect()
}

/// The recipients of a message that arrived, without ESMTP arguments.
fn recipients(fate: &Fate) -> Vec<&str> {
    let delivery = fate.delivery.as_ref().unwrap_or_else(|| panic!("it does not arrive: {fate:?}"));
    delivery.recipients.iter().filter_map(|recipient| recipient.split(' ').next()).collect()
}
