//! `make install` and `make uninstall`.

use crate::manual;
use ctests::stage::{make, output};
use ctests::{TempDir, target_dir};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{fs, process::Command};

/// Everything below a directory that is no directory, with the destination of links.
fn files(directory: &Path) -> BTreeMap<PathBuf, Option<PathBuf>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(&next).unwrap_or_else(|error| panic!("{}: {error}", next.display())) {
            let path = entry.expect("the directory stays").path();
            if path.is_dir() && !path.is_symlink() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(directory).expect("it is below").to_path_buf();
                found.insert(name, fs::read_link(&path).ok());
            }
        }
    }
    found
}

fn expected(entries: &[(&str, Option<&str>)]) -> BTreeMap<PathBuf, Option<PathBuf>> {
    entries.iter().map(|(name, link)| (name.into(), link.map(PathBuf::from))).collect()
}

/// The files of the library, and the manual pages of this checkout below `manual`.
fn with_manual(entries: &[(&str, Option<&str>)], manual: &str) -> BTreeMap<PathBuf, Option<PathBuf>> {
    let mut files = expected(entries);
    for (name, section) in manual::pages() {
        files.insert(format!("{manual}/man{section}/{name}.{section}").into(), None);
    }
    files
}

/// Where everything is installed, by the first call.
fn everything() -> &'static Path {
    static EVERYTHING: OnceLock<PathBuf> = OnceLock::new();
    EVERYTHING.get_or_init(|| {
        let everything = target_dir().join("ctests/everything");
        let _ = fs::remove_dir_all(&everything);
        output(make().arg("install").arg(format!("PREFIX={}", everything.display())));
        everything
    })
}

/// Runs `make` on what is built already.
fn make_built(arguments: &[String]) {
    everything();
    output(make().arg("CARGO=true").args(arguments));
}

#[test]
fn everything_has_its_place_below_the_prefix() {
    assert_eq!(
        files(everything()),
        with_manual(
            &[
                ("bin/milter-probe", None),
                ("include/libmilter/mfapi.h", None),
                ("include/libmilter/mfdef.h", None),
                ("include/libmilter/mfext.h", None),
                ("lib/cmake/libmilter/libmilter-config-version.cmake", None),
                ("lib/cmake/libmilter/libmilter-config.cmake", None),
                ("lib/libmilter.a", None),
                ("lib/libmilter.so", Some("libmilter.so.1.0.1")),
                ("lib/libmilter.so.1.0.1", None),
                ("lib/pkgconfig/milter.pc", None),
                ("share/bash-completion/completions/milter-probe", None),
                ("share/fish/vendor_completions.d/milter-probe.fish", None),
                ("share/zsh/site-functions/_milter-probe", None),
            ],
            "share/man"
        )
    );
}

#[test]
fn a_distribution_chooses_directories_and_name() {
    let destination = TempDir::new();
    let arguments = [
        "install".to_owned(),
        format!("DESTDIR={}", destination.path().display()),
        "PREFIX=/usr".to_owned(),
        "LIBDIR=/usr/lib/x86_64-linux-gnu".to_owned(),
        "INCLUDEDIR=/usr/headers".to_owned(),
        "BINDIR=/usr/programs".to_owned(),
        "DATADIR=/usr/data".to_owned(),
        "MANDIR=/usr/manual".to_owned(),
        "ZSHDIR=/usr/zsh".to_owned(),
        "LIBMILTER_SONAME=libmilter.so.6".to_owned(),
    ];
    make_built(&arguments);
    assert_eq!(
        files(destination.path()),
        with_manual(
            &[
                ("usr/data/bash-completion/completions/milter-probe", None),
                ("usr/data/fish/vendor_completions.d/milter-probe.fish", None),
                ("usr/headers/libmilter/mfapi.h", None),
                ("usr/headers/libmilter/mfdef.h", None),
                ("usr/headers/libmilter/mfext.h", None),
                ("usr/lib/x86_64-linux-gnu/cmake/libmilter/libmilter-config-version.cmake", None),
                ("usr/lib/x86_64-linux-gnu/cmake/libmilter/libmilter-config.cmake", None),
                ("usr/lib/x86_64-linux-gnu/libmilter.a", None),
                ("usr/lib/x86_64-linux-gnu/libmilter.so", Some("libmilter.so.6")),
                ("usr/lib/x86_64-linux-gnu/libmilter.so.6", None),
                ("usr/lib/x86_64-linux-gnu/pkgconfig/milter.pc", None),
                ("usr/programs/milter-probe", None),
                ("usr/zsh/_milter-probe", None),
            ],
            "usr/manual"
        )
    );
    let description = fs::read_to_string(destination.join("usr/lib/x86_64-linux-gnu/pkgconfig/milter.pc"));
    let description = description.expect("it is a text");
    for line in
        ["prefix=/usr", "libdir=${prefix}/lib/x86_64-linux-gnu", "includedir=${prefix}/headers", "Version: 8.17.1"]
    {
        assert!(description.lines().any(|found| found == line), "{line}\n{description}");
    }
    assert!(!description.contains('@'), "{description}");
}

#[test]
fn without_a_name_of_its_own_the_library_is_a_plain_file() {
    let destination = TempDir::new();
    let place = format!("DESTDIR={}", destination.path().display());
    make_built(&["install".to_owned(), place, "PREFIX=".to_owned(), "LIBMILTER_SONAME=".to_owned()]);
    assert_eq!(files(destination.path()).get(Path::new("lib/libmilter.so")), Some(&None));
}

#[test]
fn uninstalling_leaves_nothing_behind_and_takes_nothing_else() {
    let destination = TempDir::new();
    let place = format!("DESTDIR={}", destination.path().display());
    make_built(&["install".to_owned(), place.clone()]);
    assert!(!files(destination.path()).is_empty());
    make_built(&["uninstall".to_owned(), place.clone()]);
    assert_eq!(files(destination.path()), BTreeMap::new());
    assert!(!destination.join("usr/local/include/libmilter").exists());

    make_built(&["install".to_owned(), place.clone()]);
    destination.write("usr/local/include/libmilter/other.h", "");
    make_built(&["uninstall".to_owned(), place]);
    assert_eq!(files(destination.path()), expected(&[("usr/local/include/libmilter/other.h", None)]));
}

#[test]
fn who_has_no_cargo_is_told_what_to_do() {
    let empty = TempDir::new();
    let said = make()
        .args(["CARGO=no-such-cargo", "install"])
        .arg(format!("DESTDIR={}", empty.path().display()))
        .env("CARGO_TARGET_DIR", empty.path())
        .output()
        .expect("make can be started");
    let message = String::from_utf8_lossy(&said.stderr);
    assert!(!said.status.success() && message.contains("no-such-cargo not found: install Rust"), "{message}");
    // What an earlier make has built is good enough.
    everything();
    let destination = format!("DESTDIR={}", empty.path().display());
    output(make().args(["CARGO=no-such-cargo", "install", &destination]));
    for file in ["lib/libmilter.so.1.0.1", "bin/milter-probe"] {
        assert!(empty.join("usr/local").join(file).exists(), "{file}");
    }
}

#[test]
fn the_library_and_the_probe_can_be_installed_apart() {
    for (target, file, other) in [("library", "lib/libmilter.a", "bin"), ("probe", "bin/milter-probe", "lib")] {
        let destination = TempDir::new();
        make_built(&[format!("install-{target}"), format!("PREFIX={}", destination.path().display())]);
        assert!(destination.join(file).exists() && !destination.join(other).exists(), "{target}");
    }
}

#[test]
fn shells_find_completions_where_they_are_installed() {
    let bash = everything().join("share/bash-completion/completions/milter-probe");
    let ask = r#". "$1"; complete -p milter-probe"#;
    output(Command::new("bash").args(["--norc", "-e", "-c", ask, "bash"]).arg(bash));
    let first_line = |name: &str| {
        let text = fs::read_to_string(everything().join("share").join(name)).expect("it is installed");
        text.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(first_line("zsh/site-functions/_milter-probe"), "#compdef milter-probe");
    assert!(first_line("fish/vendor_completions.d/milter-probe.fish").starts_with('#'));
}

#[test]
fn the_installed_files_can_be_read_by_everybody() {
    let listing = output(Command::new("find").arg(everything()).args(["-type", "f", "!", "-perm", "-444"]));
    assert_eq!(listing, "");
}
