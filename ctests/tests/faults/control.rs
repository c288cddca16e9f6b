//! What `filters/faults` shares with the tests: which call is to fail, and what has been called.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use ctests::{TempDir, stage, target_dir, workspace_dir};

/// Room for `struct control` of the C source.
const SIZE: usize = 8192;

// Where its members are.
const MODE: u64 = 0;
const ERROR: u64 = 8;
const NTH: u64 = 16;
const TARGET: u64 = 24;
const FAILED: u64 = 40;
const DEPTH: u64 = 48;
const FRAMES: u64 = 56;
const FRAMES_LEN: u64 = 48;
const KNOWN: u64 = FRAMES + 8 * FRAMES_LEN;
const CALLS: u64 = KNOWN + 8;
const NAME_LEN: usize = 24;
const CALL_LEN: u64 = 32;

/// The call that stands for everything that allocates.
pub(crate) const ALLOC: u64 = 0;

/// What is to fail.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Nothing.
    Never,
    /// The n-th call from now on, from 1.
    Nth(u64),
    /// Every call.
    Always,
}

/// The file that a filter and its test share.
#[derive(Debug)]
pub(crate) struct Control {
    file: File,
    path: PathBuf,
}

impl Control {
    /// A file with which nothing fails yet.
    pub(crate) fn new(directory: &TempDir) -> Control {
        let path = directory.write("control", [0; SIZE]);
        let file = File::options().read(true).write(true).open(&path).expect("our own file");
        Control { file, path }
    }

    /// The variables of a filter that is to obey it.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.to_str().expect("paths of ours are UTF-8").to_owned();
        vec![("LD_PRELOAD", text(preloaded())), ("FAULTS_CONTROL", text(&self.path))]
    }

    /// Has calls of number `call` fail with this errno from now on, or not any more.
    pub(crate) fn set(&self, call: u64, error: i32, fault: Fault) {
        let (mode, nth) = match fault {
            Fault::Never => (0, 0),
            Fault::Nth(nth) => (1, nth),
            Fault::Always => (2, 0),
        };
        self.put(MODE, 0);
        self.put(ERROR, u64::try_from(error).expect("errors are positive"));
        self.put(NTH, nth);
        self.put(TARGET, call);
        self.put(MODE, mode);
    }

    /// How many calls have failed.
    pub(crate) fn failed(&self) -> u64 {
        self.get(FAILED)
    }

    /// Every call that can fail, in the order of their numbers, and how often the library has made it so far.
    pub(crate) fn calls(&self) -> Vec<(String, u64)> {
        (0..self.get(KNOWN))
            .map(|at| {
                let mut name = [0; NAME_LEN];
                self.file.read_exact_at(&mut name, CALLS + at * CALL_LEN).expect("a file of ours");
                let name = name.split(|octet| *octet == 0).next().expect("there is a first part");
                (String::from_utf8(name.to_vec()).expect("names are ASCII"), self.count(at))
            })
            .collect()
    }

    /// How often the library has made the call of this number.
    pub(crate) fn count(&self, call: u64) -> u64 {
        self.get(CALLS + call * CALL_LEN + NAME_LEN as u64)
    }

    /// Where the first call failed: return addresses within the library, the innermost first.
    pub(crate) fn place(&self) -> Vec<u64> {
        let depth = self.get(DEPTH).min(FRAMES_LEN);
        (0..depth).map(|at| self.get(FRAMES + 8 * at)).filter(|address| *address != 0).collect()
    }

    fn get(&self, offset: u64) -> u64 {
        let mut word = [0; 8];
        self.file.read_exact_at(&mut word, offset).expect("a file of ours");
        u64::from_ne_bytes(word)
    }

    fn put(&self, offset: u64, value: u64) {
        self.file.write_all_at(&value.to_ne_bytes(), offset).expect("a file of ours");
    }
}

/// The object to preload, built by the first call.
fn preloaded() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = workspace_dir().join("ctests/filters/faults/faults.c");
        let object = target_dir().join("ctests").join("faults.so");
        let fresh = object.with_extension(std::process::id().to_string());
        // Fortified headers would have functions defined that are to be defined here.
        let flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-U_FORTIFY_SOURCE"];
        stage::build("cc", &source, &flags.map(str::to_owned), &fresh).unwrap_or_else(|error| panic!("{error}"));
        std::fs::rename(&fresh, &object).expect("the target directory is writable");
        object
    })
}

/// The functions at these addresses of a library, as far as it says; the innermost first.
pub(crate) fn functions(library: &Path, addresses: &[u64]) -> Vec<String> {
    static KNOWN: std::sync::Mutex<BTreeMap<u64, Vec<String>>> = std::sync::Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let look_up = |address: u64| -> Vec<String> {
        // The call is before the address that it returns to.
        let mut command = Command::new("addr2line");
        command.args(["-f", "-i", "-C", "-s", "-p", "-e"]).arg(library).arg(format!("{:#x}", address - 1));
        let output = command.output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(|line| line.replace(" (inlined by) ", "")).collect();
        if lines.is_empty() { vec![format!("{address:#x}")] } else { lines }
    };
    addresses.iter().flat_map(|address| known.entry(*address).or_insert_with(|| look_up(*address)).clone()).collect()
}
