//! Debian's other filters, as they are packaged: the mail of a whole bag with every library.

mod amavis;
mod backend;
mod clamav;
mod mimedefang;
mod opendmarc;
mod perl;
mod pymilter;
mod sendmail;
mod spamass;

use std::{cell::Cell, fs, os::unix::fs::PermissionsExt, path::Path};

use ctests::{
    Postfix, Service, Setting, TempDir,
    comparison::{assert_untroubled, await_idle, same_with_each, stop},
    mailbag::{self, Fate},
};

/// Passes the bag, `letters`, and one from each of two far clients through a Postfix of the test's own past
/// the filter that `serve` starts. Returns what became of it: the same with every library.
fn same_fates(
    test: &str,
    letters: &[(&'static str, String)],
    serve: impl Fn(&Setting, &TempDir) -> Service,
) -> Option<Vec<Fate>> {
    let postfix = Postfix::start_or_skip(test, &mailbag::PARAMETERS)?;
    let fates = same_with_each(test, postfix.sink(), |setting| {
        let filter = serve(setting, postfix.directory());
        admit_everybody(&postfix.filter_socket());
        let mut fates = mailbag::play(|| postfix.smtp(), || postfix.sink().next());
        let pass = |address, name, letter: &str| {
            let held = Cell::new(false);
            let mut fate = mailbag::pass(postfix.smtp(), address, name, letter, || {
                held.set(release_held(&postfix));
                postfix.sink().next()
            });
            if held.get() {
                fate.answer.push_str("\nheld");
            }
            fate
        };
        fates.extend(letters.iter().map(|(name, letter)| pass(None, name, letter)));
        let letter = mailbag::letter("From afar");
        fates.extend(["IPV6:2001:db8::25", "192.0.2.25"].map(|address| pass(Some(address), "from afar", &letter)));
        await_idle(&postfix.filter_socket());
        stop(setting, filter);
        fates
    });
    assert_untroubled(test, &postfix);
    Some(fates)
}

/// Lets every message on hold go; whether there was one.
fn release_held(postfix: &Postfix) -> bool {
    let queue = postfix.queue();
    let held = queue.iter().filter(|entry| entry.contains("\"queue_name\": \"hold\""));
    let names = held.filter_map(|entry| entry.split_once("\"queue_id\": \"")?.1.split('"').next());
    names.map(|name| postfix.release(name)).count() > 0
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
