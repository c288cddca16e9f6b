//! Filters that follow a plan and record what happens to them: `filters/recorder`.

use std::{
    collections::HashMap,
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, OnceLock},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Compile, Library, Linkage, MtaConnection, PATIENCE, Process, TempDir,
    conversation::Setting,
    words::{self, Word},
};

/// A line of a record: a callback with its arguments, a call with its result, or a log message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    words: Vec<Word>,
}

impl Event {
    pub(crate) fn new(words: Vec<Word>) -> Event {
        Event { words }
    }

    /// Whether the library said it to syslog.
    #[must_use]
    pub fn is_log(&self) -> bool {
        self.words.first().is_some_and(|word| word.octets == b"log")
    }

    /// The severity of a log message, as in syslog(3): 3 is an error.
    #[must_use]
    pub fn severity(&self) -> Option<u8> {
        self.words.get(1).filter(|_| self.is_log())?.text().ok()?.parse().ok()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, word) in self.words.iter().enumerate() {
            write!(f, "{}{word}", if at == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// The sources of the recorder, below the workspace.
const SOURCES: [&str; 6] = ["recorder", "journal", "plan", "serve", "steps", "deeds"];

/// The recorder linked with `library`; compiled by the first call of a test process.
///
/// # Panics
///
/// When it does not compile.
pub fn recorder(library: &Library, linkage: Linkage) -> PathBuf {
    static BUILT: OnceLock<Mutex<HashMap<PathBuf, PathBuf>>> = OnceLock::new();
    let mut built = BUILT.get_or_init(Mutex::default).lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let directory = library.programs_dir();
    let program = directory.join(if linkage == Linkage::Static { "recorder-static" } else { "recorder" });
    built
        .entry(program.clone())
        .or_insert_with(|| {
            fs::create_dir_all(&directory).expect("the target directory is writable");
            let fresh = program.with_extension(std::process::id().to_string());
            let mut compile = Compile::c(library).linkage(linkage);
            for flag in ["-Wall", "-Wextra", "-Werror", "-O1", "-g"] {
                compile = compile.flag(flag);
            }
            for source in SOURCES {
                compile = compile.source(format!("ctests/filters/recorder/{source}.c"));
            }
            compile.to(&fresh);
            fs::rename(&fresh, &program).expect("a program can be renamed");
            program
        })
        .clone()
}

/// What an administrator gives a recorder.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Settings of `LIBMILTER_OPTIONS` besides the model.
    pub options: String,
    /// Further variables.
    pub environment: Vec<(&'static str, String)>,
    /// What comes before the program on the command line.
    pub wrapper: Vec<String>,
}

/// A running recorder.
#[derive(Debug)]
pub struct Filter {
    process: Process,
    directory: TempDir,
}

impl Filter {
    /// Starts a recorder that makes the usual calls and serves `socket`; returns when that exists.
    ///
    /// # Panics
    ///
    /// When it does not get so far within some seconds.
    #[must_use]
    pub fn start(setting: &Setting, plan: &str) -> Filter {
        let filter = Filter::launch(setting, plan, TempDir::new());
        filter.wait_for("ready");
        if setting.linkage == Linkage::Shared {
            filter.process.assert_uses(setting.library);
        }
        filter
    }

    /// Starts a recorder whose plan says itself, in `start` lines, what to call. `$socket` in the
    /// plan is [`Filter::description`].
    #[must_use]
    pub fn launch(setting: &Setting, plan: &str, directory: TempDir) -> Filter {
        Filter::launch_with(setting, &Surroundings::default(), plan, directory)
    }

    /// The same in these surroundings.
    #[must_use]
    pub fn launch_with(setting: &Setting, surroundings: &Surroundings, plan: &str, directory: TempDir) -> Filter {
        let program = recorder(setting.library, setting.linkage);
        let mut words = surroundings.wrapper.iter().map(OsString::from).chain([program.into()]);
        let mut command = Command::new(words.next().expect("there is the program at least"));
        command
            .args(words)
            .arg(directory.write("plan", plan))
            .arg(directory.join("record"))
            .arg(description(&directory))
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(fs::File::create(directory.join("stdout")).expect("a writable directory"))
            .stderr(fs::File::create(directory.join("stderr")).expect("a writable directory"))
            .env_remove("LIBMILTER_OPTIONS")
            .envs(setting.environment(&surroundings.options))
            .envs(surroundings.environment.iter().map(|(name, value)| (name, value)));
        Filter { process: Process::spawn(&mut command), directory }
    }

    /// The UNIX socket of [`Filter::description`].
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// What `$socket` stands for in the plan.
    #[must_use]
    pub fn description(&self) -> String {
        description(&self.directory)
    }

    /// Where the filter runs.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Connects to [`Filter::socket`].
    ///
    /// # Panics
    ///
    /// When nobody listens there.
    #[must_use]
    pub fn connect(&self) -> MtaConnection {
        MtaConnection::unix(self.socket()).unwrap_or_else(|error| panic!("{}: {error}", self.socket().display()))
    }

    /// What has been recorded since the filter was ready, or since its start if its plan says `start`.
    ///
    /// # Panics
    ///
    /// When a line is not in the language of records.
    #[must_use]
    pub fn record(&self) -> Vec<Event> {
        let lines = self.lines();
        let first = lines.iter().position(|line| line == "ready").map_or(0, |at| at + 1);
        lines[first..].iter().map(|line| event(line)).collect()
    }

    /// Every line of the record, but for one that is being written.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let record = fs::read(self.directory.join("record")).unwrap_or_default();
        let record = String::from_utf8_lossy(&record);
        record.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
    }

    /// Waits until the record has a line that starts with `start`, and returns it.
    ///
    /// # Panics
    ///
    /// When there is none within [`PATIENCE`].
    pub fn wait_for(&self, start: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lines = self.lines();
            if let Some(line) = lines.iter().find(|line| line.starts_with(start)) {
                return line.clone();
            }
            assert!(
                Instant::now() < deadline,
                "no '{start}' in the record of the filter:\n{}\n{}",
                lines.join("\n"),
                self.output()
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// What the program wrote to standard output and standard error so far.
    #[must_use]
    pub fn output(&self) -> String {
        output(&self.directory)
    }

    /// Kills the program; returns what it wrote, and whether it was still well.
    #[must_use]
    pub fn end(self) -> (String, bool) {
        let survived = self.process.end();
        (output(&self.directory), survived)
    }
}

fn output(directory: &TempDir) -> String {
    let read = |name| fs::read(directory.join(name)).unwrap_or_default();
    String::from_utf8_lossy(&[read("stdout"), read("stderr")].concat()).into_owned()
}

fn description(directory: &TempDir) -> String {
    format!("unix:{}", directory.join("socket").display())
}

fn event(line: &str) -> Event {
    let mut lists = words::split(line).unwrap_or_else(|error| panic!("record: {error}"));
    Event::new(lists.swap_remove(0))
}
