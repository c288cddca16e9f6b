//! The packages for Fedora, as far as a machine without Fedora can build and read them.

use ctests::stage::{exists, make, output};
use ctests::{skip, target_dir, workspace_dir};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What rpm answers about a package file.
fn ask(package: &Path, question: &str) -> Vec<String> {
    let answer = output(Command::new("rpm").args(["--query", "--package", question]).arg(package));
    answer.lines().map(str::to_owned).collect()
}

#[test]
fn fedora_gets_its_names() {
    if !exists("rpmbuild") {
        return skip("RPM packages", "rpmbuild");
    }
    output(make().arg("dist"));
    let place = target_dir().join("ctests/rpm");
    let _ = fs::remove_dir_all(&place);
    let mut rpmbuild = Command::new("rpmbuild");
    // The machine's packages are not rpm's.
    rpmbuild.args(["-bb", "--nodeps", "--quiet"]);
    for (name, value) in [
        ("_topdir", place.display().to_string()),
        ("_sourcedir", target_dir().display().to_string()),
        ("_libdir", "/usr/lib64".to_owned()),
    ] {
        rpmbuild.arg("--define").arg(format!("{name} {value}"));
    }
    output(rpmbuild.arg(workspace_dir().join("packaging/rpm/libmilter-rs.spec")));

    let architecture = output(Command::new("rpm").args(["--eval", "%{_arch}"]));
    let packages = place.join("RPMS").join(architecture.trim());
    let package = |name: &str| {
        let found = fs::read_dir(&packages).expect("rpmbuild makes it").filter_map(Result::ok);
        let mut found = found.map(|entry| entry.path()).filter(|path| {
            let file = path.file_name().expect("files have names").to_string_lossy();
            file.strip_prefix(name).is_some_and(|rest| rest.starts_with("-0") || rest.starts_with("-1"))
        });
        found.next().unwrap_or_else(|| panic!("no package {name} in {}", packages.display()))
    };
    let library = package("libmilter-rs");
    let files = ask(&library, "--list");
    for file in ["/usr/lib64/libmilter.so.1.0", "/usr/lib64/libmilter.so.1.0.1"] {
        assert!(files.iter().any(|found| found == file), "{file} is not among {files:?}");
    }
    let provided = ask(&library, "--provides");
    for name in ["libmilter.so.1.0()(64bit)", "sendmail-milter = 9~"] {
        assert!(provided.iter().any(|found| found == name), "{name} is not among {provided:?}");
    }
    let files = ask(&package("libmilter-rs-devel"), "--list");
    for file in [
        "/usr/include/libmilter/mfapi.h",
        "/usr/include/libmilter/mfdef.h",
        "/usr/lib64/libmilter.a",
        "/usr/lib64/libmilter.so",
        "/usr/lib64/pkgconfig/milter.pc",
    ] {
        assert!(files.iter().any(|found| found == file), "{file} is not among {files:?}");
    }
    let files = ask(&package("milter-probe"), "--list");
    for file in ["/usr/bin/milter-probe", "/usr/share/zsh/site-functions/_milter-probe"] {
        assert!(files.iter().any(|found| found == file), "{file} is not among {files:?}");
    }
    fs::remove_dir_all(place.join("BUILD")).expect("rpmbuild has built there");
}
