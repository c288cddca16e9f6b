//! OpenDKIM's own test-suite: its miltertest plays the MTA for its filter.

use std::{collections::BTreeMap, time::Duration};

use ctests::{Build, Linkage, Origin, Setting};

use crate::filter::{FILTERS, OPENDKIM};

/// The cases of the archive, each a script.
const CASES: usize = 35;

/// More than the suite ever took; nearly all of it is the time that the reference needs to stop.
const LIMIT: Duration = Duration::from_mins(3);

/// Every case passes, with the reference, and with ours in every form.
pub(crate) fn same_result() {
    let test = "OpenDKIM's own suite";
    let filter = FILTERS.iter().find(|filter| filter.name == OPENDKIM).expect("it is in the list");
    let Some(shared) = Build::make_or_skip(test, OPENDKIM, filter.needs, Linkage::Shared) else { return };
    let Some(own) = Build::make_or_skip(test, OPENDKIM, filter.needs, Linkage::Static) else { return };
    let mut runs = vec![(&own, Setting::ours_static())];
    runs.extend(Setting::each(test).into_iter().map(|setting| (&shared, setting)));
    for (build, setting) in runs {
        let mut results = run(build, &setting);
        // With sendmail's library, whose stop leaves sessions running, OpenDKIM loses a race of its own on a busy machine and
        // aborts ("conf_refcnt == 0").
        if setting.library.origin() == Origin::Reference && results.values().any(|result| result != "PASS") {
            results = run(build, &setting);
        }
        let others: Vec<_> = results.iter().filter(|(_, result)| *result != "PASS").collect();
        assert!(
            others.is_empty() && results.len() == CASES,
            "{setting}: {} of {CASES} cases ran; not passed: {others:?}; see {}/opendkim/tests/*.log",
            results.len(),
            build.directory().display()
        );
    }
}

/// What comes of each case.
fn run(build: &Build, setting: &Setting) -> BTreeMap<String, String> {
    build.assert_loads(setting);
    // Waiting is nearly all that the cases do, and each has a socket of its own.
    build
        .run_with(setting, "opendkim/tests", &["make", "-j16", "check"], LIMIT)
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(result, _)| ["PASS", "FAIL", "XFAIL", "XPASS", "SKIP", "ERROR"].contains(result))
        .map(|(result, case)| (case.to_owned(), result.to_owned()))
        .collect()
}
