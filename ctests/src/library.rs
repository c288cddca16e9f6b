//! The libraries under test: where their headers and files are.

use std::{
    env, fmt, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::{Sanitizer, sanitizer::TARGET, skip};

/// Whose libmilter it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The library of this workspace.
    Ours,
    /// Sendmail's libmilter, from the system's development package.
    Reference,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Ours => "ours",
            Origin::Reference => "reference",
        })
    }
}

/// A libmilter that programs can be compiled and run with.
#[derive(Debug)]
pub struct Library {
    origin: Origin,
    sanitizer: Option<Sanitizer>,
    include_dir: PathBuf,
    lib_dir: PathBuf,
    shared_object: PathBuf,
}

impl Library {
    /// The library of this workspace in its release profile; built by the first call of a test process.
    ///
    /// # Panics
    ///
    /// When it does not build.
    pub fn ours() -> &'static Library {
        static OURS: OnceLock<Library> = OnceLock::new();
        OURS.get_or_init(|| build(None))
    }

    /// The same built with a sanitizer.
    ///
    /// # Panics
    ///
    /// When it does not build.
    pub fn sanitized(sanitizer: Sanitizer) -> &'static Library {
        static ADDRESS: OnceLock<Library> = OnceLock::new();
        static THREAD: OnceLock<Library> = OnceLock::new();
        let built = match sanitizer {
            Sanitizer::Address => &ADDRESS,
            Sanitizer::Thread => &THREAD,
        };
        built.get_or_init(|| build(Some(sanitizer)))
    }

    /// Sendmail's libmilter, if its headers and its library are installed; `LIBMILTER_REFERENCE` names the directory
    /// of another one than the system's.
    pub fn reference() -> Option<&'static Library> {
        static REFERENCE: OnceLock<Option<Library>> = OnceLock::new();
        REFERENCE.get_or_init(find_reference).as_ref()
    }

    /// As [`Library::reference`], but reports an absent one as the skipped part of `test`.
    pub fn reference_or_skip(test: &str) -> Option<&'static Library> {
        let reference = Library::reference();
        if reference.is_none() {
            skip(&format!("{test} (reference)"), "libmilter-dev");
        }
        reference
    }

    /// Both libraries; an absent reference is reported as the skipped part of `test`.
    pub fn both(test: &str) -> Vec<&'static Library> {
        let mut libraries = vec![Library::ours()];
        libraries.extend(Library::reference_or_skip(test));
        libraries
    }

    /// The same library from a copy of its shared object in `directory`, which is created.
    ///
    /// # Panics
    ///
    /// When it cannot be copied.
    #[must_use]
    pub fn copied_to(&self, directory: &Path) -> Library {
        fs::create_dir_all(directory).expect("a writable directory");
        let directory = directory.canonicalize().expect("it has just been created");
        let shared_object = directory.join(SONAME);
        put(&fs::read(&self.shared_object).expect("the library is there"), &shared_object);
        symlink(SONAME, directory.join("libmilter.so")).expect("a fresh directory");
        let Library { origin, sanitizer, .. } = *self;
        Library { origin, sanitizer, include_dir: self.include_dir.clone(), shared_object, lib_dir: directory }
    }

    /// Whose it is.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// What it was built with, and programs have to be built with.
    #[must_use]
    pub fn sanitizer(&self) -> Option<Sanitizer> {
        self.sanitizer
    }

    /// Where programs are kept that are linked with it.
    pub(crate) fn programs_dir(&self) -> PathBuf {
        let name = match self.sanitizer {
            Some(sanitizer) => format!("{}-{}", self.origin, sanitizer.name()),
            None => self.origin.to_string(),
        };
        target_dir().join("ctests").join(name)
    }

    /// The directory that holds `libmilter/mfapi.h`.
    #[must_use]
    pub fn include_dir(&self) -> &Path {
        &self.include_dir
    }

    /// The directory that holds `libmilter.so`, the name it has at run time, and `libmilter.a`.
    #[must_use]
    pub fn lib_dir(&self) -> &Path {
        &self.lib_dir
    }

    /// The shared object itself, behind all links.
    #[must_use]
    pub fn shared_object(&self) -> &Path {
        &self.shared_object
    }

    /// The static library.
    #[must_use]
    pub fn static_library(&self) -> PathBuf {
        self.lib_dir.join("libmilter.a")
    }
}

/// The workspace this crate belongs to.
#[must_use]
pub fn workspace_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("ctests lies in the workspace")
}

/// Cargo's target directory, found from the running test.
///
/// # Panics
///
/// When the running program is not below a target directory.
#[must_use]
pub fn target_dir() -> PathBuf {
    let program = env::current_exe().expect("the running test has a path");
    // <target>/<profile>/deps/<test>, or <target>/<triple>/<profile>/deps/<test>
    program
        .ancestors()
        .find(|directory| directory.join(".rustc_info.json").exists())
        .unwrap_or_else(|| panic!("{} is not below a cargo target directory", program.display()))
        .to_path_buf()
}

/// The name that a program linked with the library asks the dynamic linker for.
pub(crate) const SONAME: &str = "libmilter.so.1.0.1";

fn build(sanitizer: Option<Sanitizer>) -> Library {
    let mut target = target_dir();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "libmilter"]);
    let built = match sanitizer {
        None => {
            cargo.arg("--release");
            target.join("release")
        }
        Some(sanitizer) => {
            target = target.join("sanitize").join(sanitizer.name());
            // With link-time optimisation it takes minutes. For reports, the names of functions and lines.
            cargo.args(["--profile", "tools", "--target", TARGET]);
            cargo.env("CARGO_PROFILE_TOOLS_DEBUG", "line-tables-only").env("CARGO_PROFILE_TOOLS_STRIP", "none");
            cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", sanitizer.rust_flags());
            target.join(TARGET).join("tools")
        }
    };
    cargo.arg("--target-dir").arg(&target).current_dir(workspace_dir()).env_remove("LIBMILTER_SONAME");
    let status = cargo.status().expect("cargo can be started");
    assert!(status.success(), "{cargo:?} failed: {status}");

    let stage = target.join("ctests").join("lib");
    fs::create_dir_all(&stage).expect("the target directory is writable");
    // Copies, because cargo removes a library for a moment when it builds the next one.
    put(&fs::read(built.join("libmilter.so")).expect("cargo has built it"), &stage.join(SONAME));
    put(&fs::read(built.join("libmilter.a")).expect("cargo has built it"), &stage.join("libmilter.a"));
    let name = stage.join("libmilter.so");
    if !name.exists() {
        // Another test process may do the same.
        let _ = symlink(SONAME, &name);
    }
    Library {
        origin: Origin::Ours,
        sanitizer,
        include_dir: workspace_dir().join("include"),
        shared_object: stage.join(SONAME).canonicalize().expect("it has just been written"),
        lib_dir: stage,
    }
}

/// Makes `path` a file of this content; whoever opens it gets the old or the new one, never a part.
fn put(content: &[u8], path: &Path) {
    if fs::read(path).is_ok_and(|old| old == content) {
        return;
    }
    let fresh = path.with_extension(format!("{}", std::process::id()));
    fs::write(&fresh, content)
        .and_then(|()| fs::rename(&fresh, path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn find_reference() -> Option<Library> {
    let include_dir = PathBuf::from("/usr/include");
    if !include_dir.join("libmilter/mfapi.h").exists() {
        return None;
    }
    let found = match env::var_os("LIBMILTER_REFERENCE") {
        Some(directory) => PathBuf::from(directory).join("libmilter.so"),
        None => {
            let compiler = crate::compile::compiler("CC", "cc");
            let answer = Command::new(compiler).arg("-print-file-name=libmilter.so").output().ok()?;
            PathBuf::from(String::from_utf8(answer.stdout).ok()?.trim_end())
        }
    };
    // A bare name means that the compiler knows no such file.
    let lib_dir = found.parent().filter(|_| found.is_absolute())?.canonicalize().ok()?;
    let shared_object = found.canonicalize().ok()?;
    // A replacement installed system-wide is not the reference: only that one exports its engine.
    let object = fs::read(&shared_object).ok()?;
    let exported = b"\0mi_engine\0";
    object.windows(exported.len()).any(|name| name == exported).then_some(Library {
        origin: Origin::Reference,
        sanitizer: None,
        include_dir,
        lib_dir,
        shared_object,
    })
}
