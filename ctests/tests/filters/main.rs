//! Debian's other filters, as they are packaged: the mail of a whole bag with every library.

mod pymilter;

use ctests::{
    Postfix, Service, Setting, TempDir,
    comparison::{same_with_each, stop},
    mailbag::{self, Fate},
};

/// Passes the bag, and a letter from an IPv6 client, through a Postfix of the test's own past the filter
/// that `serve` starts. Returns what became of it: the same with every library.
fn same_fates(test: &str, serve: impl Fn(&Setting, &TempDir) -> Service) -> Option<Vec<Fate>> {
    let postfix = Postfix::start_or_skip(test, &mailbag::PARAMETERS)?;
    Some(same_with_each(test, &postfix, |setting| {
        let filter = serve(setting, postfix.directory());
        let mut fates = mailbag::play(|| postfix.smtp(), || postfix.sink().next());
        let letter = mailbag::letter("From afar");
        let afar = |address| mailbag::play_from(address, || postfix.smtp(), || postfix.sink().next(), &letter);
        fates.extend(["IPV6:2001:db8::25", "192.0.2.25"].map(afar));
        stop(setting, filter);
        fates
    }))
}

/// The values of a header field in each message that arrived.
fn field(fates: &[Fate], name: &str) -> Vec<(&'static str, Vec<String>)> {
    let arrived = fates.iter().filter_map(|fate| Some((fate.name, fate.delivery.as_ref()?)));
    arrived.map(|(message, delivery)| (message, delivery.header(name))).collect()
}
