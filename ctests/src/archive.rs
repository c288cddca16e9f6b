//! Released sources of other people's filters, and what is built from them.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use crate::{Linkage, Process, Setting, library::SONAME, skip, target_dir, workspace_dir};

/// Where `ctests/sources/fetch` has put archives: `LIBMILTER_SOURCES`, or `sources` in the target directory.
#[must_use]
pub fn sources_dir() -> PathBuf {
    env::var_os("LIBMILTER_SOURCES")
        .filter(|value| !value.is_empty())
        .map_or_else(|| target_dir().join("sources"), PathBuf::from)
}

/// An archive in the list `ctests/sources/archives`.
#[derive(Clone, Debug)]
pub struct Archive {
    name: String,
    required: bool,
}

impl Archive {
    /// The whole list.
    ///
    /// # Panics
    ///
    /// When a line of it is not as the list itself says.
    #[must_use]
    pub fn all() -> Vec<Archive> {
        let list = workspace_dir().join("ctests/sources/archives");
        let text = fs::read_to_string(&list).unwrap_or_else(|error| panic!("{}: {error}", list.display()));
        text.lines().filter(|line| !line.starts_with('#')).map(Archive::parse).collect()
    }

    fn parse(line: &str) -> Archive {
        match line.split(' ').collect::<Vec<_>>()[..] {
            [demand @ ("required" | "offered"), name, _source, _file, _sum] => {
                Archive { name: name.to_owned(), required: demand == "required" }
            }
            _ => panic!("not a line of the list of archives: {line}"),
        }
    }

    /// The name of the filter.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether tests have to want it: unless no repository need have it, and none had it.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.required || packed(&self.name).exists()
    }
}

/// The archive of the filter of this name, once it is fetched.
fn packed(name: &str) -> PathBuf {
    sources_dir().join(format!("{name}.tar.gz"))
}

/// Something that a build needs, and the Debian package that has it.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// A program on the path.
    Program(&'static str, &'static str),
    /// A header that the C compiler finds.
    Header(&'static str, &'static str),
    /// A file of the system.
    File(&'static str, &'static str),
}

impl Need {
    /// The package, if the thing is not there.
    fn missing(self) -> Option<&'static str> {
        let (there, package) = match self {
            Need::Program(name, package) => (crate::program::find(name).is_some(), package),
            Need::Header(name, package) => (has_header(name), package),
            Need::File(path, package) => (Path::new(path).exists(), package),
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
        let archive = packed(name);
        let Ok(packed) = fs::read(&archive) else {
            skip(test, &format!("{}: run ctests/sources/fetch {}", archive.display(), sources_dir().display()));
            return None;
        };
        let prefix = prefix(linkage);
        let recipe = workspace_dir().join("ctests/sources/build");
        let directory = prefix.with_file_name(name);
        // Several tests may want the same build.
        let building = fs::File::create(directory.with_extension("lock")).expect("the target directory is writable");
        building.lock().expect("a file that can be locked");
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

    /// The directory of its sources, in which it was built.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
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

    /// Runs a command in `directory`, below that of the build, with the library of `setting` for the programs that it
    /// starts; returns what it said, which is also in a file.
    ///
    /// # Panics
    ///
    /// When it runs on after `limit`.
    #[must_use]
    pub fn run_with(&self, setting: &Setting, directory: &str, command: &[&str], limit: Duration) -> String {
        let log = self.directory.with_extension(format!("{setting}.log"));
        let mut environment = Command::new("env");
        environment.arg(format!("LD_LIBRARY_PATH={}", setting.library.lib_dir().display()));
        environment.args(setting.model.map(|model| format!("LIBMILTER_OPTIONS=model={model}"))).args(command);
        detach(&mut environment, &log).env_remove("LIBMILTER_OPTIONS").current_dir(self.directory.join(directory));
        let ended = Process::spawn(&mut environment).wait(limit);
        assert!(ended.is_some(), "{setting}: {command:?} does not end: {}", log.display());
        String::from_utf8_lossy(&fs::read(&log).expect("it has just been written")).into_owned()
    }

    /// Checks that the dynamic linker gives the library of `setting` to the product, and none to a static one.
    ///
    /// # Panics
    ///
    /// When that is not so.
    pub fn assert_loads(&self, setting: &Setting) {
        let mut ldd = Command::new("ldd");
        ldd.arg(self.product()).env("LD_LIBRARY_PATH", setting.library.lib_dir());
        let output = ldd.output().expect("ldd, a part of the C library");
        assert!(output.status.success(), "{ldd:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        let loaded: Vec<PathBuf> = text
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("libmilter")?.split_once(" => "))
            .map(|(_, found)| PathBuf::from(found.split(" (").next().unwrap_or_default()))
            .collect();
        let wanted = match setting.linkage {
            Linkage::Shared => vec![setting.library.lib_dir().join(SONAME)],
            Linkage::Static => Vec::new(),
        };
        assert_eq!(loaded, wanted, "{setting}: {}", self.product().display());
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
    let status = detach(command, &log).current_dir(directory).status();
    let status = status.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    if !status.success() {
        let said = fs::read(&log).unwrap_or_default();
        let tail = String::from_utf8_lossy(&said[said.len().saturating_sub(4000)..]).into_owned();
        panic!("{command:?}: {status}; {} ends with\n{tail}", log.display());
    }
}

/// Has a command say everything in the file `log`, and frees it from what an outer make and cargo have passed on.
fn detach<'a>(command: &'a mut Command, log: &Path) -> &'a mut Command {
    let file = fs::File::create(log).expect("the target directory is writable");
    clear(command).stdin(Stdio::null()).stdout(file.try_clone().expect("a descriptor")).stderr(file)
}

fn clear(command: &mut Command) -> &mut Command {
    for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "LD_LIBRARY_PATH", "LIBMILTER_SONAME", "CARGO_BUILD_TARGET"] {
        command.env_remove(variable);
    }
    command
}

/// The library as `make install-library` puts it in place; of the two kinds of library only the one of this linkage is there.
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
        make.arg("--silent").arg("install-library").arg(format!("PREFIX={}", prefix.display()));
        make.current_dir(workspace_dir()).env("CARGO_TARGET_DIR", target_dir());
        clear(&mut make);
        let output = make.output().expect("make");
        assert!(output.status.success(), "{make:?}: {}", String::from_utf8_lossy(&output.stderr));
        fs::remove_file(prefix.join("lib").join(other)).expect("both libraries are installed");
        prefix
    })
}
