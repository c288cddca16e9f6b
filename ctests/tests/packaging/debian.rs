//! The packages for Debian: what is in them, and how apt puts them in place of sendmail's and back.

use crate::chroot::{Chroot, Network};
use crate::readme::{SIGNED_WITH, commands};
use ctests::stage::{exists, make, output};
use ctests::{skip, target_dir};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The directory of the packages, built by the first call; `None`, and `test` counts as skipped, where that is impossible.
fn packages_or_skip(test: &str) -> Option<&'static Path> {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    for program in ["dpkg-buildpackage", "dh"] {
        if !exists(program) {
            skip(test, if program == "dh" { "debhelper" } else { "dpkg-dev" });
            return None;
        }
    }
    Some(PACKAGES.get_or_init(|| {
        output(make().arg("deb"));
        target_dir().join("deb")
    }))
}

/// The package file of this name.
fn package(directory: &Path, name: &str) -> PathBuf {
    let entries = fs::read_dir(directory).expect("make has made it").filter_map(Result::ok);
    let start = format!("{name}_");
    let mut found = entries.filter(|entry| {
        let file = entry.file_name().to_string_lossy().into_owned();
        file.starts_with(&start) && file.ends_with(".deb")
    });
    found.next().unwrap_or_else(|| panic!("no package {name} in {}", directory.display())).path()
}

/// The files of a package, but documentation and what lintian is told.
fn files(package: &Path) -> Vec<String> {
    let listing = output(Command::new("dpkg-deb").arg("--contents").arg(package));
    let names = listing.lines().filter(|line| !line.starts_with('d')).map(|line| {
        // Mode, owner, size, date, time, name, and for a link "-> destination".
        let name = line.split_whitespace().skip(5).collect::<Vec<_>>().join(" ");
        name.trim_start_matches('.').to_owned()
    });
    let is_aside =
        |name: &str| ["doc", "man", "lintian"].iter().any(|aside| name.starts_with(&format!("/usr/share/{aside}/")));
    let mut names: Vec<String> = names.filter(|name| !is_aside(name)).collect();
    names.sort();
    names
}

#[test]
fn files_are_where_sendmail_has_them() {
    let Some(packages) = packages_or_skip("contents of Debian's packages") else { return };
    let multiarch = output(Command::new("dpkg-architecture").args(["-q", "DEB_HOST_MULTIARCH"]));
    let lib = format!("/usr/lib/{}", multiarch.trim());
    assert_eq!(files(&package(packages, "libmilter-rs1.0.1")), [format!("{lib}/libmilter.so.1.0.1")]);
    assert_eq!(
        files(&package(packages, "libmilter-rs-dev")),
        [
            "/usr/include/libmilter/mfapi.h".to_owned(),
            "/usr/include/libmilter/mfdef.h".to_owned(),
            "/usr/include/libmilter/mfext.h".to_owned(),
            format!("{lib}/cmake/libmilter/libmilter-config-version.cmake"),
            format!("{lib}/cmake/libmilter/libmilter-config.cmake"),
            format!("{lib}/libmilter.a"),
            format!("{lib}/libmilter.so -> libmilter.so.1.0.1"),
            format!("{lib}/pkgconfig/milter.pc"),
        ]
    );
    assert_eq!(
        files(&package(packages, "milter-probe")),
        [
            "/usr/bin/milter-probe",
            "/usr/share/bash-completion/completions/milter-probe",
            "/usr/share/fish/vendor_completions.d/milter-probe.fish",
            "/usr/share/zsh/vendor-completions/_milter-probe",
        ]
    );
}

#[test]
fn lintian_finds_no_error() {
    let test = "lintian";
    if !exists("lintian") {
        return skip(test, "lintian");
    }
    let Some(packages) = packages_or_skip(test) else { return };
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0"]);
    for name in ["libmilter-rs1.0.1", "libmilter-rs-dev", "milter-probe"] {
        lintian.arg(package(packages, name));
    }
    let said = lintian.output().expect("lintian can be started");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
}

/// Names of the installed packages.
fn installed(debian: &Chroot) -> BTreeSet<String> {
    let listing = debian.run(Network::Loopback, "dpkg-query --show --showformat='${db:Status-Status} ${Package}\\n'");
    listing.lines().filter_map(|line| line.strip_prefix("installed ")).map(str::to_owned).collect()
}

/// Every program and module that is linked with libmilter finds it, with all that it wants from it.
const ALL_FILTERS_LINK: &str = r#"
apt-get check
count=0
for file in /usr/sbin/opendkim /usr/sbin/opendmarc /usr/sbin/clamav-milter /usr/bin/mimedefang \
    /usr/lib/python3/dist-packages/milter.*.so; do
    missing=$(ldd -r "$file" 2>&1 | grep libmilter.*not\ found\\\|undefined\ symbol:\ smfi || :)
    [ -z "$missing" ] || { echo "$file: $missing" >&2; exit 1; }
    ldd "$file" | grep -q libmilter.so.1.0.1
    count=$((count + 1))
done
[ $count -eq 5 ]
python3 -c 'import Milter'
"#;

#[test]
fn apt_swaps_the_library_under_all_filters_and_back() {
    let test = "apt swaps the library and back";
    let Some(packages) = packages_or_skip(test) else { return };
    let Some(debian) = Chroot::new_or_skip(test) else { return };
    debian.run(
        Network::Machine,
        "apt-get update
        apt-get install --yes --no-install-recommends postfix opendkim opendkim-tools \
            clamav-milter opendmarc mimedefang python3-milter libmilter-dev
        useradd --create-home keeper",
    );
    for entry in fs::read_dir(packages).expect("make has made it").filter_map(Result::ok) {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            fs::copy(entry.path(), debian.path("/root").join(entry.file_name())).expect("root may write there");
        }
    }
    let original = installed(&debian);
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
    let sendmails = names(&["libmilter1.0.1", "libmilter-dev"]);
    let ours = names(&["libmilter-rs1.0.1", "libmilter-rs-dev", "milter-probe"]);
    assert!(original.is_superset(&sendmails), "{original:?}");

    // Nothing can be fetched from here on: apt has to get along with what is there.
    let signed = debian.run(Network::Loopback, &(commands("sign") + SIGNED_WITH));
    assert_eq!(signed.lines().last(), Some("libmilter1.0.1"), "{signed}");
    for _ in 0..2 {
        debian.run(Network::Loopback, "cd /root; apt-get install --yes ./*.deb");
        debian.run(Network::Loopback, ALL_FILTERS_LINK);
        let expected: BTreeSet<String> = original.difference(&sendmails).chain(&ours).cloned().collect();
        assert_eq!(installed(&debian), expected);
        let restarted = format!("service opendkim restart; service postfix restart\n{SIGNED_WITH}");
        let signed = debian.run(Network::Loopback, &restarted);
        assert_eq!(signed.lines().last(), Some("libmilter-rs1.0.1"), "{signed}");

        debian.run(Network::Loopback, "apt-get install --yes libmilter1.0.1 libmilter-dev");
        debian.run(Network::Loopback, ALL_FILTERS_LINK);
        let probe = names(&["milter-probe"]);
        assert_eq!(installed(&debian), original.union(&probe).cloned().collect());
        let signed = debian.run(Network::Loopback, &restarted);
        assert_eq!(signed.lines().last(), Some("libmilter1.0.1"), "{signed}");
    }
}
