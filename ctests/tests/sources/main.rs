//! Filters that others wrote, built from the sources they released, by their own build systems, with our headers and our
//! libraries.

mod filter;

use ctests::{Build, Linkage, Setting};
use filter::Filter;

/// Builds a filter in both ways and runs it: the shared build with every library, the static one with ours in it.
/// What the MTA sees is always the same.
fn builds_and_runs(filter: &Filter) {
    let test = format!("{} from source", filter.name);
    let Some(shared) = Build::make_or_skip(&test, filter.name, filter.needs, Linkage::Shared) else { return };
    let Some(own) = Build::make_or_skip(&test, filter.name, filter.needs, Linkage::Static) else { return };
    for build in [&shared, &own] {
        build.assert_headers();
    }
    assert_eq!(filter::needs_libmilter(&shared), Some("libmilter.so.1.0.1".to_owned()));
    assert_eq!(filter::needs_libmilter(&own), None);
    let expected = filter.converse(&own, &Setting::ours_static());
    assert!(expected[0].starts_with("OPTNEG ") && expected.last().is_some_and(|end| end == "EOF"), "{expected:?}");
    for setting in Setting::each(&test) {
        assert_eq!(filter.converse(&shared, &setting), expected, "{setting}");
    }
}

#[test]
fn opendkim() {
    builds_and_runs(&filter::OPENDKIM);
}

#[test]
fn opendmarc() {
    builds_and_runs(&filter::OPENDMARC);
}

#[test]
fn amavisd_milter() {
    builds_and_runs(&filter::AMAVISD_MILTER);
}
