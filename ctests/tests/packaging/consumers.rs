//! Projects that find the library with pkg-config and with CMake, below a prefix with a blank in its name that
//! has been moved since the library was installed there.

use ctests::stage::{exists, make, output, prefix};
use ctests::{TempDir, skip, workspace_dir};
use std::path::{Path, PathBuf};
use std::process::Command;

/// An installation that lies somewhere else than where `make install` put it.
fn moved_installation(directory: &TempDir) -> PathBuf {
    // Builds the library; two at once would get into each other's way.
    prefix();
    let installed = directory.join("first place");
    output(make().args(["CARGO=true", "install-library"]).arg(format!("PREFIX={}", installed.display())));
    let moved = directory.join("second place");
    std::fs::rename(installed, &moved).expect("both are ours");
    moved
}

/// Runs a program, which finds out whether it got this library, and says whether it needs the shared object.
fn is_shared(program: &Path) -> bool {
    output(Command::new(program).env_remove("LD_LIBRARY_PATH"));
    output(Command::new("readelf").arg("--dynamic").arg(program)).contains("libmilter.so")
}

#[test]
fn pkg_config() {
    let directory = TempDir::new();
    let prefix = moved_installation(&directory);
    let build = |program: &str, line: &str| {
        let path = directory.join(program);
        // As in a makefile: the shell splits what pkg-config prints, and takes its backslashes as quotes.
        let script = format!(r#"eval "cc \"\$1\" -o \"\$2\" {line}""#);
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", &script, "sh"]).arg(workspace_dir().join("ctests/packaging/consumer.c")).arg(&path);
        shell.env("PKG_CONFIG_LIBDIR", prefix.join("lib/pkgconfig")).env("PLACE", &prefix);
        output(&mut shell);
        path
    };
    let found = r#"pkg-config --define-variable=prefix="$PLACE" --cflags --libs"#;
    for style in ["-UMFAPI_BARE", "-DMFAPI_BARE"] {
        let shared = build("shared", &format!(r#"{style} $({found} milter) -Wl,-rpath,\"$PLACE/lib\""#));
        assert!(is_shared(&shared), "{style}");
        let all_static = build("all static", &format!("{style} -static $({found} --static milter)"));
        assert!(!is_shared(&all_static), "{style}");
        let one = build("one library", &format!("{style} $({found} --static milter | sed s/-lmilter/-l:libmilter.a/)"));
        assert!(!is_shared(&one), "{style}");
    }
}

#[test]
fn cmake() {
    if !exists("cmake") {
        return skip("a CMake project finds the library", "cmake");
    }
    let directory = TempDir::new();
    let prefix = moved_installation(&directory);
    let configure = |release: &str| {
        let build = directory.join(release);
        let mut cmake = Command::new("cmake");
        cmake.arg("-S").arg(workspace_dir().join("ctests/packaging")).arg("-B").arg(&build);
        cmake.arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display())).arg(format!("-DRELEASE={release}"));
        cmake.env("PKG_CONFIG_LIBDIR", prefix.join("lib/pkgconfig")).env("PKG_CONFIG", "pkg-config --define-prefix");
        (build, cmake)
    };
    let (build, mut cmake) = configure("8.14");
    output(&mut cmake);
    output(Command::new("cmake").arg("--build").arg(&build));
    for (program, shared) in [
        ("libmilter-milter", true),
        ("libmilter-milter-static", false),
        ("Sendmail-milter", true),
        ("Sendmail-milter-static", false),
        ("pkg-config", true),
    ] {
        assert_eq!(is_shared(&build.join(program)), shared, "{program}");
    }
    for release in ["8.99", "9", "7"] {
        let refused = configure(release).1.output().expect("cmake has been started before");
        assert!(!refused.status.success(), "release {release} has been found");
    }
}
