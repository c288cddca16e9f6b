//! What the packages of the several systems say about themselves.

use ctests::stage::{exists, output};
use ctests::{skip, workspace_dir};
use std::fs;
use std::process::Command;

fn text(name: &str) -> String {
    fs::read_to_string(workspace_dir().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The version of the workspace.
fn version() -> String {
    let manifest = text("Cargo.toml");
    let line = manifest.lines().find_map(|line| line.strip_prefix("version = ")).expect("there is a version");
    line.trim_matches('"').to_owned()
}

#[test]
fn all_have_the_version_of_the_workspace() {
    let version = version();
    for (file, line) in [
        ("debian/changelog", format!("libmilter-rs ({version}) unstable; urgency=medium")),
        ("packaging/rpm/libmilter-rs.spec", format!("Version:        {version}")),
        ("packaging/alpine/APKBUILD", format!("pkgver={version}")),
        ("packaging/homebrew/libmilter-rs.rb", format!("  url \"file://#{{__dir__}}/libmilter-rs-{version}.tar.gz\"")),
    ] {
        assert!(text(file).lines().any(|found| found == line), "{file}: no line '{line}'");
    }
}

#[test]
fn each_system_gets_the_name_that_its_programs_ask_for() {
    assert!(text("debian/libmilter-rs1.0.1.symbols").contains("\nlibmilter.so.1.0.1 "));
    assert!(text("packaging/rpm/libmilter-rs.spec").contains("%global soname libmilter.so.1.0\n"));
    assert!(text("packaging/alpine/APKBUILD").contains("LIBMILTER_SONAME=libmilter.so.1.0.2\n"));
}

/// What cargo-c would install has the numbers of what make installs.
#[test]
fn cargo_c_has_the_numbers_of_the_makefile() {
    let (makefile, manifest) = (text("Makefile"), text("Cargo.toml"));
    let set = |name: &str| {
        let value = makefile.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        value.unwrap_or_else(|| panic!("the Makefile does not set {name}")).to_owned()
    };
    let (_, metadata) = manifest.split_once("\n[package.metadata.capi.library]\n").expect("there is metadata");
    let interface = set("SONAME").replace("libmilter.so.", "");
    let suffix = interface.split('.').count();
    let (library, description) =
        metadata.split_once("\n[package.metadata.capi.pkg_config]\n").expect("it has a description");
    for (part, line) in [
        (library, "name = \"milter\"".to_owned()),
        (library, format!("version = \"{interface}\"")),
        (library, format!("version_suffix_components = {suffix}")),
        (description, "filename = \"milter\"".to_owned()),
        (description, format!("version = \"{}\"", set("VERSION"))),
    ] {
        assert!(part.lines().any(|found| found == line), "no {line} in\n{part}");
    }
}

/// A function that is missing there would fail the build of the packages.
#[test]
fn debian_knows_every_function() {
    let headers = text("include/libmilter/mfapi.h") + &text("include/libmilter/mfext.h");
    let mut declared: Vec<&str> = headers
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once("LIBMILTER_API ")?.1.split_once('(')?.0.rsplit(['*', ' ']).next())
        .chain(["mi_stop", "sm_errstring", "sm_strlcat", "sm_strlcat2", "sm_strlcpy", "sm_strlcpyn"])
        .collect();
    declared.sort_unstable();
    let symbols = text("debian/libmilter-rs1.0.1.symbols");
    let mut listed: Vec<&str> = symbols.lines().filter_map(|line| Some(line.split_once("@Base")?.0.trim())).collect();
    listed.sort_unstable();
    assert_eq!(listed, declared);
}

#[test]
fn scripts_for_alpine_and_homebrew_have_no_syntax_errors() {
    let build = workspace_dir().join("packaging/alpine/APKBUILD");
    output(Command::new("sh").arg("-n").arg(&build));
    if exists("shellcheck") {
        // What abuild reads, and what it sets.
        output(Command::new("shellcheck").args(["--shell=dash", "--exclude=SC2034,SC2154"]).arg(build));
    } else {
        skip("mistakes in the APKBUILD", "shellcheck");
    }
    if exists("ruby") {
        output(Command::new("ruby").arg("-c").arg(workspace_dir().join("packaging/homebrew/libmilter-rs.rb")));
    } else {
        skip("syntax of the formula for Homebrew", "ruby");
    }
}
