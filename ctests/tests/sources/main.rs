//! Filters that others wrote, built from the sources they released, by their own build systems, with our headers and our
//! libraries.

mod filter;
mod suite;

use ctests::{Archive, Build, Linkage, Setting};
use filter::{FILTERS, Filter};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, trials()).exit();
}

/// A trial for each archive that is wanted. Of one that no mirror need have nothing is said here: `sources/fetch` has
/// named it.
fn trials() -> Vec<Trial> {
    let archives = Archive::all();
    let (listed, known) = (archives.iter().map(Archive::name), FILTERS.iter().map(|filter| filter.name));
    let (mut listed, mut known): (Vec<_>, Vec<_>) = (listed.collect(), known.collect());
    listed.sort_unstable();
    known.sort_unstable();
    assert_eq!(listed, known, "ctests/sources/archives and tests/sources/filter.rs list different filters");

    let wanted = |filter: &&Filter| archives.iter().any(|archive| archive.name() == filter.name && archive.is_wanted());
    let mut trials: Vec<Trial> =
        FILTERS.iter().filter(wanted).map(|filter| trial(filter.name.to_owned(), || builds_and_runs(filter))).collect();
    trials.push(trial(format!("{}::own_suite", filter::OPENDKIM), suite::same_result));
    trials
}

/// A trial that panics when it fails.
fn trial(name: String, run: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        run();
        Ok::<(), Failed>(())
    })
}

/// Builds a filter in both ways and runs it: the shared build with every library, the static one with ours in it.
/// What the MTA sees is always the same.
fn builds_and_runs(filter: &Filter) {
    let test = format!("{} from source", filter.name);
    let Some(shared) = Build::make_or_skip(&test, filter.name, filter.needs, Linkage::Shared) else { return };
    let Some(own) = Build::make_or_skip(&test, filter.name, filter.needs, Linkage::Static) else { return };
    for build in [&shared, &own] {
        build.assert_headers();
    }
    own.assert_loads(&Setting::ours_static());
    let expected = filter.converse(&own, &Setting::ours_static());
    assert!(expected[0].starts_with("OPTNEG ") && expected.last().is_some_and(|end| end == "EOF"), "{expected:?}");
    for setting in Setting::each(&test) {
        shared.assert_loads(&setting);
        assert_eq!(filter.converse(&shared, &setting), expected, "{setting}");
    }
}
