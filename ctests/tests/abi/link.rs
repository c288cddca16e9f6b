//! Linking as configure scripts and build systems of existing filters do it.

use crate::symbols::NAMES;
use ctests::stage::{self, build, output, pkg_config, run, with_program};
use ctests::{TempDir, workspace_dir};
use std::path::Path;
use std::process::Command;

/// `-L` of the installed library and what else is given.
fn libraries(others: &[&str]) -> Vec<String> {
    let mut arguments = vec![format!("-L{}", stage::prefix().join("lib").display())];
    arguments.extend(others.iter().map(|other| (*other).to_owned()));
    arguments
}

/// The program by which a configure script finds out whether a function exists.
fn function_probe(name: &str) -> String {
    format!("char {name}(void);\nint main(void) {{ return {name}(); }}\n")
}

/// spamass-milter gives up without `mi_stop`, MIMEDefang asks for `sm_strlcpy` with -lmilter alone, OpenDKIM, OpenDMARC,
/// OpenARC, amavisd-milter and milter-greylist ask for one function or another.
#[test]
fn d1_d2_d4_function_probes_link() {
    for name in NAMES {
        for others in [&["-w", "-fno-builtin", "-lmilter"][..], &["-w", "-fno-builtin", "-lmilter", "-lpthread"]] {
            with_program(&function_probe(name), &libraries(others), |_| {});
        }
    }
}

#[test]
fn function_probes_can_fail() {
    let directory = TempDir::new();
    let source = directory.write("probe.c", function_probe("smfi_nonsense"));
    let result = build("cc", &source, &libraries(&["-w", "-lmilter"]), &directory.join("probe"));
    assert!(result.is_err_and(|error| error.contains("smfi_nonsense")));
}

/// MIMEDefang greps both listings for what it would have to link in addition.
#[test]
fn d3_the_libraries_need_nothing_of_sendmail_or_ldap() {
    let shared = output(Command::new("nm").arg("-D").arg(stage::shared_object()));
    let archive = output(Command::new("nm").arg(stage::static_library()));
    for listing in [shared, archive] {
        let foreign: Vec<&str> = listing
            .lines()
            .filter(|line| line.contains(" U "))
            .filter(|line| ["ldap", " sm_", " mi_", "res_", "smfi_"].iter().any(|part| line.contains(part)))
            .collect();
        assert!(foreign.is_empty(), "{foreign:?}");
    }
}

#[test]
fn d5_d6_pkg_config_knows_the_library() {
    assert_eq!(pkg_config(&["--modversion"]), ["8.17.1"]);
    let lib = stage::prefix().join("lib");
    assert_eq!(pkg_config(&["--libs"]), [format!("-L{}", lib.display()), "-lmilter".to_owned()]);
}

#[test]
fn d7_both_ways_of_including_the_header_work() {
    let source = workspace_dir().join("ctests/headers/filter.c");
    let directory = TempDir::new();
    for (number, style) in ["-UMFAPI_BARE", "-DMFAPI_BARE"].into_iter().enumerate() {
        let program = directory.join(number.to_string());
        let mut arguments = pkg_config(&["--cflags", "--libs"]);
        arguments.push(style.to_owned());
        build("cc", &source, &arguments, &program).unwrap_or_else(|error| panic!("{style}: {error}"));
        assert_eq!(run(&program), "1.0.1\n");
    }
}

/// The example filter, linked in a way that must not need the shared object.
fn runs_without_the_shared_object(arguments: &[String]) {
    let source = workspace_dir().join("ctests/headers/filter.c");
    let directory = TempDir::new();
    let program = directory.join("filter");
    build("cc", &source, arguments, &program).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
    assert_eq!(output(Command::new(&program).env("LD_LIBRARY_PATH", "/nonexistent")), "1.0.1\n");
    let needed = output(Command::new("readelf").arg("--dynamic").arg(&program));
    assert!(!needed.contains("libmilter"), "{needed}");
}

#[test]
fn static_programs_need_only_the_thread_library() {
    let mut arguments = pkg_config(&["--cflags"]);
    arguments.extend(libraries(&["-Wl,-Bstatic", "-lmilter", "-Wl,-Bdynamic", "-lpthread"]));
    runs_without_the_shared_object(&arguments);
}

#[test]
fn pkg_config_links_static_programs() {
    let mut arguments = vec!["-static".to_owned()];
    arguments.extend(pkg_config(&["--static", "--cflags", "--libs"]));
    runs_without_the_shared_object(&arguments);
}

/// Rust's standard library is in both of them.
#[test]
fn two_static_libraries_from_rust_fit_into_one_program() {
    let directory = TempDir::new();
    let rust = directory.write(
        "other.rs",
        r#"#[unsafe(no_mangle)]
        pub extern "C" fn other(number: u32) -> usize {
            std::panic::catch_unwind(|| format!("{:?}", [1, 2][number as usize]).len()).unwrap_or(77)
        }"#,
    );
    let other = directory.join("libother.a");
    output(Command::new("rustc").args(["--edition=2024", "--crate-type=staticlib", "-O", "-o"]).arg(&other).arg(rust));
    let program = directory.write(
        "program.c",
        r#"#include <libmilter/mfapi.h>
        size_t other(unsigned number);
        int main(void) { return !(smfi_version(0, 0, 0) == 0 && other(1) == 1 && other(2) == 77); }"#,
    );
    let ours = stage::static_library();
    for order in [[&ours, &other], [&other, &ours]] {
        let mut arguments = pkg_config(&["--cflags"]);
        arguments.extend(order.map(|path| path.display().to_string()));
        arguments.extend(["-lpthread", "-ldl", "-lm"].map(str::to_owned));
        let built = directory.join("program");
        build("cc", &program, &arguments, &built).unwrap_or_else(|error| panic!("{order:?}: {error}"));
        output(&mut Command::new(&built));
    }
}

/// A module that a program loads and unloads; threads of ours must not lose their code.
#[test]
fn the_shared_object_survives_being_unloaded() {
    let text = r#"
        #include <dlfcn.h>
        #include <stddef.h>
        int main(int argc, char **argv)
        {
            void *library = dlopen(argv[argc - 1], RTLD_NOW);
            int (*version)(unsigned *, unsigned *, unsigned *);
            if (library == NULL)
                return 1;
            *(void **) &version = dlsym(library, "smfi_version");
            if (version == NULL || dlclose(library) != 0)
                return 2;
            return version(NULL, NULL, NULL);
        }
    "#;
    with_program(text, &["-ldl".to_owned()], |program: &Path| {
        output(Command::new(program).arg(stage::shared_object()));
    });
}
