//! Names that the libraries export and how the shared object is linked.

use ctests::stage::{self, output};
use std::path::Path;
use std::process::Command;

/// Everything that programs may link with, in alphabetical order.
pub(crate) const NAMES: [&str; 33] = [
    "mi_stop",
    "sm_errstring",
    "sm_strlcat",
    "sm_strlcat2",
    "sm_strlcpy",
    "sm_strlcpyn",
    "smfi_addheader",
    "smfi_addrcpt",
    "smfi_addrcpt_par",
    "smfi_chgfrom",
    "smfi_chgheader",
    "smfi_delrcpt",
    "smfi_getpriv",
    "smfi_getsymval",
    "smfi_insheader",
    "smfi_main",
    "smfi_opensocket",
    "smfi_progress",
    "smfi_quarantine",
    "smfi_register",
    "smfi_replacebody",
    "smfi_setbacklog",
    "smfi_setconn",
    "smfi_setdbg",
    "smfi_setmaxdatasize",
    "smfi_setmlreply",
    "smfi_setopt",
    "smfi_setpriv",
    "smfi_setreply",
    "smfi_setsymlist",
    "smfi_settimeout",
    "smfi_stop",
    "smfi_version",
];

/// Defined global names, sorted.
fn exported(file: &Path, options: &[&str]) -> Vec<String> {
    let listing = output(Command::new("nm").args(options).arg(file));
    let mut names: Vec<String> = listing
        .lines()
        .filter_map(|line| match *line.split_whitespace().collect::<Vec<_>>() {
            [_address, _type, name] => Some(name.to_owned()),
            _ => None,
        })
        .collect();
    names.sort();
    names
}

/// The dynamic section of a shared object.
fn dynamic_section(file: &Path) -> String {
    output(Command::new("readelf").args(["--dynamic", "--wide"]).arg(file))
}

fn soname(file: &Path) -> Option<String> {
    let section = dynamic_section(file);
    let line = section.lines().find(|line| line.contains("(SONAME)"))?;
    Some(line.split_once('[')?.1.trim_end_matches(']').to_owned())
}

#[test]
fn the_shared_object_exports_the_interface_and_nothing_else() {
    assert_eq!(exported(&stage::shared_object(), &["--dynamic", "--defined-only"]), NAMES);
}

#[test]
fn the_static_library_exports_the_interface_and_nothing_else() {
    assert_eq!(exported(&stage::static_library(), &["--extern-only", "--defined-only"]), NAMES);
}

#[test]
fn programs_of_debian_find_the_shared_object_by_its_name() {
    assert_eq!(soname(&stage::shared_object()).as_deref(), Some("libmilter.so.1.0.1"));
}

#[test]
fn the_shared_object_is_bound_at_once_and_stays_loaded() {
    let section = dynamic_section(&stage::shared_object());
    let flags = section.lines().find(|line| line.contains("(FLAGS_1)")).expect("there are flags");
    assert!(flags.contains("NOW") && flags.contains("NODELETE"), "{flags}");
    let headers = output(Command::new("readelf").args(["--program-headers", "--wide"]).arg(stage::shared_object()));
    assert!(headers.contains("GNU_RELRO"), "{headers}");
}

#[test]
fn the_shared_object_needs_only_the_c_library() {
    let section = dynamic_section(&stage::shared_object());
    let needed: Vec<&str> = section
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split_once('[')?.1.strip_suffix(']'))
        .filter(|name| !name.starts_with("ld-linux"))
        .collect();
    assert_eq!(needed, ["libgcc_s.so.1", "libc.so.6"]);
}

/// A build of its own, without optimisation, so that no other test sees the odd names.
#[test]
fn the_name_of_the_shared_object_is_a_parameter() {
    let target = ctests::target_dir().join("ctests/soname");
    for (wanted, got) in [("libmilter.so.6", Some("libmilter.so.6")), ("", None)] {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--locked", "--package", "libmilter", "--target-dir"]).arg(&target);
        output(build.current_dir(ctests::workspace_dir()).env("LIBMILTER_SONAME", wanted));
        assert_eq!(soname(&target.join("debug/libmilter.so")).as_deref(), got);
    }
}

/// Messages have the system's words for an error and not the standard library's, which adds a number: the code that would
/// do so is not even linked.
#[test]
fn no_error_is_formatted_by_the_standard_library() {
    const WORDS: &[u8] = b" (os error ";
    let library = std::fs::read(ctests::Library::ours().shared_object()).expect("the library is there");
    let found = library.windows(WORDS.len()).any(|window| window == WORDS);
    assert!(!found, "an io::Error is formatted as it is; format its Reason (src/sys/error.rs)");
}
