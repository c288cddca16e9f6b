//! Programs that run with whichever libmilter the administrator gives them.

use std::{
    env,
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{Library, Linkage, MtaConnection, Process, Setting, TempDir, compile::compiler, workspace_dir};

/// A filter whose libmilter is chosen at run time by `LD_LIBRARY_PATH`, as an administrator would
/// try a library: one from the distribution, or one compiled without a path in it.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    /// What comes before the program on the command line, such as valgrind.
    wrapper: Vec<String>,
    /// Settings of `LIBMILTER_OPTIONS` besides the model.
    options: String,
}

impl Program {
    /// The program of this name on the path or among the system's daemons.
    #[must_use]
    pub fn installed(name: &str) -> Option<Program> {
        find(name).map(Program::at)
    }

    /// The program of this path.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Program {
        Program { path: path.into(), wrapper: Vec::new(), options: String::new() }
    }

    /// A C source below the workspace, compiled into `directory` against the headers of `library`.
    ///
    /// # Panics
    ///
    /// When it does not compile without warnings.
    #[must_use]
    pub fn compiled(source: &str, library: &Library, directory: &TempDir) -> Program {
        let source = workspace_dir().join(source);
        let name = source.file_stem().expect("a source has a name").to_string_lossy();
        let path = directory.join(format!("{name}-with-{}", library.origin()));
        let output = Command::new(compiler("CC", "cc"))
            .args(["-Wall", "-Wextra", "-Werror", "-O1", "-g", "-I"])
            .arg(library.include_dir())
            .arg("-o")
            .args([&path, &source])
            .arg("-L")
            .arg(library.lib_dir())
            .args(["-lmilter", "-lpthread"])
            .output()
            .expect("a C compiler");
        assert!(output.status.success(), "{}: {}", source.display(), String::from_utf8_lossy(&output.stderr));
        Program::at(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same program, run by another one: its name and arguments.
    #[must_use]
    pub fn under(mut self, wrapper: &[&str]) -> Program {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// The same program with these settings in `LIBMILTER_OPTIONS`.
    #[must_use]
    pub fn with_options(mut self, options: &str) -> Program {
        self.options = options.to_owned();
        self
    }

    /// Starts it with the library of `setting`; returns when it listens on `socket`.
    ///
    /// Every user may connect to the socket: an MTA does that under its own account.
    ///
    /// # Panics
    ///
    /// When it does not listen within some seconds, or has mapped another libmilter.
    #[must_use]
    pub fn serve(&self, setting: &Setting, socket: &Path, arguments: &[&str]) -> Service {
        // Run by root, a filter leaves the file of its socket behind.
        let _ = fs::remove_file(socket);
        self.start(setting, socket.with_extension("output"), arguments, || UnixStream::connect(socket).is_ok())
    }

    /// The same for a filter that listens on a TCP port of this machine; its output goes to a file in `directory`.
    ///
    /// # Panics
    ///
    /// As [`Program::serve`].
    #[must_use]
    pub fn serve_tcp(
        &self,
        setting: &Setting,
        address: SocketAddr,
        directory: &TempDir,
        arguments: &[&str],
    ) -> Service {
        let listens = || TcpStream::connect(address).is_ok();
        self.start(setting, directory.join("filter.output"), arguments, listens)
    }

    /// The same for a filter that a service manager starts when somebody connects to this port of 127.0.0.1.
    ///
    /// # Panics
    ///
    /// As [`Program::serve`].
    #[must_use]
    pub fn serve_activated(
        &self,
        setting: &Setting,
        launcher: &Path,
        port: u16,
        directory: &TempDir,
        arguments: &[&str],
    ) -> Service {
        let launcher = launcher.to_str().expect("an UTF-8 path");
        let listen = format!("--listen=127.0.0.1:{port}");
        let program = self.clone().under(&[launcher, "--setenv=LD_LIBRARY_PATH", &listen]);
        // Only the filter answers; who connects before waits for it.
        let answers = || {
            let mta = MtaConnection::tcp("127.0.0.1", port);
            mta.is_ok_and(|mut mta| mta.ask("OPTNEG 6 1ff 1fffff").starts_with("OPTNEG"))
        };
        program.start(setting, directory.join("filter.output"), arguments, answers)
    }

    fn start(&self, setting: &Setting, output: PathBuf, arguments: &[&str], listens: impl Fn() -> bool) -> Service {
        let file = File::create(&output).expect("a writable directory");
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"umask 0; export LD_LIBRARY_PATH="$1"; shift; exec "$@""#, "sh"])
            .arg(setting.library.lib_dir())
            .args(&self.wrapper)
            .arg(&self.path)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a descriptor"))
            .stderr(file)
            .env_remove("LIBMILTER_OPTIONS")
            .envs(setting.environment(&self.options));
        let mut service = Service { process: Process::spawn(&mut command), output };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !listens() {
            assert!(
                service.process.is_alive() && Instant::now() < deadline,
                "{setting}: {} does not listen: {}",
                self.path.display(),
                service.output()
            );
            thread::sleep(Duration::from_millis(2));
        }
        if setting.linkage == Linkage::Shared {
            service.process.assert_uses(setting.library);
        }
        service
    }
}

/// A running filter; killed on drop.
#[derive(Debug)]
pub struct Service {
    process: Process,
    output: PathBuf,
}

impl Service {
    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it wrote to standard output and standard error so far.
    #[must_use]
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// Asks it to stop, and returns how it ended and how long that took.
    ///
    /// # Panics
    ///
    /// When it still runs after `limit`.
    pub fn stop(mut self, limit: Duration) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        self.process.signal(crate::Signal::TERM);
        let status = self.process.wait(limit).unwrap_or_else(|| panic!("runs on after SIGTERM: {}", self.output()));
        (status, asked.elapsed())
    }
}

/// The path of a program, also of those that are not meant for everybody.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}
