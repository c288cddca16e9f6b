//! Our headers against those of sendmail's libmilter: same macros, same values, same types, same prototypes.

use ctests::stage::{build, exists, output};
use ctests::{ReferenceHeaders, TempDir, skip, workspace_dir};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Ways of including a header that make a difference to its contents.
const INCLUSIONS: [(&str, &[&str]); 5] = [
    ("mfdef.h", &[]),
    ("mfapi.h", &[]),
    ("mfapi.h", &["-D_FFR_MDS_NEGOTIATE"]),
    ("mfapi.h", &["-D_FFR_WORKERS_POOL=1"]),
    ("mfapi.h", &["-D_FFR_MDS_NEGOTIATE", "-DSMFI_VERSION=3", "-D_SOCK_ADDR=struct sockaddr_storage"]),
];

/// What the preprocessor makes of a header; `-dM` asks for the macros.
fn preprocess(include: &Path, header: &str, options: &[&str]) -> String {
    let directory = TempDir::new();
    let source = directory.write("include.c", format!("#include <libmilter/{header}>\n"));
    output(Command::new("gcc").args(["-E", "-P", "-std=gnu89"]).args(options).arg("-I").arg(include).arg(source))
}

/// The macros that a header adds to those of the system headers it includes: names, and values unless they have
/// arguments.
fn macros(include: &Path, header: &str, options: &[&str]) -> BTreeSet<String> {
    let directory = TempDir::new();
    let system = "#include <sys/types.h>\n#include <sys/socket.h>\n";
    let source = directory.write("system.c", system);
    let dump = output(Command::new("gcc").args(["-E", "-dM", "-std=gnu89"]).args(options).arg(source));
    let system: BTreeSet<&str> = dump.lines().filter_map(macro_name).collect();
    let all = preprocess(include, header, &[&["-dM"], options].concat());
    all.lines().filter_map(macro_name).filter(|name| !system.contains(name)).map(str::to_owned).collect()
}

fn macro_name(line: &str) -> Option<&str> {
    let definition = line.strip_prefix("#define ")?;
    Some(definition.split(' ').next().unwrap_or(definition))
}

/// Value and type of every macro that is a number, found by a program.
fn values(include: &Path, header: &str, options: &[&str]) -> String {
    let mut text = format!("#include <libmilter/{header}>\n#include <stdio.h>\n");
    text += "#define SHOW(m) printf(\"%s %lld %s\\n\", #m, (long long) (m), \
        _Generic((m), int: \"int\", unsigned: \"unsigned\", long: \"long\", default: \"?\"));\n";
    text += "int main(void) {\n";
    for name in macros(include, header, options) {
        let (shown, guarded) = match name.as_str() {
            "_SOCK_ADDR" | "LIBMILTER_API" | "SM__P(X)" | "SM__P(args)" => continue,
            name if name.contains('(') => {
                let bare = name.split('(').next().unwrap_or(name);
                for version in ["SMFI_VERSION", "4", "0x7f123456", "0x018000ff"] {
                    writeln!(text, "SHOW({bare}({version}))").expect("a String takes everything");
                }
                continue;
            }
            name => (name.to_owned(), name.to_owned()),
        };
        writeln!(text, "#if ({guarded}) == 0 || ({guarded}) != 0\nSHOW({shown})\n#endif").expect("as above");
    }
    text += "return 0; }\n";
    let directory = TempDir::new();
    let program = directory.join("values");
    let mut arguments: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    arguments.extend(["-std=gnu11".to_owned(), format!("-I{}", include.display())]);
    build("gcc", &directory.write("values.c", text), &arguments, &program).unwrap_or_else(|error| panic!("{error}"));
    output(&mut Command::new(program))
}

fn names_without_parameters(macros: BTreeSet<String>) -> BTreeSet<String> {
    macros.into_iter().map(|name| name.split('(').next().unwrap_or(&name).to_owned()).collect()
}

/// Everything in which the macros of two directories differ.
fn macro_differences(ours: &Path, theirs: &Path) -> Vec<String> {
    let mut differences = Vec::new();
    for (header, options) in INCLUSIONS {
        let names = [ours, theirs].map(|include| names_without_parameters(macros(include, header, options)));
        differences
            .extend(names[0].symmetric_difference(&names[1]).map(|name| format!("{header} {options:?}: {name}")));
        let [ours, theirs] = [ours, theirs].map(|include| values(include, header, options));
        let names = |line: &str| line.split(' ').next().unwrap_or(line).to_owned();
        let both: BTreeSet<String> =
            ours.lines().map(names).filter(|name| theirs.lines().any(|l| names(l) == *name)).collect();
        let [ours, theirs] = [&ours, &theirs].map(|text| text.lines().filter(|line| both.contains(&names(line))));
        let pairs = ours.zip(theirs).filter(|(ours, theirs)| ours != theirs);
        differences.extend(pairs.map(|(ours, theirs)| format!("{header} {options:?}: {ours} / {theirs}")));
    }
    differences
}

/// The prototypes of a header and its `struct smfiDesc`, as text.
pub(crate) struct Declarations {
    pub(crate) prototypes: Vec<String>,
    descriptor: String,
}

impl Declarations {
    pub(crate) fn of(include: &Path) -> Self {
        let text = preprocess(include, "mfapi.h", &[]);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let prototypes: Vec<String> = text
            .split(';')
            .map(str::trim)
            .filter(|statement| statement.contains("extern ") && statement.contains("smfi_"))
            .map(|statement| format!("{statement};"))
            .collect();
        let start = text.find("struct smfiDesc {").expect("there is a structure");
        let end = start + text[start..].find("};").expect("it ends") + 2;
        Declarations { prototypes, descriptor: text[start..end].to_owned() }
    }

    fn members(&self) -> Vec<&str> {
        let names = self.descriptor.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        names.filter(|name| name.starts_with("xxfi_")).collect()
    }

    /// A program that compiles only if the header it includes declares the same.
    fn check(&self) -> String {
        let mut text = "#include <libmilter/mfapi.h>\n#include <stddef.h>\n".to_owned();
        for prototype in &self.prototypes {
            writeln!(text, "{prototype}").expect("a String takes everything");
        }
        text += &self.descriptor.replace("struct smfiDesc", "struct other");
        for member in self.members() {
            let [ours, theirs] = ["smfiDesc", "other"].map(|tag| format!("((struct {tag} *) 0)->{member}"));
            writeln!(
                text,
                "\n_Static_assert(__builtin_types_compatible_p(__typeof__({ours}), __typeof__({theirs})), \"{member}\");\n\
                 _Static_assert(offsetof(struct smfiDesc, {member}) == offsetof(struct other, {member}), \"{member}\");"
            )
            .expect("as above");
        }
        text + "_Static_assert(sizeof(struct smfiDesc) == sizeof(struct other), \"size\");\n"
    }

    /// As [`Declarations::check`], for C++, where the structure has no counterpart.
    fn check_cxx(&self) -> String {
        format!("#include <libmilter/mfapi.h>\nextern \"C\" {{\n{}\n}}\n", self.prototypes.join("\n"))
    }
}

fn accepts(compiler: &str, extension: &str, include: &Path, text: &str) -> Result<(), String> {
    let directory = TempDir::new();
    let source = directory.write(format!("check.{extension}"), text);
    let arguments = ["-c".to_owned(), "-Wno-redundant-decls".to_owned(), format!("-I{}", include.display())];
    build(compiler, &source, &arguments, &directory.join("check.o"))
}

fn declaration_differences(ours: &Path, theirs: &Path) -> Vec<String> {
    let theirs = Declarations::of(theirs);
    assert_eq!(theirs.prototypes.len(), 26, "{:?}", theirs.prototypes);
    assert_eq!(theirs.members().len(), 16, "{}", theirs.descriptor);
    [accepts("gcc", "c", ours, &theirs.check()), accepts("g++", "cc", ours, &theirs.check_cxx())]
        .into_iter()
        .filter_map(Result::err)
        .collect()
}

#[test]
fn macros_have_the_names_values_and_types_of_the_reference() {
    for reference in ReferenceHeaders::all("macros") {
        let mut differences = macro_differences(&workspace_dir().join("include"), &reference.include_dir);
        // From 8.18.2 on a header that a program has not told about <stdbool.h> says 0 itself.
        differences.retain(|difference| !difference.ends_with(": SM_CONF_STDBOOL_H"));
        assert!(differences.is_empty(), "{}: {differences:#?}", reference.name);
    }
}

#[test]
fn prototypes_and_structure_are_those_of_the_reference() {
    for reference in ReferenceHeaders::all("prototypes") {
        let differences = declaration_differences(&workspace_dir().join("include"), &reference.include_dir);
        assert!(differences.is_empty(), "{}: {}", reference.name, differences.join("\n"));
    }
}

/// The system's headers that come along with a header: programs rely on them.
fn included(include: &Path, compiler: &str, standard: &str) -> BTreeSet<String> {
    let directory = TempDir::new();
    let source = directory.write("include.c", "#include <libmilter/mfapi.h>\n");
    let text =
        output(Command::new(compiler).arg("-M").arg(format!("-std={standard}")).arg("-I").arg(include).arg(source));
    let files = text.split_whitespace().filter(|file| file.ends_with(".h") && !file.contains("/libmilter/"));
    files.map(str::to_owned).collect()
}

#[test]
fn the_headers_of_the_system_that_come_along_are_those_of_the_reference() {
    for reference in ReferenceHeaders::all("included headers") {
        for (compiler, standard) in [("gcc", "gnu89"), ("gcc", "gnu17"), ("clang", "gnu17")] {
            if !exists(compiler) {
                skip(&format!("included headers with {compiler}"), compiler);
                continue;
            }
            let ours = included(&workspace_dir().join("include"), compiler, standard);
            let mut theirs = included(&reference.include_dir, compiler, standard);
            assert!(theirs.iter().any(|file| file.ends_with("/sys/socket.h")), "{theirs:?}");
            // From 8.18.2 on, where C has it; ours follows the older releases.
            theirs.retain(|file| !file.ends_with("/stdbool.h"));
            assert_eq!(ours, theirs, "{} {compiler} -std={standard}", reference.name);
        }
    }
}

/// Our own headers with one mistake each: the comparison has to notice every one.
#[test]
fn the_comparison_notices_differences() {
    let genuine = workspace_dir().join("include");
    assert_eq!(macro_differences(&genuine, &genuine), Vec::<String>::new());
    assert_eq!(declaration_differences(&genuine, &genuine), Vec::<String>::new());
    let mistakes = [
        ("#define SMFIS_REJECT 1", "#define SMFIS_REJECT 2"),
        ("#define SMFIF_ADDHDRS 0x00000001L", "#define SMFIF_ADDHDRS 0x00000001"),
        ("#define SMFIM_EOH 6", ""),
        ("#define SMFIM_EOH 6", "#define SMFIM_EOH 6\n#define SMFIM_NEW 7"),
        ("((v) & 0x0000007f)", "((v) & 0x000000ff)"),
        ("int smfi_progress(SMFICTX *__ctx)", "long smfi_progress(SMFICTX *__ctx)"),
        (
            "int smfi_addrcpt(SMFICTX *__ctx, char *__address)",
            "int smfi_addrcpt(SMFICTX *__ctx, const char *__address)",
        ),
        ("int xxfi_version;", "long xxfi_version;"),
        ("(*xxfi_body)(SMFICTX*, unsigned char*, size_t)", "(*xxfi_body)(SMFICTX*, unsigned char*, int)"),
    ];
    let text = fs::read_to_string(genuine.join("libmilter/mfapi.h")).expect("it is there");
    for (right, wrong) in mistakes {
        let changed = text.replacen(right, wrong, 1);
        assert_ne!(changed, text, "{right} is not in the header");
        let directory = TempDir::new();
        fs::create_dir(directory.join("libmilter")).expect("the directory is new");
        directory.write("libmilter/mfapi.h", changed);
        fs::copy(genuine.join("libmilter/mfdef.h"), directory.join("libmilter/mfdef.h")).expect("it can be copied");
        let noticed =
            [macro_differences(directory.path(), &genuine), declaration_differences(directory.path(), &genuine)];
        assert!(noticed.iter().any(|differences| !differences.is_empty()), "{right} -> {wrong} goes unnoticed");
    }
}
