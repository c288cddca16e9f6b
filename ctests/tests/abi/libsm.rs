//! The functions of libsm: as the reference's for programs that import them, and out of the way of a program's own.

use ctests::stage::{self, build, output, pkg_config};
use ctests::{Library, TempDir, workspace_dir};
use std::path::Path;
use std::process::Command;

/// What the program prints with the library in `directory`.
fn says(program: &Path, directory: &Path) -> String {
    output(Command::new(program).env("LD_LIBRARY_PATH", directory))
}

/// sid-filter, linked with Debian's libmilter ahead of its own libsm.a, imports `sm_strlcpy` and `sm_strlcat`.
#[test]
fn programs_that_import_them_from_the_reference_run_on_ours() {
    let Some(reference) = Library::reference_or_skip("libsm") else { return };
    let directory = TempDir::new();
    let program = directory.join("libsm");
    let source = workspace_dir().join("ctests/headers/libsm.c");
    let arguments = [format!("-L{}", reference.lib_dir().display()), "-lmilter".to_owned()];
    build("cc", &source, &arguments, &program).unwrap_or_else(|error| panic!("{error}"));
    let imported = output(Command::new("nm").args(["--dynamic", "--undefined-only"]).arg(&program));
    assert_eq!(imported.lines().filter(|line| line.contains(" sm_")).count(), 5, "{imported}");
    let theirs = says(&program, reference.lib_dir());
    let ours = says(&program, stage::shared_object().parent().expect("it lies in a directory"));
    assert!(theirs.lines().count() > 1000, "{theirs}");
    let differences: Vec<_> = ours.lines().zip(theirs.lines()).filter(|(ours, theirs)| ours != theirs).collect();
    assert!(ours == theirs, "{differences:#?}");
}

/// A libsm of its own, as an archive, and a filter that calls it: whatever the order, the program's own is called.
#[test]
fn a_program_may_have_a_libsm_of_its_own() {
    let directory = TempDir::new();
    let own = directory.write(
        "own.c",
        "unsigned long sm_strlcpy(char *d, const char *s, long n) { (void) d; (void) s; (void) n; return 1001; }\n\
         unsigned long sm_strlcat(char *d, const char *s, long n) { (void) d; (void) s; (void) n; return 1002; }\n\
         int sm_only_here(void) { return 1003; }\n",
    );
    let object = directory.join("own.o");
    build("cc", &own, &["-c".to_owned()], &object).unwrap_or_else(|error| panic!("{error}"));
    let archive = directory.join("libsm.a");
    output(Command::new("ar").arg("rcs").arg(&archive).arg(&object));
    let program = directory.write(
        "program.c",
        "#include <libmilter/mfapi.h>\n\
         unsigned long sm_strlcpy(char *, const char *, long), sm_strlcat(char *, const char *, long);\n\
         int sm_only_here(void);\n\
         int main(void) { static char b[8]; return smfi_version(0, 0, 0) != MI_SUCCESS || sm_only_here() != 1003\n\
         || sm_strlcpy(b, \"a\", 8) != 1001 || sm_strlcat(b, \"a\", 8) != 1002; }\n",
    );
    let ours = stage::static_library();
    for order in [[&object, &ours], [&ours, &object], [&archive, &ours], [&ours, &archive]] {
        let mut arguments = pkg_config(&["--cflags"]);
        arguments.extend(order.map(|path| path.display().to_string()));
        arguments.push("-lpthread".to_owned());
        let built = directory.join("program");
        build("cc", &program, &arguments, &built).unwrap_or_else(|error| panic!("{order:?}: {error}"));
        output(&mut Command::new(&built));
    }
}

/// Without one, `-lmilter` alone is enough, as it is with the reference.
#[test]
fn the_static_library_has_them() {
    let directory = TempDir::new();
    let program = directory.join("libsm");
    let arguments = [stage::static_library().display().to_string(), "-lpthread".to_owned()];
    build("cc", &workspace_dir().join("ctests/headers/libsm.c"), &arguments, &program)
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(output(&mut Command::new(&program)).contains("strlcat 4: 4 abc0"));
}

#[test]
fn in_the_static_library_they_are_weak_and_nothing_else_is() {
    let listing = output(Command::new("nm").args(["--extern-only", "--defined-only"]).arg(stage::static_library()));
    let symbols: Vec<(&str, &str)> = listing
        .lines()
        .filter_map(|line| match *line.split_whitespace().collect::<Vec<_>>() {
            [_address, kind, name] => Some((name, kind)),
            _ => None,
        })
        .collect();
    assert!(symbols.iter().any(|(name, _)| name.starts_with("sm_")));
    for (name, kind) in symbols {
        assert_eq!(kind, if name.starts_with("sm_") { "W" } else { "T" }, "{name}");
    }
}
