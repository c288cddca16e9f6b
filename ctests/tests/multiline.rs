//! smfi_setmlreply is variadic: from 0 to 40 lines, from C and C++, through both kinds of library,
//! with and without optimisation (D49).

use std::{
    io::Read,
    process::{Command, Stdio},
};

use ctests::{Compile, Library, Linkage, MtaConnection, Origin, Process, TempDir};

/// The library takes that many lines.
const LIMIT: usize = 32;
const LINES: usize = 40;

/// A filter that answers the n-th unknown command with a reply of n lines.
fn source() -> String {
    let cases: String = (0..=LINES)
        .map(|count| {
            let lines: String = (1..=count).map(|line| format!(", \"line {line} of {count}\"")).collect();
            format!(
                "\tcase {count}:\n\t\tresult = smfi_setmlreply(context, \"550\", \"5.7.1\"{lines}, (char *) 0);\n\
                 \t\tbreak;\n"
            )
        })
        .collect();
    format!(
        r#"#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <libmilter/mfapi.h>

static sfsistat on_unknown(SMFICTX *context, const char *count)
{{
	int result = 77;

	switch (atoi(count)) {{
{cases}	}}
	return result == MI_SUCCESS ? SMFIS_REJECT : SMFIS_TEMPFAIL;
}}

int main(int argc, char **argv)
{{
	static char name[] = "multiline";
	struct smfiDesc filter;

	memset(&filter, 0, sizeof filter);
	filter.xxfi_name = name;
	filter.xxfi_version = SMFI_VERSION;
	filter.xxfi_unknown = on_unknown;
	if (argc != 2 || smfi_setconn(argv[1]) != MI_SUCCESS || smfi_register(filter) != MI_SUCCESS ||
	    smfi_opensocket(0) != MI_SUCCESS)
		return 2;
	puts("ready");
	fflush(stdout);
	return smfi_main() == MI_SUCCESS ? 0 : 1;
}}
"#
    )
}

fn expected(origin: Origin, count: usize) -> String {
    if count > LIMIT {
        return "TEMPFAIL".into();
    }
    if count == 0 {
        // Defect 24: the reference leaves a continuation line without its last line.
        let separator = if origin == Origin::Ours { ' ' } else { '-' };
        return format!("REPLYCODE \"550{separator}5.7.1\"");
    }
    let lines: Vec<String> = (1..=count)
        .map(|line| format!("550{}5.7.1 line {line} of {count}", if line < count { '-' } else { ' ' }))
        .collect();
    format!("REPLYCODE \"{}\"", lines.join("\\r\\n"))
}

fn check(library: &Library, linkage: Linkage) {
    let directory = TempDir::new();
    for extension in ["c", "cc"] {
        let source = directory.write(format!("multiline.{extension}"), source());
        for optimisation in ["-O0", "-O3"] {
            let build = format!("{} {linkage:?} {extension} {optimisation}", library.origin());
            let compile = if extension == "c" { Compile::c(library) } else { Compile::cxx(library) };
            let program = compile.source(&source).flag(optimisation).linkage(linkage).to(directory.join("multiline"));
            let socket = directory.join("socket");
            let _ = std::fs::remove_file(&socket);
            let mut command = Command::new(&program);
            command.arg(format!("unix:{}", socket.display())).stdout(Stdio::piped());
            let mut process = Process::spawn(&mut command);
            let output = process.child().stdout.as_mut().expect("asked for");
            output.read_exact(&mut [0; 6]).unwrap_or_else(|error| panic!("{build}: {error}"));
            if linkage == Linkage::Shared {
                process.assert_uses(library);
            }
            let mut mta = MtaConnection::unix(&socket).expect("a listening filter");
            assert_eq!(mta.ask("OPTNEG 6 1ff 1fffff"), "OPTNEG 6 0 27f", "{build}");
            for count in 0..=LINES {
                assert_eq!(
                    mta.ask(&format!("UNKNOWN {count}")),
                    expected(library.origin(), count),
                    "{build}, {count} lines"
                );
            }
            assert!(process.is_alive(), "{build}");
        }
    }
}

#[test]
fn d49_d44_shared() {
    for library in Library::both("d49_d44_shared") {
        check(library, Linkage::Shared);
    }
}

#[test]
fn d49_d44_static() {
    for library in Library::both("d49_d44_static") {
        check(library, Linkage::Static);
    }
}
