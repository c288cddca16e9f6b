//! Building C and C++ programs against a library.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::{Library, workspace_dir};

/// How a program gets at the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linkage {
    /// Through `libmilter.so`, found at run time by its path.
    Shared,
    /// `libmilter.a` and `-lpthread`, nothing else.
    Static,
}

/// One compiler run, from sources to a program.
#[derive(Debug)]
pub struct Compile<'a> {
    library: &'a Library,
    compiler: OsString,
    linkage: Linkage,
    arguments: Vec<OsString>,
}

impl<'a> Compile<'a> {
    /// A C program, with `$CC` or `cc`.
    #[must_use]
    pub fn c(library: &'a Library) -> Compile<'a> {
        Compile::with(library, compiler("CC", "cc"))
    }

    /// A C++ program, with `$CXX` or `c++`.
    #[must_use]
    pub fn cxx(library: &'a Library) -> Compile<'a> {
        Compile::with(library, compiler("CXX", "c++"))
    }

    /// A program made by the compiler of this name.
    #[must_use]
    pub fn with(library: &'a Library, compiler: impl Into<OsString>) -> Compile<'a> {
        Compile { library, compiler: compiler.into(), linkage: Linkage::Shared, arguments: Vec::new() }
    }

    /// Adds a source file; a relative path starts at the workspace.
    #[must_use]
    pub fn source(mut self, path: impl AsRef<Path>) -> Self {
        self.arguments.push(workspace_dir().join(path).into());
        self
    }

    /// Adds an argument for the compiler.
    #[must_use]
    pub fn flag(mut self, flag: impl Into<OsString>) -> Self {
        self.arguments.push(flag.into());
        self
    }

    /// Chooses how to link; shared unless told.
    #[must_use]
    pub fn linkage(mut self, linkage: Linkage) -> Self {
        self.linkage = linkage;
        self
    }

    /// Writes the program to `output`.
    ///
    /// # Panics
    ///
    /// When compiler or linker fail or warn; the message holds what they said.
    pub fn to(self, output: impl AsRef<Path>) -> PathBuf {
        let output = output.as_ref();
        let (command, result) = self.run(output);
        let said = String::from_utf8_lossy(&result.stderr);
        assert!(result.status.success() && said.is_empty(), "{command:?}\n{said}");
        output.to_path_buf()
    }

    /// Whether the program builds; for probes in the manner of configure scripts.
    ///
    /// # Panics
    ///
    /// When the compiler cannot be started.
    pub fn succeeds(self, output: impl AsRef<Path>) -> bool {
        self.run(output.as_ref()).1.status.success()
    }

    fn run(self, output: &Path) -> (Command, Output) {
        let lib_dir = self.library.lib_dir();
        let mut command = Command::new(&self.compiler);
        command.arg("-I").arg(self.library.include_dir());
        match self.library.sanitizer() {
            None => {
                command.arg("-o").arg(output).args(&self.arguments);
            }
            Some(sanitizer) => {
                // A compiler that links with -fsanitize takes its own runtime.
                let object = output.with_extension("o");
                let mut compile = Command::new(&self.compiler);
                compile.arg(format!("-fsanitize={}", sanitizer.name())).arg("-I").arg(self.library.include_dir());
                compile.args(["-r", "-o"]).arg(&object).args(&self.arguments);
                let result = start(&mut compile);
                if !result.status.success() {
                    return (compile, result);
                }
                command.arg("-o").arg(output).arg(object).arg("-Wl,--whole-archive").arg(sanitizer.runtime());
                command.args(["-Wl,--no-whole-archive", "-ldl", "-lm", "-lrt"]);
            }
        }
        match self.linkage {
            Linkage::Shared => {
                // An old-style rpath wins over the LD_LIBRARY_PATH that cargo gives to tests.
                let mut rpath = OsString::from("-Wl,--disable-new-dtags,-rpath,");
                rpath.push(lib_dir);
                command.arg("-L").arg(lib_dir).arg(rpath).args(["-rdynamic", "-lmilter"]);
            }
            Linkage::Static => {
                command.arg(self.library.static_library());
            }
        }
        command.arg("-lpthread");
        let result = start(&mut command);
        (command, result)
    }
}

fn start(compiler: &mut Command) -> Output {
    compiler.output().unwrap_or_else(|error| panic!("{}: {error}", compiler.get_program().display()))
}

/// The compiler named by an environment variable, or the system's.
pub(crate) fn compiler(variable: &str, default: &str) -> OsString {
    env::var_os(variable).filter(|value| !value.is_empty()).unwrap_or_else(|| OsStr::new(default).to_owned())
}
