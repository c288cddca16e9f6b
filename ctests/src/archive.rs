//! Released sources of other people's filters, and what is built from them.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

use crate::{Linkage, skip, target_dir, workspace_dir};

/// Where `ctests/sources/fetch` has put archives: `LIBMILTER_SOURCES`, or `sources` in the target directory.
#[must_use]
pub fn sources_dir() -> PathBuf {
    env::var_os("LIBMILTER_SOURCES")
        .filter(|value| !value.is_empty())
        .map_or_else(|| target_dir().join("sources"), PathBuf::from)
}

/// Something that a build needs, and the Debian package that has it.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// A program on the path.
    Program(&'static str, &'static str),
    /// A header that the C compiler finds.
    Header(&'static str, &'static str),
}

impl Need {
    /// The package, if the thing is not there.
    fn missing(self) -> Option<&'static str> {
        let (there, package) = match self {
            Need::Program(name, package) => (crate::program::find(name).is_some(), package),
            Need::Header(name, package) => (has_header(name), package),
        };
        (!there).then_some(package)
    }
}

fn has_header(name: &str) -> bool {
    Command::new(crate::compile::compiler("CC", "cc"))
        .args(["-E", "-include", name, "-x", "c", "/dev/null"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A filter built from its released sources, with our headers and our library.
#[derive(Debug)]
pub struct Build {
    directory: PathBuf,
    prefix: &'static Path,
}

impl Build {
    /// Builds the filter of this name as `ctests/sources/build` knows it; `None`, and `test` counts as skipped, when its
    /// archive is not there or something that the build needs. A build with the same sources, headers and
    /// recipe is used again; a static one also needs the same library.
    ///
    /// # Panics
    ///
    /// When it does not build.
    #[must_use]
    pub fn make_or_skip(test: &str, name: &str, needs: &[Need], linkage: Linkage) -> Option<Build> {
        if let Some(package) = needs.iter().find_map(|need| need.missing()) {
            skip(test, package);
            return None;
        }
        let archive = sources_dir().join(format!("{name}.tar.gz"));
        let Ok(packed) = fs::read(&archive) else {
            skip(test, &format!("{}: run ctests/sources/fetch {}", archive.display(), sources_dir().display()));
            return None;
        };
        // One after another: several tests may want the same build, and each keeps all processors busy.
        static BUILDING: Mutex<()> = Mutex::new(());
        let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
        let prefix = prefix(linkage);
        let recipe = workspace_dir().join("ctests/sources/build");
        let directory = prefix.with_file_name(name);
        let stamp = directory.with_extension("stamp");
        let inputs = inputs(&packed, &recipe, linkage);
        if !fs::read_to_string(&stamp).is_ok_and(|old| old == inputs) {
            let _ = fs::remove_dir_all(&directory);
            fs::create_dir_all(&directory).expect("the target directory is writable");
            run(Command::new("tar").args(["--extract", "--strip-components=1", "--file"]).arg(&archive), &directory);
            run(Command::new(&recipe).arg(name).arg(prefix), &directory);
            fs::write(&stamp, inputs).expect("the target directory is writable");
        }
        Some(Build { directory, prefix })
    }

    /// The program or module.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn product(&self) -> PathBuf {
        self.directory.join("product").canonicalize().expect("the recipe links what it has built")
    }

    /// Checks, in the debugging information, that every header of libmilter that was read is ours.
    ///
    /// # Panics
    ///
    /// When one is not, or none was read.
    pub fn assert_headers(&self) {
        let product = fs::read(self.product()).expect("a file");
        let directories: Vec<&str> = product
            .split(|octet| *octet == 0)
            .filter_map(|text| std::str::from_utf8(text).ok())
            .filter(|text| text.starts_with('/') && text.ends_with("/include/libmilter"))
            .collect();
        let wanted = self.prefix.join("include/libmilter");
        assert!(
            !directories.is_empty() && directories.iter().all(|found| Path::new(found) == wanted),
            "{} has headers from {directories:?} instead of {}",
            self.product().display(),
            wanted.display()
        );
    }
}

/// What decides whether a build can be used again, as a short text.
fn inputs(packed: &[u8], recipe: &Path, linkage: Linkage) -> String {
    let prefix = prefix(linkage);
    let mut hasher = DefaultHasher::new();
    packed.hash(&mut hasher);
    let mut files = vec![recipe.to_path_buf()];
    files.extend(["mfapi.h", "mfdef.h", "mfext.h"].map(|header| prefix.join("include/libmilter").join(header)));
    if linkage == Linkage::Static {
        files.push(prefix.join("lib/libmilter.a"));
    }
    for file in files {
        fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).hash(&mut hasher);
    }
    format!("{:016x}\n", hasher.finish())
}

/// Runs a step of a build in `directory`; what it says goes to a file beside that.
fn run(command: &mut Command, directory: &Path) {
    let log = directory.with_extension("log");
    let file = fs::File::create(&log).expect("the target directory is writable");
    command.current_dir(directory).stdin(Stdio::null()).stdout(file.try_clone().expect("a descriptor")).stderr(file);
    clear(command);
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    if !status.success() {
        let said = fs::read(&log).unwrap_or_default();
        let tail = String::from_utf8_lossy(&said[said.len().saturating_sub(4000)..]).into_owned();
        panic!("{command:?}: {status}; {} ends with\n{tail}", log.display());
    }
}

/// Frees a command from what an outer make and cargo have passed on.
fn clear(command: &mut Command) {
    for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "LD_LIBRARY_PATH", "LIBMILTER_SONAME", "CARGO_BUILD_TARGET"] {
        command.env_remove(variable);
    }
}

/// The library as `make install` puts it in place; of the two kinds of library only the one of this linkage is there.
fn prefix(linkage: Linkage) -> &'static Path {
    static PREFIXES: [OnceLock<PathBuf>; 2] = [OnceLock::new(), OnceLock::new()];
    let (kind, other) = match linkage {
        Linkage::Shared => ("shared", "libmilter.a"),
        Linkage::Static => ("static", "libmilter.so"),
    };
    PREFIXES[linkage as usize].get_or_init(|| {
        let prefix = target_dir().join("ctests/sources").join(kind).join("prefix");
        let _ = fs::remove_dir_all(&prefix);
        let mut make = Command::new("make");
        make.arg("--silent").arg("install").arg(format!("PREFIX={}", prefix.display()));
        make.current_dir(workspace_dir()).env("CARGO_TARGET_DIR", target_dir());
        clear(&mut make);
        let output = make.output().expect("make");
        assert!(output.status.success(), "{make:?}: {}", String::from_utf8_lossy(&output.stderr));
        fs::remove_file(prefix.join("lib").join(other)).expect("both libraries are installed");
        prefix
    })
}
