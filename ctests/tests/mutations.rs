//! A deliberately wrong library is noticed: every line of code that `ctests/mutations` spoils, one at a time and in a
//! copy of this workspace, makes the test fail that is named with it.
//!
//! The copy and what is built of it stay in the target directory, so that each mutation costs one small build.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use ctests::{Process, target_dir, workspace_dir};
use libtest_mimic::{Arguments, Failed, Trial};

/// The longest that one build or one test may take.
const LIMIT: Duration = Duration::from_secs(300);

/// One mistake that somebody could make.
struct Mutation {
    /// What would come of it.
    danger: String,
    file: String,
    original: String,
    mutant: String,
    noticed_by: Test,
}

/// A test by the names that cargo wants.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Test {
    package: String,
    /// `lib`, or an integration test.
    target: String,
    name: String,
}

/// A copy of the workspace.
struct Copy {
    tree: PathBuf,
    target: PathBuf,
    log: PathBuf,
}

fn main() {
    let mut arguments = Arguments::from_args();
    // There is one copy.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials()).exit();
}

fn trials() -> Vec<Trial> {
    let table = fs::read_to_string(workspace_dir().join("ctests/mutations")).expect("the table is readable");
    let mutations = parse(&table);
    let tests: BTreeSet<Test> = mutations.iter().map(|mutation| mutation.noticed_by.clone()).collect();
    let copy = Arc::new(Copy::new());
    let misfits: Vec<String> = mutations.iter().filter_map(|mutation| mutation.misfit()).collect();
    let table = Trial::test("the_table_fits_the_sources", move || {
        if misfits.is_empty() { Ok(()) } else { Err(misfits.join("\n").into()) }
    });
    let of_tests = tests.into_iter().map(|test| {
        let copy = Arc::clone(&copy);
        Trial::test(format!("right::{}::{}", test.target, test.name), move || copy.passes(&test))
    });
    let copy = Arc::clone(&copy);
    let of_mutations = mutations.into_iter().map(|mutation| {
        let copy = Arc::clone(&copy);
        let name = format!("wrong::{}", mutation.danger.replace(' ', "_"));
        Trial::test(name, move || copy.notices(&mutation))
    });
    std::iter::once(table).chain(of_tests).chain(of_mutations).collect()
}

/// Reads the table: blocks of lines, each line a key and a value.
fn parse(table: &str) -> Vec<Mutation> {
    let lines: Vec<&str> = table.lines().filter(|line| !line.starts_with('#')).collect();
    let blocks = lines.split(|line| line.is_empty()).filter(|block| !block.is_empty());
    blocks.map(|block| mutation(block).unwrap_or_else(|| panic!("no mutation: {}", block.join("\n")))).collect()
}

fn mutation(block: &[&str]) -> Option<Mutation> {
    let values = |key: &str| {
        let of_key = block.iter().filter_map(|line| line.strip_prefix(key));
        of_key.map(str::trim).collect::<Vec<_>>().join("\n")
    };
    let test = values("test ");
    let [package, target, name] = test.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let mutation = Mutation {
        danger: values("danger "),
        file: values("file "),
        original: values("right "),
        mutant: values("wrong"),
        noticed_by: Test { package: package.into(), target: target.into(), name: name.into() },
    };
    let complete = [&mutation.danger, &mutation.file, &mutation.original].iter().all(|value| !value.is_empty());
    complete.then_some(mutation)
}

impl Mutation {
    /// Why it cannot be made.
    fn misfit(&self) -> Option<String> {
        let source = fs::read_to_string(workspace_dir().join(&self.file));
        source.map_err(|error| format!("{}: {error}", self.file)).and_then(|source| self.of(&source)).err()
    }

    /// Spoils a source, in which the right text has to be exactly once.
    fn of(&self, source: &str) -> Result<String, String> {
        let unindented: Vec<&str> = source.lines().map(str::trim_start).collect();
        let unindented = unindented.join("\n");
        match unindented.matches(&self.original).count() {
            1 => Ok(unindented.replace(&self.original, &self.mutant)),
            count => Err(format!("{}: there {count} times, not once: {}", self.file, self.original)),
        }
    }
}

impl Copy {
    fn new() -> Self {
        let directory = target_dir().join("mutations");
        let copy =
            Copy { tree: directory.join("tree"), target: directory.join("target"), log: directory.join("output") };
        mirror(workspace_dir(), &copy.tree);
        copy
    }

    /// Checks that a test is there, and passes as long as nothing is wrong.
    fn passes(&self, test: &Test) -> Result<(), Failed> {
        self.build(test)?;
        if self.run(test)? && self.output().contains("test result: ok. 1 passed; 0 failed") {
            Ok(())
        } else {
            Err(format!("the test does not pass, or there is no such test\n{}", self.output()).into())
        }
    }

    /// Checks that a test fails once the library is wrong.
    fn notices(&self, mutation: &Mutation) -> Result<(), Failed> {
        let path = self.tree.join(&mutation.file);
        let source = fs::read_to_string(&path)?;
        let test = &mutation.noticed_by;
        fs::write(&path, mutation.of(&source)?)?;
        let passed = self.build(test).and_then(|()| self.run(test));
        fs::write(&path, source)?;
        if passed? { Err(format!("{}::{} passes all the same", test.target, test.name).into()) } else { Ok(()) }
    }

    /// Builds a test and, if it runs C programs, the library that they are linked with.
    fn build(&self, test: &Test) -> Result<(), Failed> {
        let mut builds = vec![self.cargo(&["test", "--no-run"], test)];
        if test.package == "ctests" {
            let mut library = self.command();
            library.args(["build", "--release", "--locked", "--package", "libmilter"]);
            builds.push(library);
        }
        for mut build in builds {
            if !self.succeeds(&mut build)? {
                return Err(format!("it does not build\n{}", self.output()).into());
            }
        }
        Ok(())
    }

    fn run(&self, test: &Test) -> Result<bool, Failed> {
        self.succeeds(self.cargo(&["test"], test).args(["--", "--exact", &test.name]))
    }

    fn cargo(&self, subcommand: &[&str], test: &Test) -> Command {
        let mut command = self.command();
        command.args(subcommand).args(["--locked", "--package", &test.package]);
        match &test.target[..] {
            "lib" => command.arg("--lib"),
            target => command.args(["--test", target]),
        };
        command
    }

    /// Cargo in the copy. The release library, which the tests with C programs build, is made as quickly as a debug one.
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO"));
        command
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("LIBMILTER_IMPATIENT", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_RELEASE_INCREMENTAL", "true")
            .env_remove("LIBMILTER_SKIP_LOG")
            .stdin(Stdio::null());
        command
    }

    fn succeeds(&self, command: &mut Command) -> Result<bool, Failed> {
        let log = File::create(&self.log)?;
        let mut process = Process::spawn(command.stdout(log.try_clone()?).stderr(log));
        match process.wait(LIMIT) {
            Some(status) => Ok(status.success()),
            None => Err(format!("no end after {LIMIT:?}\n{}", self.output()).into()),
        }
    }

    fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Makes `copy` like `original`, without what is built and what git keeps. A file that is the same already keeps its
/// time, by which cargo knows what to build again.
fn mirror(original: &Path, copy: &Path) {
    let fail = |error| panic!("{}: {error}", copy.display());
    fs::create_dir_all(copy).unwrap_or_else(fail);
    let names = |directory: &Path| -> BTreeSet<_> {
        let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        entries.map(|entry| entry.expect("a readable directory").file_name()).collect()
    };
    let mut wanted = names(original);
    wanted.retain(|name| name != "target" && name != ".git");
    for name in names(copy).difference(&wanted) {
        let path = copy.join(name);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap_or_else(fail);
    }
    for name in wanted {
        let (from, to) = (original.join(&name), copy.join(&name));
        if from.is_dir() {
            mirror(&from, &to);
        } else if fs::read(&from).ok() != fs::read(&to).ok() {
            fs::copy(&from, &to).map(drop).unwrap_or_else(fail);
        }
    }
}
