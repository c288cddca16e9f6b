//! What the library answers to calls outside a session.

use ctests::stage::{self, output};
use ctests::{Compile, Library, TempDir, workspace_dir};
use std::process::Command;

fn answers(library: &Library, arguments: &[&str]) -> String {
    let directory = TempDir::new();
    let program = Compile::c(library).source("ctests/headers/calls.c").to(directory.join("calls"));
    output(Command::new(program).args(arguments))
}

#[test]
fn calls_outside_a_session_are_answered_as_by_the_reference() {
    let ours = answers(Library::ours(), &[]);
    let registered = ours.lines().filter(|line| line.starts_with("register") && line.ends_with("= 0")).count();
    assert_eq!(registered, 10, "{ours}");
    assert!(!ours.contains("errno"), "{ours}");
    if let Some(reference) = Library::reference_or_skip("calls outside a session") {
        assert_eq!(ours, answers(reference, &[]));
    }
}

#[test]
fn defect_25_a_macro_list_without_a_session_is_refused() {
    let ours = answers(Library::ours(), &["setsymlist"]);
    assert!(ours.ends_with("smfi_setsymlist(NULL, SMFIM_CONNECT, list) = -1\n"), "{ours}");
}

#[test]
fn defect_25_a_filter_that_was_not_registered_does_not_start() {
    let text = r#"
        #include <libmilter/mfapi.h>
        int main(void) { static char port[] = "inet:0@[127.0.0.1]"; smfi_setconn(port); return smfi_main() != -1; }
    "#;
    stage::with_program(text, &stage::pkg_config(&["--cflags", "--libs"]), |program| {
        stage::run(program);
    });
}

#[test]
fn defect_40_a_refused_filter_is_not_registered() {
    let text = r#"
        #include <libmilter/mfapi.h>
        int main(void)
        {
            static char port[] = "inet:0@[127.0.0.1]";
            struct smfiDesc filter = { 0 };
            filter.xxfi_version = SMFI_VERSION;
            smfi_setconn(port);
            if (smfi_register(filter) != MI_SUCCESS)
                return 1;
            filter.xxfi_version = 7;
            if (smfi_register(filter) != MI_FAILURE)
                return 2;
            return smfi_opensocket(0) != MI_FAILURE;
        }
    "#;
    stage::with_program(text, &stage::pkg_config(&["--cflags", "--libs"]), |program| {
        stage::run(program);
    });
}

/// Callers whose `bool` is an octet leave the rest of the argument undefined.
#[test]
fn only_the_low_octet_of_a_bool_counts() {
    let text = r#"
        #include <libmilter/mfapi.h>
        #include <stdio.h>
        int main(int argc, char **argv)
        {
            struct smfiDesc filter = { 0 };
            union { int (*as_declared)(bool); int (*with_int)(int); } open;
            FILE *stale;
            open.as_declared = smfi_opensocket;
            filter.xxfi_version = SMFI_VERSION;
            if (argc != 2 || smfi_register(filter) != MI_SUCCESS || smfi_setconn(argv[1]) != MI_SUCCESS)
                return 1;
            /* A plain file is in the way: it stays, whatever the argument says. */
            stale = fopen(argv[1], "w");
            if (stale == NULL || fclose(stale) != 0 || open.with_int(0x101) != MI_FAILURE)
                return 2;
            if (remove(argv[1]) != 0 || open.with_int(0x100) != MI_SUCCESS)
                return 3;
            return 0;
        }
    "#;
    stage::with_program(text, &stage::pkg_config(&["--cflags", "--libs"]), |program| {
        let directory = TempDir::new();
        let lib = stage::prefix().join("lib");
        output(Command::new(program).arg(directory.join("socket")).env("LD_LIBRARY_PATH", lib));
    });
}

#[test]
fn the_example_filter_runs_from_registration_to_stop() {
    let directory = TempDir::new();
    let source = workspace_dir().join("ctests/headers/filter.c");
    let program = directory.join("filter");
    stage::build("cc", &source, &stage::pkg_config(&["--cflags", "--libs"]), &program).unwrap();
    assert_eq!(stage::run(&program), "1.0.1\n");
}

#[test]
fn options_are_taken_or_refused() {
    let text = r#"
        #include <libmilter/mfext.h>
        int main(void)
        {
            static char port[] = "inet:0@[127.0.0.1]";
            struct smfiDesc filter = { 0 };
            filter.xxfi_version = SMFI_VERSION;
            if (smfi_setopt("drain", "1") != MI_SUCCESS || smfi_setopt("threads", "1") != MI_SUCCESS
                || smfi_setopt("noreply", "header, body") != MI_SUCCESS)
                return 1;
            if (smfi_setopt("drain", "soon") != MI_FAILURE || smfi_setopt("speed", "11") != MI_FAILURE
                || smfi_setopt(0, "1") != MI_FAILURE || smfi_setopt("drain", 0) != MI_FAILURE)
                return 2;
            smfi_setconn(port);
            if (smfi_register(filter) != MI_SUCCESS || smfi_opensocket(0) != MI_SUCCESS)
                return 3;
            /* One thread for all, and one for each connection: that cannot be. */
            if (smfi_setopt("model", "threads") != MI_SUCCESS)
                return 4;
            if (smfi_main() != MI_FAILURE)
                return 5;
            /* 0 takes a limit back. */
            if (smfi_setopt("threads", "0") != MI_SUCCESS)
                return 6;
            smfi_stop();
            return smfi_main() != MI_SUCCESS;
        }
    "#;
    stage::with_program(text, &stage::pkg_config(&["--cflags", "--libs"]), |program| {
        stage::run(program);
    });
}
