//! Filters at work: real mail through a real MTA, and the same mail with every library.

mod demo;
mod every_call;
mod opendkim;
mod verdicts;

use std::{
    fmt::{self, Debug},
    time::Duration,
};

use ctests::{Delivery, Library, MailServer, Origin, Postfix, Program, Service, Setting};

const SENDER: &str = "<mathilde@lighthouse.example>";
const RECIPIENT: &str = "<otto@harbour.example>";
const MESSAGE: &str = include_str!("../../mail/plain.eml");

/// The message with another subject.
fn message(subject: &str) -> String {
    MESSAGE.replace("Fog signal out of order", subject)
}

fn stable(deliveries: &[Delivery]) -> Vec<Delivery> {
    deliveries.iter().map(Delivery::stable).collect()
}

/// Does the same with every candidate; what is seen has to be the same, and is returned. Postfix
/// must have had nothing to complain about: that is where a broken milter connection would show.
fn same_with_each<C: fmt::Display, T: PartialEq + Debug>(
    postfix: &Postfix,
    candidates: impl IntoIterator<Item = C>,
    see: impl Fn(&C) -> T,
) -> T {
    let mut first: Option<(C, T)> = None;
    for candidate in candidates {
        let seen = see(&candidate);
        postfix.sink().assert_empty();
        match &first {
            None => first = Some((candidate, seen)),
            Some((other, expected)) => assert_eq!(&seen, expected, "{candidate} differs from {other}"),
        }
    }
    assert_eq!(postfix.complaints(), [""; 0]);
    first.expect("at least one candidate").1
}

/// Ends a filter as a service manager does: our library needs no time for that. The reference would
/// take up to five seconds of each test.
fn stop(setting: &Setting, filter: Service) {
    if setting.library.origin() == Origin::Ours {
        let (status, time) = filter.stop(Duration::from_secs(10));
        assert_eq!(status.code(), Some(0), "{setting}: {status}");
        assert!(time < Duration::from_secs(1), "{setting}: it took {time:?}");
    }
}

/// A C filter and the library that it runs with, which need not be the one that it was compiled with.
struct Candidate {
    filter: Program,
    compiled_with: Origin,
    setting: Setting,
}

impl Candidate {
    /// The filter compiled with our library and run with it, and where the reference is installed, one
    /// program that was compiled with the reference, run with both.
    fn each(test: &str, source: &str, postfix: &Postfix) -> Vec<Candidate> {
        let compile = |library: &Library| Program::compiled(source, library, postfix.directory());
        let candidate =
            |filter: &Program, compiled_with, setting| Candidate { filter: filter.clone(), compiled_with, setting };
        let fresh = compile(Library::ours());
        let mut candidates = vec![
            candidate(&fresh, Origin::Ours, Setting::ours()),
            candidate(&fresh, Origin::Ours, Setting::model("threads")),
        ];
        if let Some(reference) = Setting::reference(test) {
            let old = compile(reference.library);
            let settings = [reference, Setting::ours(), Setting::model("threads")];
            candidates.extend(settings.map(|setting| candidate(&old, Origin::Reference, setting)));
        }
        candidates
    }

    fn serve(&self, postfix: &Postfix, arguments: &[&str]) -> Service {
        let socket = postfix.filter_socket();
        let address = format!("unix:{}", socket.display());
        self.filter.serve(&self.setting, &socket, &[&[address.as_str()], arguments].concat())
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "compiled with {}, run with {}", self.compiled_with, self.setting)
    }
}
