//! Plays every case of `ctests/dialogues` against both libraries: as written, one octet at a time,
//! and with all commands in one segment.

use std::{collections::HashSet, sync::Arc};

use ctests::{Library, Origin, Setting, conversation::Script, dialogue, verdict};
use libtest_mimic::{Arguments, Trial};

/// A way to cut what the MTA sends.
type Delivery = (&'static str, fn(&Script) -> Script);

const DELIVERIES: [Delivery; 3] =
    [("", Script::clone), ("::octets", Script::in_octets), ("::segment", Script::in_one_segment)];

/// A library by name, so that the trials can be listed before anything is built.
struct Candidate {
    name: &'static str,
    origin: Origin,
    setting: fn() -> Setting,
    /// Whether all sessions are in one process, and take every delivery. With several processes only the first: what is
    /// different there is not how octets arrive.
    one_process: bool,
}

fn candidates() -> Vec<Candidate> {
    let ours = |name, one_process, setting| Candidate { name, origin: Origin::Ours, setting, one_process };
    let mut candidates = vec![
        ours("ours", true, Setting::ours as fn() -> Setting),
        ours("ours-threads", true, || Setting::model("threads")),
        ours("ours-static", true, Setting::ours_static),
        ours("ours-fork", false, || Setting::model("fork")),
        ours("ours-processes", false, || Setting::processes(2)),
    ];
    if Library::reference_or_skip("dialogues").is_some() {
        let setting = || Setting::reference("dialogues").expect("it was there a moment ago");
        candidates.push(Candidate { name: "reference", origin: Origin::Reference, setting, one_process: true });
    }
    candidates
}

fn main() {
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, trials()).exit();
}

fn trials() -> Vec<Trial> {
    let candidates = candidates();
    let mut known = HashSet::new();
    let mut trials = Vec::new();
    for (subject, case) in dialogue::all() {
        assert!(known.insert(case.id.clone()), "{subject}: case {} is there twice", case.id);
        let case = Arc::new(case);
        for &Candidate { name, origin, setting, one_process } in &candidates {
            if case.only.is_some_and(|only| only != origin) || case.one_process && !one_process {
                continue;
            }
            for delivery in DELIVERIES.into_iter().take(if case.any_delivery && one_process { 3 } else { 1 }) {
                let name = format!("{subject}::{}::{name}{}", case.id, delivery.0);
                let case = Arc::clone(&case);
                trials.push(Trial::test(name, move || Ok(verdict::play(&case, &setting(), delivery.1)?)));
            }
        }
    }
    trials
}
