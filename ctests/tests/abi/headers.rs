//! The headers: up to date, and fit for every language version.

use ctests::stage::{exists, output};
use ctests::{TempDir, skip, target_dir, workspace_dir};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const HEADERS: [&str; 3] = ["mfapi.h", "mfdef.h", "mfext.h"];

/// Where cbindgen has just written the headers to.
fn generated() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut check = Command::new(cargo);
    check.args(["check", "--quiet", "--locked", "--package", "libmilter", "--features", "headers"]);
    check.args(["--message-format", "json", "--target-dir"]).arg(target_dir());
    let messages = output(check.current_dir(workspace_dir()));
    let directory = messages
        .lines()
        .filter(|message| message.contains("build-script-executed") && message.contains("/libmilter-"))
        .find_map(|message| Some(message.split_once("\"out_dir\":\"")?.1.split_once('"')?.0.to_owned()));
    directory.expect("cargo reports the output of build.rs").into()
}

/// `UPDATE_HEADERS=1` writes the headers instead of complaining about them.
#[test]
fn the_committed_headers_are_up_to_date() {
    let fresh = generated();
    let committed = workspace_dir().join("include/libmilter");
    for header in HEADERS {
        let text = fs::read_to_string(fresh.join(header)).expect("build.rs has written it");
        let path = committed.join(header);
        if std::env::var_os("UPDATE_HEADERS").is_some_and(|value| value == "1") {
            fs::write(&path, text).expect("the header can be written");
        } else {
            let old = fs::read_to_string(&path).unwrap_or_default();
            assert!(old == text, "{} is out of date: run the tests with UPDATE_HEADERS=1", path.display());
        }
    }
}

#[test]
fn nothing_but_the_headers_lies_beside_them() {
    let mut names: Vec<_> = fs::read_dir(workspace_dir().join("include/libmilter"))
        .expect("the directory is there")
        .map(|entry| entry.expect("it stays").file_name())
        .collect();
    names.sort();
    assert_eq!(names, HEADERS);
}

struct Compiler {
    name: &'static str,
    package: &'static str,
    extension: &'static str,
    standards: &'static [&'static str],
}

const C: &[&str] = &["c89", "gnu89", "c99", "gnu99", "c11", "gnu11", "c17", "gnu17", "c2x", "gnu2x"];
const CXX: &[&str] = &["c++98", "gnu++98", "c++03", "c++11", "c++14", "c++17", "gnu++17", "c++20", "c++2b"];

const COMPILERS: [Compiler; 4] = [
    Compiler { name: "gcc", package: "gcc", extension: "c", standards: C },
    Compiler { name: "clang", package: "clang", extension: "c", standards: C },
    Compiler { name: "g++", package: "g++", extension: "cc", standards: CXX },
    Compiler { name: "clang++", package: "clang", extension: "cc", standards: CXX },
];

/// What programs do around the inclusion, each a translation unit of its own.
fn translation_units() -> Vec<(String, String)> {
    const API: &str = "#include <libmilter/mfapi.h>\n";
    // A use of `bool` that needs it to be a type, whoever has defined it. In C89 that of stdbool.h is an extension.
    const USE: &str = "__extension__ int use(bool flag);\n\
        __extension__ int use(bool flag) { return smfi_opensocket(flag); }\n";
    let mut units: Vec<(String, String)> = [
        ("nothing before", format!("{API}{USE}")),
        ("stdbool before", format!("#include <stdbool.h>\n{API}{USE}")),
        ("stdbool after", format!("{API}#include <stdbool.h>\n{USE}")),
        ("stdbool wanted", format!("#define SM_CONF_STDBOOL_H 1\n{API}{USE}")),
        ("stdbool unwanted", format!("#define SM_CONF_STDBOOL_H 0\n{API}{USE}")),
        (
            "address type",
            "union address { int family; };\n#define _SOCK_ADDR union address\n".to_owned()
                + API
                + "sfsistat use(SMFICTX *ctx, char *host, union address *address);\n\
               sfsistat use(SMFICTX *ctx, char *host, union address *address)\n\
               { struct smfiDesc d; d.xxfi_connect = use; return d.xxfi_connect(ctx, host, address); }\n",
        ),
        ("old version", format!("#define SMFI_VERSION 4\n{API}#if SMFI_VERSION != 4\n#error\n#endif\n")),
        (
            "default version",
            format!("{API}#if SMFI_VERSION != 0x01000001 || defined(SMFI_VERSION_MDS)\n#error\n#endif\n"),
        ),
        (
            "data size",
            format!(
                "#define _FFR_MDS_NEGOTIATE 1\n{API}\
            #if SMFI_VERSION != 0x01000002 || SMFI_VERSION_MDS != 0x01000002 || MILTER_MDS_1M != 1048575\n\
            #error\n#endif\n"
            ),
        ),
        (
            "data size, old version",
            format!(
                "#define _FFR_MDS_NEGOTIATE 1\n#define SMFI_VERSION 2\n{API}\
            #if SMFI_VERSION != 2 || MILTER_MDS_256K != 262143 || MILTER_MDS_64K != 65535\n#error\n#endif\n"
            ),
        ),
        (
            "protocol version",
            "#define SMFI_PROT_VERSION 2\n#include <libmilter/mfdef.h>\n\
            #if SMFI_PROT_VERSION != 2\n#error\n#endif\nextern int dummy;\n"
                .to_owned(),
        ),
        ("system headers come along", format!("{API}size_t size;\nstruct sockaddr address;\nssize_t received;\n")),
        ("prototype macros", format!("{API}int use __P((int));\nint use2 SM__P((int));\n")),
        (
            "another libmilter's guard",
            format!("{API}#if _LIBMILTER_MFAPI_H != 1 || _LIBMILTER_MFDEF_H != 1\n#error\n#endif\n"),
        ),
    ]
    .map(|(name, text)| (name.to_owned(), text))
    .into();
    // Alone, and in any order, and twice.
    for first in HEADERS {
        for second in HEADERS {
            let text = format!("#include <libmilter/{first}>\n#include <libmilter/{second}>\nextern int dummy;\n");
            units.push((format!("{first} and {second}"), text));
        }
    }
    units
}

fn compile(compiler: &str, standard: &str, include: &Path, sources: &[PathBuf]) -> Result<(), String> {
    let output = Command::new(compiler)
        .args(["-fsyntax-only", "-Wall", "-Wextra", "-pedantic", "-Werror"])
        .arg(format!("-std={standard}"))
        .arg("-I")
        .arg(include)
        .args(sources)
        .output()
        .expect("the compiler can be started");
    output.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn every_language_version_accepts_the_headers_without_a_warning() {
    let filter = fs::read_to_string(workspace_dir().join("ctests/headers/filter.c")).expect("it is there");
    let include = workspace_dir().join("include");
    let mut failures = Vec::new();
    for Compiler { name, package, extension, standards } in COMPILERS {
        if !exists(name) {
            skip(&format!("headers with {name}"), package);
            continue;
        }
        let directory = TempDir::new();
        let mut sources = vec![directory.write(format!("filter.{extension}"), &filter)];
        for (unit, text) in translation_units() {
            sources.push(directory.write(format!("{unit}.{extension}"), text));
        }
        for standard in standards {
            if let Err(error) = compile(name, standard, &include, &sources) {
                failures.push(format!("{name} -std={standard}:\n{error}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_warning_would_be_noticed() {
    let directory = TempDir::new();
    let source = directory.write("bad.c", "#include <libmilter/mfapi.h>\n// no C89\n");
    let include = workspace_dir().join("include");
    assert!(compile("gcc", "c89", &include, std::slice::from_ref(&source)).is_err());
    assert_eq!(compile("gcc", "c99", &include, &[source]), Ok(()));
}

#[test]
fn layout_and_masks_are_as_promised() {
    let sources = ["layout.c", "masks.c"].map(|name| workspace_dir().join("ctests/headers").join(name));
    assert_eq!(compile("gcc", "c11", &workspace_dir().join("include"), &sources), Ok(()));
}

/// C++ libraries around libmilter have these names in their own symbols.
#[test]
fn d12_the_names_of_the_structures_are_kept() {
    let directory = TempDir::new();
    let text = "#include <libmilter/mfapi.h>\nvoid use(SMFICTX *, smfiDesc_str &) {}\n";
    let source = directory.write("names.cc", text);
    let object = directory.join("names.o");
    output(
        Command::new("g++").arg("-c").arg("-I").arg(workspace_dir().join("include")).arg(source).arg("-o").arg(&object),
    );
    let names = output(Command::new("nm").arg(&object));
    assert!(names.contains("_Z3useP8smfi_strR8smfiDesc"), "{names}");
}
