//! Filters at work: real mail through a real MTA, and the same mail with every library.

mod demo;
mod every_call;
mod opendkim;
mod verdicts;

use std::fmt::{self, Debug};

use ctests::{
    Delivery, Library, MailServer, Origin, Postfix, Program, Service, Setting,
    comparison::{assert_untroubled, same_with},
};

fn stable(deliveries: &[Delivery]) -> Vec<Delivery> {
    deliveries.iter().map(Delivery::stable).collect()
}

/// Does the same with every candidate; what is seen has to be the same, and is returned. Postfix
/// must have had nothing to complain about: that is where a broken milter connection would show.
fn same_with_each<C: fmt::Display, T: PartialEq + Debug>(
    test: &str,
    postfix: &Postfix,
    candidates: impl IntoIterator<Item = C>,
    see: impl Fn(&C) -> Vec<T>,
) -> Vec<T> {
    let seen = same_with(candidates, test, postfix.sink(), see);
    assert_untroubled(test, postfix);
    seen
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
