//! Conversations, most of them hostile, with the library and the recorder built with sanitizers: `make sanitize`. A report
//! on standard error fails a conversation like anything else there.

use std::{process::Command, sync::Arc};

use ctests::{Compile, Library, Sanitizer, Setting, TempDir, conversation::Script, dialogue, generator, skip, verdict};
use libtest_mimic::{Arguments, Failed, Trial};

/// How many conversations are made up.
const GENERATED: u64 = 1000;

fn main() {
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, Sanitizer::ALL.into_iter().flat_map(trials).collect()).exit();
}

fn trials(sanitizer: Sanitizer) -> Vec<Trial> {
    let name = sanitizer.name();
    if !sanitizer.is_here() {
        skip(&format!("sanitizers::{name}"), "rustc for Linux on x86-64 with its sanitizers");
        return Vec::new();
    }
    let mut trials = vec![
        Trial::test(format!("{name}::finds_what_is_wrong"), move || finds_what_is_wrong(sanitizer)),
        Trial::test(format!("{name}::generated"), move || generated(sanitizer)),
    ];
    for (subject, case) in dialogue::all() {
        if case.only.is_some_and(|origin| origin != ctests::Origin::Ours) {
            continue;
        }
        let case = Arc::new(case);
        for (at, model) in ["pool", "threads"].into_iter().enumerate() {
            let case = Arc::clone(&case);
            let name = format!("{name}::{subject}::{}::{model}", case.id);
            let play = move || verdict::play(&case, &Setting::sanitized(sanitizer)[at], Script::clone);
            trials.push(Trial::test(name, move || Ok(play()?)));
        }
    }
    trials
}

fn generated(sanitizer: Sanitizer) -> Result<(), Failed> {
    let summary = generator::run(1, GENERATED, Setting::sanitized(sanitizer), None, |_, _| {});
    if summary.unexplained.is_empty() { Ok(()) } else { Err(summary.unexplained.join("\n").into()) }
}

/// Without this, programs that nobody looks at would pass as clean ones.
fn finds_what_is_wrong(sanitizer: Sanitizer) -> Result<(), Failed> {
    let (source, report) = match sanitizer {
        Sanitizer::Address => ("int main(void) { char *a = malloc(1); return a[1]; }", "heap-buffer-overflow"),
        Sanitizer::Thread => (
            "static int shared;\n\
             static void *change(void *unused) { shared++; return unused; }\n\
             int main(void) { pthread_t other; pthread_create(&other, NULL, change, NULL); shared++; \
             return pthread_join(other, NULL); }",
            "data race",
        ),
    };
    let directory = TempDir::new();
    let source = directory.write("wrong.c", format!("#include <pthread.h>\n#include <stdlib.h>\n{source}\n"));
    let library = Library::sanitized(sanitizer);
    let program = Compile::c(library).source(&source).flag("-O0").to(directory.join("wrong"));
    let run = Command::new(&program).output().expect("the program that was built");
    let said = String::from_utf8_lossy(&run.stderr);
    if !said.contains(report) {
        return Err(format!("no {report} in: {said}").into());
    }
    // Nor is a library without instrumentation looked at.
    let symbols = Command::new("nm").args(["-D", "--undefined-only"]).arg(library.shared_object()).output();
    let symbols = String::from_utf8(symbols.expect("nm(1)").stdout).expect("names");
    let called = match sanitizer {
        Sanitizer::Address => "__asan_report_load8",
        Sanitizer::Thread => "__tsan_read8",
    };
    if symbols.contains(called) { Ok(()) } else { Err(format!("no {called} in:\n{symbols}").into()) }
}
