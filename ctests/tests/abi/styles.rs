//! Programs in the styles of the field: what compiles with sendmail's header compiles with ours.
//!
//! Releases up to 8.18.1 define `bool` as `int` in C; 8.18.2 includes `<stdbool.h>` from C99 on, except with clang. Where a
//! program suits only one of them, the older one counts.

use ctests::stage::exists;
use ctests::{ReferenceHeaders, TempDir, skip, workspace_dir};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use Suits::{Any, BeforeC23, OnlyNewer};

/// Which releases of the header and which versions of C a program is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suits {
    /// All of them, or whatever a reference takes.
    Any,
    /// Redefines what is a keyword from C23 on, so that compilers take it in early drafts at most.
    BeforeC23,
    /// Needs a header with `<stdbool.h>` before C23: older releases do not take it, and ours follows those.
    OnlyNewer,
}

/// Name, text and what the text suits. `@` stands for the header's inclusion.
#[rustfmt::skip]
const STYLES: &[(&str, Suits, &str)] = &[
    ("the header", Any, "@ int f(void); int f(void) { return smfi_main(); }"),
    ("twice", Any, "@ \n@ int f(bool b);"),
    ("bool, true and false", Any, "@ int f(bool b); int f(bool b) { return smfi_opensocket(b ? true : false); }"),
    ("stdbool before", Any, "#include <stdbool.h>\n@ bool b = true; int f(void); int f(void) { return smfi_opensocket(b); }"),
    ("stdbool after", Any, "@ \n#include <stdbool.h>\nbool b = true; int f(void); int f(void) { return smfi_opensocket(b); }"),
    ("stdbool before and after", Any, "#include <stdbool.h>\n@ \n#include <stdbool.h>\nbool b = true;"),
    ("stdbool wanted", Any, "#define SM_CONF_STDBOOL_H 1\n@ bool b = true; int f(void); int f(void) { return smfi_opensocket(b); }"),
    ("stdbool unwanted", Any, "#define SM_CONF_STDBOOL_H 0\n@ bool b = true; int f(void); int f(void) { return smfi_opensocket(b); }"),
    ("stdbool wanted, bool is _Bool", Any, "#define SM_CONF_STDBOOL_H 1\n@ int (*f)(_Bool) = smfi_opensocket;"),
    ("stdbool unwanted, bool is int", BeforeC23, "#define SM_CONF_STDBOOL_H 0\n@ int (*f)(int) = smfi_opensocket;"),
    ("stdbool unwanted, char after", BeforeC23, "#define SM_CONF_STDBOOL_H 0\n@ \n#ifndef bool\n#define bool char\n#define TRUE 1\n#endif\nbool b = TRUE;"),
    ("char and TRUE unless defined, before", Any, "#ifndef bool\n#define bool char\n#define TRUE 1\n#define FALSE 0\n#endif\n@ bool b = TRUE, c = FALSE;"),
    ("char and TRUE unless defined, after", BeforeC23, "@ \n#ifndef bool\n#define bool char\n#define TRUE 1\n#define FALSE 0\n#endif\nbool b = TRUE, c = FALSE;"),
    ("int unless defined, after", BeforeC23, "@ \n#ifndef bool\n#define bool int\n#define TRUE 1\n#endif\nbool b = TRUE;"),
    ("macro after", Any, "@ \n#undef bool\n#define bool int\nbool b = true;"),
    ("macro after, taken back", Any, "@ \n#undef bool\n#undef true\n#undef false\n#define bool int\n#define true 1\n#define false 0\nbool b = true;"),
    ("unsigned char macro before", Any, "#define bool unsigned char\n#define true 1\n#define false 0\n@ bool b = true;"),
    ("unsigned char macro, and its marker", Any, "#define bool unsigned char\n#define __bool_true_false_are_defined 1\n@ bool b = 1;"),
    ("TRUE and FALSE after", Any, "@ \n#ifndef TRUE\n#define TRUE true\n#define FALSE false\n#endif\nbool b = TRUE;"),
    ("TRUE and FALSE before", Any, "#define TRUE 1\n#define FALSE 0\n@ bool b = TRUE;"),
    ("TRUE and FALSE as constants after", Any, "@ enum { FALSE, TRUE }; bool b = TRUE;"),
    ("BOOL after", Any, "@ typedef enum { NO, YES } BOOL; BOOL b = YES;"),
    ("typedef int before", BeforeC23, "typedef int bool;\n@ bool b = true;"),
    ("typedef int after", BeforeC23, "@ typedef int bool; bool b = true;"),
    ("typedef int after, strict", BeforeC23, "@ \n#pragma GCC diagnostic error \"-Wpedantic\"\ntypedef int bool; bool b = true;"),
    ("typedef char before", OnlyNewer, "typedef char bool;\n@ bool b = true;"),
    ("typedef char after", Any, "@ typedef char bool; bool b = 1;"),
    ("typedef _Bool before", OnlyNewer, "typedef _Bool bool;\n@ bool b = true;"),
    ("typedef _Bool after", Any, "@ typedef _Bool bool; bool b = true;"),
    ("enumerated before", OnlyNewer, "typedef enum { false, true } bool;\n@ bool b = true;"),
    ("enumerated after", Any, "@ typedef enum { false, true } bool; bool b = true;"),
    ("enumerated after, taken back", OnlyNewer, "@ \n#undef bool\n#undef true\n#undef false\ntypedef enum { false, true } bool; bool b = true;"),
    ("false and true as constants before", BeforeC23, "enum { false, true };\n@ bool b = true;"),
    ("false and true as constants after", BeforeC23, "@ \n#undef true\n#undef false\nenum { false, true }; bool b = true;"),
    ("enumerated under another name after", BeforeC23, "@ \n#undef true\n#undef false\ntypedef enum { false = 0, true = 1 } boolean; boolean b = true;"),
    ("true unless defined, after", Any, "@ \n#ifndef true\n#define true 1\n#endif\n#ifndef false\n#define false 0\n#endif\nint b = true;"),
    ("the marker of stdbool.h after", Any, "@ \n#ifndef __bool_true_false_are_defined\ntypedef enum { false, true } bool;\n#endif\nbool b = true;"),
    ("the marker of stdbool.h is there", Any, "@ \n#if !__bool_true_false_are_defined\n#error\n#endif\nint b;"),
    ("bool is no macro", BeforeC23, "@ \n#ifdef bool\n#error\n#endif\nint b;"),
    ("bool is a macro", OnlyNewer, "@ \n#ifndef bool\n#error\n#endif\nint b;"),
    ("bool is int", BeforeC23, "@ extern int i; extern bool i; int (*f)(int) = smfi_opensocket;"),
    ("bool is _Bool", OnlyNewer, "@ extern _Bool i; extern bool i; int (*f)(_Bool) = smfi_opensocket;"),
    ("_Bool values", Any, "@ _Bool b = true; int f(void); int f(void) { return smfi_opensocket(b); }"),
    ("a function between header and stdbool", OnlyNewer, "@ int f(bool *b);\n#include <stdbool.h>\nint f(bool *b) { return *b; }"),
    ("a pointer to a bool", Any, "@ bool *f(bool *b); bool *f(bool *b) { return b; }"),
    ("a bit field", Any, "@ struct s { bool b; unsigned c : 1; }; struct s s;"),
    ("functions by pointer", Any, "@ int (*f)(bool) = smfi_opensocket; int (*g)(struct smfiDesc) = smfi_register; void *(*h)(SMFICTX *) = smfi_getpriv;"),
    ("own prototypes", Any, "@ extern int smfi_setconn(char *); extern int smfi_stop(void); extern int smfi_opensocket(bool);"),
    ("sockets come along", Any, "@ struct sockaddr a; struct sockaddr_storage b; socklen_t c; sa_family_t d = AF_INET6; ssize_t e; size_t f; pid_t g; int h = SOCK_STREAM;"),
    ("sockets before", Any, "#include <sys/types.h>\n#include <sys/socket.h>\n#include <netinet/in.h>\n#include <arpa/inet.h>\n@ struct sockaddr_in a;"),
    ("addresses of the Internet do not come along", Any, "@ struct sockaddr_in { int mine; }; struct sockaddr_in a;"),
    ("names of other headers are free", Any, "@ struct FILE { int i; }; int printf, malloc, strlen, errno, uint8_t, int64, NULL_;"),
    ("an address of one's own", Any, "union bigsockaddr { int i; };\n#define _SOCK_ADDR union bigsockaddr\n@ sfsistat c(SMFICTX *x, char *h, union bigsockaddr *a); void f(struct smfiDesc *d); void f(struct smfiDesc *d) { d->xxfi_connect = c; }"),
    ("version 2", Any, "#define SMFI_VERSION 2\n@ \n#if SMFI_VERSION != 2\n#error\n#endif\nint i;"),
    ("the default version", Any, "@ \n#if SMFI_VERSION != 0x01000001\n#error\n#endif\nint i;"),
    ("large packets", Any, "#define _FFR_MDS_NEGOTIATE 1\n@ \n#if SMFI_VERSION != 0x01000002\n#error\n#endif\nlong i = SMFI_VERSION_MDS + MILTER_MDS_64K + MILTER_MDS_256K + MILTER_MDS_1M;"),
    ("large packets, off", Any, "#define _FFR_MDS_NEGOTIATE 0\n@ \n#if SMFI_VERSION != 0x01000001 || defined(MILTER_MDS_1M) || defined(SMFI_VERSION_MDS)\n#error\n#endif\nint i;"),
    ("a pool of workers", Any, "#define _FFR_WORKERS_POOL 1\n@ int i = MI_CONTINUE;"),
    ("a pool of workers, off", Any, "#define _FFR_WORKERS_POOL 0\n@ int MI_CONTINUE;"),
    ("a protocol version of one's own", Any, "#define SMFI_PROT_VERSION 4\n@ \n#if SMFI_PROT_VERSION != 4\n#error\n#endif\nint i;"),
    ("mfdef.h first", Any, "#include <libmilter/mfdef.h>\n@ int i = SMFIC_CONNECT;"),
    ("prototypes by __P", Any, "@ int f __P((int)); int g SM__P((int)); int f(int i) { return i; }"),
    ("__P of one's own", Any, "#undef __P\n#define __P(x) x\n@ int f __P((int)); int f(int i) { return i; }"),
    ("LIBMILTER_API of one's own", Any, "#define LIBMILTER_API extern\n@ LIBMILTER_API int f(void);"),
    ("names of types", Any, "@ struct smfi_str *a; SMFICTX *b; SMFICTX_PTR c; struct smfiDesc d; smfiDesc_str e; smfiDesc_ptr f = &d; sfsistat g = SMFIS_CONTINUE;"),
    ("a forward declaration", Any, "struct smfi_str; struct smfiDesc;\n@ struct smfi_str *a; struct smfiDesc b;"),
    ("verdicts in a switch", Any, "@ int f(int v); int f(int v) { switch (v) { case SMFIS_CONTINUE: case SMFIS_REJECT: case SMFIS_DISCARD: case SMFIS_ACCEPT: case SMFIS_TEMPFAIL: case SMFIS_NOREPLY: case SMFIS_SKIP: case SMFIS_ALL_OPTS: return 1; } return 0; }"),
    ("a descriptor with initialisers", Any, "@ struct smfiDesc d = { 0, SMFI_VERSION, SMFIF_ADDHDRS | SMFIF_CHGBODY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 };"),
    ("words of the prototypes as macros", Any, "#define name 2\n#define value 3\n#define address 4\n#define text 6\n#define body 7\n#define length 8\n#define code 9\n#define status 10\n#define data 11\n#define level 12\n#define seconds 13\n#define size 14\n#define stage 15\n#define macros 16\n#define descriptor 17\n#define backlog 18\n#define remove_stale 19\n#define arguments 20\n#define index 21\n#define args 22\n#define patch_level 23\n#define v 24\n@ int i = name;"),
    ("within extern C", Any, "#ifdef __cplusplus\nextern \"C\" {\n#endif\n@ \n#ifdef __cplusplus\n}\n#endif\nint i;"),
];

struct Compiler {
    name: &'static str,
    package: &'static str,
    extension: &'static str,
    standards: &'static [&'static str],
    options: &'static [&'static str],
}

const C: &[&str] = &["c89", "gnu89", "c99", "gnu99", "c11", "gnu11", "c17", "gnu17", "c2x", "gnu2x"];
const CXX: &[&str] = &["c++98", "gnu++98", "c++11", "c++14", "gnu++17", "c++20", "c++2b"];

/// What are errors for gcc from release 14 on.
const STRICT: &[&str] = &[
    "-Werror=implicit-function-declaration",
    "-Werror=implicit-int",
    "-Werror=int-conversion",
    "-Werror=incompatible-pointer-types",
];

const COMPILERS: [Compiler; 4] = [
    Compiler { name: "gcc", package: "gcc", extension: "c", standards: C, options: STRICT },
    Compiler { name: "clang", package: "clang", extension: "c", standards: C, options: STRICT },
    Compiler { name: "g++", package: "g++", extension: "cc", standards: CXX, options: &[] },
    Compiler { name: "clang++", package: "clang", extension: "cc", standards: CXX, options: &[] },
];

/// One program for each of [`STYLES`], named by its number.
struct Sources {
    directory: TempDir,
    extension: &'static str,
}

impl Sources {
    fn new(extension: &'static str) -> Sources {
        let directory = TempDir::new();
        for (number, (_, _, text)) in STYLES.iter().enumerate() {
            directory.write(
                format!("style{number}.{extension}"),
                text.replace('@', "\n#include <libmilter/mfapi.h>\n") + "\n",
            );
        }
        Sources { directory, extension }
    }

    /// Those of `styles` that the compiler refuses, by number.
    fn refused(
        &self,
        compiler: &Compiler,
        standard: &str,
        include: &Path,
        styles: &BTreeSet<usize>,
    ) -> BTreeSet<usize> {
        if styles.is_empty() {
            return BTreeSet::new();
        }
        let output = Command::new(compiler.name)
            .arg("-fsyntax-only")
            .arg(format!("-std={standard}"))
            .args(compiler.options)
            .arg("-isystem")
            .arg(include)
            .args(styles.iter().map(|number| self.path(*number)))
            .env("LC_ALL", "C")
            .output()
            .expect("the compiler can be started");
        let said = String::from_utf8_lossy(&output.stderr);
        let refused = refused(&said);
        assert_eq!(output.status.success(), refused.is_empty(), "{} -std={standard}:\n{said}", compiler.name);
        refused
    }

    fn path(&self, number: usize) -> PathBuf {
        self.directory.join(format!("style{number}.{}", self.extension))
    }
}

/// The numbers of the styles that compilers complain about: an error belongs to the source that was mentioned last.
fn refused(messages: &str) -> BTreeSet<usize> {
    let mut refused = BTreeSet::new();
    let mut number = None;
    for line in messages.lines() {
        let mentioned = line.split_once("/style").and_then(|(_, rest)| rest.split_once('.')?.0.parse().ok());
        number = mentioned.or(number);
        if line.contains("error: ") {
            refused.insert(number.unwrap_or_else(|| panic!("an error of no source: {line}")));
        }
    }
    refused
}

/// Whether the header includes `<stdbool.h>` where C has it, as sendmail's does from 8.18.2 on.
fn has_stdbool(include: &Path) -> bool {
    let directory = TempDir::new();
    let source = directory.write("newer.c", "#include <libmilter/mfapi.h>\n#ifndef bool\n#error\n#endif\n");
    let output = Command::new("gcc").args(["-fsyntax-only", "-std=gnu17", "-I"]).arg(include).arg(source).output();
    output.expect("the compiler can be started").status.success()
}

/// Whether ours may refuse what a reference takes.
fn is_excused(suits: Suits, standard: &str, newer: bool) -> bool {
    let draft_of_c23 = standard.ends_with("2x");
    match suits {
        Any => false,
        BeforeC23 => draft_of_c23,
        OnlyNewer => newer || draft_of_c23,
    }
}

/// Where `ours` refuses what a reference takes, as text; excused styles are added to `excused`.
fn worse(ours: &Path, references: &[(String, PathBuf, bool)], excused: &mut BTreeSet<usize>) -> Vec<String> {
    let mut worse = Vec::new();
    for compiler in COMPILERS {
        if !exists(compiler.name) {
            skip(&format!("styles with {}", compiler.name), compiler.package);
            continue;
        }
        let sources = Sources::new(compiler.extension);
        for standard in compiler.standards {
            let by_ours = sources.refused(&compiler, standard, ours, &(0..STYLES.len()).collect());
            for (name, include, newer) in references {
                let by_theirs = sources.refused(&compiler, standard, include, &by_ours);
                for number in by_ours.difference(&by_theirs).copied() {
                    let (style, suits, _) = STYLES[number];
                    if is_excused(suits, standard, *newer) {
                        excused.insert(number);
                    } else {
                        worse.push(format!("{} -std={standard}: {style:?} compiles with {name} only", compiler.name));
                    }
                }
            }
        }
    }
    worse
}

#[test]
fn what_compiles_with_the_reference_compiles_with_ours() {
    let headers = ReferenceHeaders::all("styles");
    let references: Vec<_> = headers
        .iter()
        .map(|headers| (headers.name.clone(), headers.include_dir.clone(), has_stdbool(&headers.include_dir)))
        .collect();
    let mut excused = BTreeSet::new();
    let worse = worse(&workspace_dir().join("include"), &references, &mut excused);
    assert!(worse.is_empty(), "{}", worse.join("\n"));
    if references.iter().any(|(_, _, newer)| *newer) {
        let listed = (0..STYLES.len()).filter(|number| STYLES[*number].1 == OnlyNewer);
        let idle: Vec<_> = listed.filter(|number| !excused.contains(number)).map(|number| STYLES[number].0).collect();
        assert!(idle.is_empty(), "need no excuse: {idle:?}");
    }
}

#[test]
fn errors_are_counted_for_their_sources() {
    let said = "In file included from /t/style3.c:2:\n/i/libmilter/mfapi.h:9:1: error: no\n/t/style12.c:1:2: warning: hm\n\
                /t/style14.c:1:2: fatal error: no\n1 error generated.\n";
    assert_eq!(refused(said), BTreeSet::from([3, 14]));
}
