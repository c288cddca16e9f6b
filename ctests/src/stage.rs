//! The library as `make install-library` puts it in place, in a private prefix.

use crate::{TempDir, target_dir, workspace_dir};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// `make` in the workspace, free of what an outer make has passed on.
#[must_use]
pub fn make() -> Command {
    let mut make = Command::new("make");
    make.arg("--silent").arg("-C").arg(workspace_dir()).env("CARGO_TARGET_DIR", target_dir());
    for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "LIBMILTER_SONAME", "CARGO_BUILD_TARGET"] {
        make.env_remove(variable);
    }
    make
}

/// Runs a program that has to succeed and returns what it printed.
///
/// # Panics
///
/// When it cannot be started, does not succeed, or prints something else than UTF-8.
pub fn output(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
    assert!(status.success(), "{command:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("tools print UTF-8")
}

/// Whether a program can be started.
#[must_use]
pub fn exists(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// The prefix, installed by the first call of the test process.
///
/// # Panics
///
/// When it does not build.
pub fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = target_dir().join("ctests/prefix");
        let _ = std::fs::remove_dir_all(&prefix);
        output(make().arg("install-library").arg(format!("PREFIX={}", prefix.display())));
        prefix
    })
}

/// The shared object there.
#[must_use]
pub fn shared_object() -> PathBuf {
    prefix().join("lib/libmilter.so")
}

/// The static library there.
#[must_use]
pub fn static_library() -> PathBuf {
    prefix().join("lib/libmilter.a")
}

/// What `pkg-config` answers about the installed library, word by word.
///
/// # Panics
///
/// When pkg-config fails.
#[must_use]
pub fn pkg_config(arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.args(arguments).arg("milter").env("PKG_CONFIG_LIBDIR", prefix().join("lib/pkgconfig"));
    output(&mut command).split_whitespace().map(str::to_owned).collect()
}

/// Compiles and links `source`, a file; `arguments` come after it.
///
/// # Errors
///
/// What the compiler says when it fails.
pub fn build(compiler: &str, source: &Path, arguments: &[String], program: &Path) -> Result<(), String> {
    let output = Command::new(compiler).arg(source).args(arguments).arg("-o").arg(program).output();
    let output = output.map_err(|error| format!("{compiler}: {error}"))?;
    output.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Runs a program linked with the shared library.
///
/// # Panics
///
/// When it does not succeed.
pub fn run(program: &Path) -> String {
    output(Command::new(program).env("LD_LIBRARY_PATH", prefix().join("lib")))
}

/// Builds a program from a text in a directory of its own and hands it to `then`.
///
/// # Panics
///
/// When it does not build.
pub fn with_program(text: &str, arguments: &[String], then: impl FnOnce(&Path)) {
    let directory = TempDir::new();
    let program = directory.join("program");
    build("cc", &directory.write("program.c", text), arguments, &program)
        .unwrap_or_else(|error| panic!("{text}\n{error}"));
    then(&program);
}
