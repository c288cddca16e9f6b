//! Functions and types as abidiff of libabigail sees them, which reads debugging information.
//!
//! Debian's libmilter has none, so a stand-in takes its place: the functions that the reference's header declares, defined
//! without a body. Three comparisons follow from that: the stand-in of the reference's header with that of ours, where
//! every type has to be the same; the stand-in with our library, where abidiff looks beyond the names that C and Rust have
//! for a type, but not beyond sizes, fields and numbers of parameters; and the two libraries themselves, name by name.

use crate::reference::Declarations;
use ctests::stage::{build, exists, output};
use ctests::{Library, ReferenceHeaders, TempDir, skip, target_dir, workspace_dir};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What abidiff reports, or nothing.
fn differences(options: &[&str], one: &Path, other: &Path) -> String {
    let result = Command::new("abidiff").args(options).arg(one).arg(other).output().expect("abidiff can be started");
    let text = String::from_utf8_lossy(&result.stdout).into_owned() + &String::from_utf8_lossy(&result.stderr);
    // Bits 0 and 1 stand for failures of abidiff, the next ones for differences.
    let code = result.status.code().expect("abidiff is not killed");
    assert_eq!(code & 3, 0, "abidiff failed: {text}");
    if code == 0 { String::new() } else { text }
}

/// A shared object that has the functions which the header in `include` declares, with debugging information.
fn stand_in(include: &Path, directory: &TempDir) -> PathBuf {
    let prototypes = Declarations::of(include).prototypes;
    assert_eq!(prototypes.len(), 26, "{prototypes:?}");
    let mut text = "#include <libmilter/mfapi.h>\n".to_owned();
    for prototype in prototypes {
        let definition = prototype.trim_start_matches("__extension__ ").trim_start_matches("extern ");
        text += &format!("{} {{ __builtin_trap(); }}\n", definition.trim_end_matches(';'));
    }
    let library = directory.join("stand-in.so");
    // In C89 bool is int with every header. Parameters have no names there, which gcc only warns about.
    let mut arguments: Vec<String> =
        ["-std=gnu89", "-g", "-w", "-shared", "-fPIC", "-Wl,-soname,libmilter.so.1.0.1"].map(str::to_owned).into();
    arguments.push(format!("-I{}", include.display()));
    build("gcc", &directory.write("stand-in.c", text), &arguments, &library).unwrap_or_else(|error| panic!("{error}"));
    library
}

/// Our library with debugging information.
fn ours_with_debugging_information() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--locked", "--package", "libmilter", "--target-dir"]).arg(target_dir());
    output(build.current_dir(workspace_dir()).env_remove("LIBMILTER_SONAME"));
    target_dir().join("debug/libmilter.so")
}

/// How a stand-in of the reference's header and our library differ.
fn library_differences(stand_in: &Path, library: &Path) -> String {
    // What only ours has is the business of the comparison by name.
    differences(&["--no-added-syms"], stand_in, library)
}

/// How the stand-ins of two headers differ: also in what abidiff takes for harmless, such as const.
fn header_differences(one: &Path, other: &Path) -> String {
    differences(&["--harmless"], one, other)
}

fn is_there(test: &str) -> bool {
    let there = exists("abidiff");
    if !there {
        skip(test, "abigail-tools");
    }
    there
}

#[test]
fn functions_and_types_are_those_of_the_references_headers() {
    if !is_there("types") {
        return;
    }
    let [ours, theirs] = [TempDir::new(), TempDir::new()];
    let ours = stand_in(&workspace_dir().join("include"), &ours);
    let library = ours_with_debugging_information();
    for headers in ReferenceHeaders::all("types") {
        let theirs = stand_in(&headers.include_dir, &theirs);
        assert_eq!(header_differences(&theirs, &ours), "", "{}", headers.name);
        assert_eq!(library_differences(&theirs, &library), "", "{}", headers.name);
    }
}

/// `ctests/headers/reference.abignore` says which names are left out, and why.
#[test]
fn names_are_those_of_the_reference() {
    if !is_there("names by abidiff") {
        return;
    }
    let Some(reference) = Library::reference_or_skip("names by abidiff") else { return };
    let exceptions = workspace_dir().join("ctests/headers/reference.abignore");
    let exceptions = exceptions.to_str().expect("a path of ours");
    let ours = ours_with_debugging_information();
    assert_eq!(differences(&["--suppressions", exceptions], reference.shared_object(), &ours), "");
    // Each of them is needed.
    let all = differences(&[], reference.shared_object(), &ours);
    for name in ["[D] Verbose", "[D] mi_engine", "[D] freehostent", "{smfi_setopt}"] {
        assert!(all.contains(name), "no {name} in {all}");
    }
}

/// One mistake in a prototype or in the structure each; whether the library's debugging information has to show it as well:
/// signedness, const, and the types behind pointers to functions are the header's alone.
#[test]
fn abidiff_notices_mistakes() {
    if !is_there("mistakes by abidiff") {
        return;
    }
    let genuine = workspace_dir().join("include/libmilter");
    let text = fs::read_to_string(genuine.join("mfapi.h")).expect("it is there");
    let right = TempDir::new();
    let right = stand_in(&workspace_dir().join("include"), &right);
    let library = ours_with_debugging_information();
    for (from, to, in_library) in [
        ("int smfi_settimeout(int ", "int smfi_settimeout(long ", true),
        ("int smfi_settimeout(int ", "int smfi_settimeout(unsigned int ", false),
        ("int smfi_progress(", "long smfi_progress(", true),
        ("int smfi_delrcpt(SMFICTX *__ctx, ", "int smfi_delrcpt(SMFICTX *__ctx, int __more, ", true),
        ("int smfi_addrcpt(SMFICTX *__ctx, char", "int smfi_addrcpt(SMFICTX *__ctx, const char", false),
        ("size_t smfi_setmaxdatasize(size_t", "int smfi_setmaxdatasize(int", true),
        ("int xxfi_version;", "long xxfi_version;", true),
        ("unsigned long xxfi_flags;", "unsigned int xxfi_flags;", true),
        ("char *xxfi_name;", "char *xxfi_name; char *xxfi_more;", true),
        ("(*xxfi_body)(SMFICTX*, unsigned char*, size_t)", "(*xxfi_body)(SMFICTX*, unsigned char*, int)", false),
    ] {
        let wrong = TempDir::new();
        fs::create_dir(wrong.join("libmilter")).expect("a fresh directory");
        assert_eq!(text.matches(from).count(), 1, "{from}");
        wrong.write("libmilter/mfapi.h", text.replace(from, to));
        fs::copy(genuine.join("mfdef.h"), wrong.join("libmilter/mfdef.h")).expect("it can be copied");
        let wrong = stand_in(wrong.path(), &wrong);
        assert_ne!(header_differences(&right, &wrong), "", "{to} goes unnoticed");
        if in_library {
            assert_ne!(library_differences(&wrong, &library), "", "{to} goes unnoticed in the library");
        }
    }
    assert_eq!(library_differences(&right, &library), "");
}
