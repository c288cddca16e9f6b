//! Building the library and programs with a sanitizer.
//!
//! Stable compilers offer none, hence `RUSTC_BOOTSTRAP`. Rust's standard library comes without instrumentation; with
//! AddressSanitizer that means that errors in it are seen only where they reach memory of others, with ThreadSanitizer
//! that some of its synchronisation is not seen (`src/model/races.supp`).
//!
//! A shared object has no runtime of its own, it is the program's. That of rustc fits what gcc and clang make: the
//! functions that instrumented code calls are the same. The other way round it does not work everywhere: the runtime of
//! gcc 12 lacks functions that rustc's ThreadSanitizer calls, and Debian's clang comes without any.

use std::{env, path::PathBuf, process::Command};

use crate::workspace_dir;

/// What looks for mistakes while programs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sanitizer {
    /// AddressSanitizer: memory that is not the program's, or not any more.
    Address,
    /// ThreadSanitizer: memory that threads use without an agreement.
    Thread,
}

/// Where rustc brings the runtimes.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

impl Sanitizer {
    /// Both.
    pub const ALL: [Sanitizer; 2] = [Sanitizer::Address, Sanitizer::Thread];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Sanitizer::Address => "address",
            Sanitizer::Thread => "thread",
        }
    }

    /// What rustc has to be told.
    pub(crate) fn rust_flags(self) -> String {
        format!("-Zsanitizer={} -Cunsafe-allow-abi-mismatch=sanitizer", self.name())
    }

    /// The variable with the options of programs that have it.
    pub(crate) fn options(self) -> (&'static str, String) {
        match self {
            Sanitizer::Address => ("ASAN_OPTIONS", "strict_string_checks=1:detect_stack_use_after_return=1".into()),
            Sanitizer::Thread => {
                let suppressions = workspace_dir().join("src/model/races.supp");
                ("TSAN_OPTIONS", format!("suppressions={}", suppressions.display()))
            }
        }
    }

    /// Whether this machine's rustc brings what instrumented code calls.
    #[must_use]
    pub fn is_here(self) -> bool {
        self.find_runtime().is_some()
    }

    /// The archive with what instrumented code calls.
    pub(crate) fn runtime(self) -> PathBuf {
        self.find_runtime().expect("the library was built with it")
    }

    fn find_runtime(self) -> Option<PathBuf> {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let answer = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
        let sysroot = String::from_utf8(answer.stdout).ok()?;
        let libraries = PathBuf::from(sysroot.trim_end()).join("lib/rustlib").join(TARGET).join("lib");
        let kind = match self {
            Sanitizer::Address => "asan",
            Sanitizer::Thread => "tsan",
        };
        let archives = ["stable", "beta", "nightly"].map(|channel| format!("librustc-{channel}_rt.{kind}.a"));
        archives.iter().map(|archive| libraries.join(archive)).find(|archive| archive.exists())
    }
}
