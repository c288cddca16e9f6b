//! Debian's OpenDKIM, and somebody else to check its signatures.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Program, Service, Setting, TempDir, mail_server::HOST, program::find, skip};

/// The domain whose mail is signed.
pub const DOMAIN: &str = "lighthouse.example";

const SELECTOR: &str = "lamp";

/// A key pair of [`DOMAIN`], and the programs that use it.
#[derive(Debug)]
pub struct Signatures {
    opendkim: Program,
    python: PathBuf,
    private_key: PathBuf,
    record: String,
}

impl Signatures {
    /// Makes a key in `directory`; `None`, and `test` counts as skipped, where a program is missing.
    ///
    /// # Panics
    ///
    /// When a program that is there does not do its work.
    #[must_use]
    pub fn prepare_or_skip(test: &str, directory: &TempDir) -> Option<Signatures> {
        let Some(opendkim) = Program::installed("opendkim") else {
            skip(test, "opendkim");
            return None;
        };
        let Some(openssl) = find("openssl") else {
            skip(test, "openssl");
            return None;
        };
        let Some(python) = python_with_dkim() else {
            skip(test, "python3-dkim");
            return None;
        };
        let private_key = directory.join("private.pem");
        run(Command::new(&openssl).args(["genrsa", "-out"]).arg(&private_key).arg("2048"));
        let public_key = run(Command::new(&openssl).args(["rsa", "-pubout", "-in"]).arg(&private_key));
        let text = String::from_utf8(public_key).expect("PEM is ASCII");
        let mut record = String::from("v=DKIM1; k=rsa; p=");
        text.lines().filter(|line| !line.starts_with('-')).for_each(|line| record.push_str(line));
        Some(Signatures { opendkim, python, private_key, record })
    }

    /// Starts OpenDKIM as the signer of outgoing mail.
    #[must_use]
    pub fn sign(&self, setting: &Setting, socket: &Path) -> Service {
        self.sign_with(setting, socket, "", "")
    }

    /// The same with further lines of its configuration, and with options of the library.
    #[must_use]
    pub fn sign_with(&self, setting: &Setting, socket: &Path, lines: &str, options: &str) -> Service {
        self.serve(setting, socket, &(self.signer() + lines), options)
    }

    /// Has a service manager start OpenDKIM as the signer when somebody connects to this port of 127.0.0.1.
    #[must_use]
    pub fn sign_activated(&self, setting: &Setting, launcher: &Path, port: u16, directory: &TempDir) -> Service {
        let file = configure(directory.join("opendkim.conf"), &format!("inet:{port}@127.0.0.1"), &self.signer());
        self.opendkim.serve_activated(setting, launcher, port, directory, &["-f", "-x", &file])
    }

    fn signer(&self) -> String {
        let key = self.private_key.display();
        format!("Mode s\nDomain {DOMAIN}\nSelector {SELECTOR}\nKeyFile {key}\n")
    }

    /// Starts OpenDKIM as the verifier of incoming mail, with options of the library. It finds the key without DNS.
    ///
    /// # Panics
    ///
    /// When its configuration cannot be written.
    #[must_use]
    pub fn verify(&self, setting: &Setting, socket: &Path, options: &str) -> Service {
        let keys = socket.with_extension("keys");
        let nobody = socket.with_extension("internal");
        std::fs::write(&keys, format!("{} {}\n", record_name(), self.record)).expect("a writable directory");
        // An address of documentation: the test's own client has to count as a stranger.
        std::fs::write(&nobody, "192.0.2.1\n").expect("a writable directory");
        let (keys, nobody) = (keys.display(), nobody.display());
        self.serve(
            setting,
            socket,
            &format!("Mode v\nAuthservID {HOST}\nTestPublicKeys {keys}\nInternalHosts {nobody}\n"),
            options,
        )
    }

    fn serve(&self, setting: &Setting, socket: &Path, role: &str, options: &str) -> Service {
        let file = configure(socket.with_extension("conf"), &format!("local:{}", socket.display()), role);
        self.opendkim.clone().with_options(options).serve(setting, socket, &["-f", "-x", &file])
    }

    /// Whether dkimpy, an implementation that shares no code with OpenDKIM, accepts the first
    /// signature of a message with lines ended by LF.
    ///
    /// # Panics
    ///
    /// When it does not run.
    #[must_use]
    pub fn is_valid(&self, message: &str) -> bool {
        let mut python = Command::new(&self.python)
            .args(["-c", VERIFY, &record_name(), &self.record])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut input = python.stdin.take().expect("a pipe");
        input.write_all(message.replace('\n', "\r\n").as_bytes()).expect("python3 reads the message");
        drop(input);
        let output = python.wait_with_output().expect("a child can be waited for");
        match String::from_utf8_lossy(&output.stdout).trim() {
            "valid" => true,
            "invalid" => false,
            other => panic!("dkimpy says '{other}'"),
        }
    }
}

/// Writes a configuration for this socket, and returns its path.
fn configure(file: PathBuf, socket: &str, role: &str) -> String {
    let text = format!(
        "{role}Socket {socket}\nBackground no\nSyslog yes\nSoftwareHeader yes\nRequireSafeKeys no\n\
         Canonicalization relaxed/simple\n"
    );
    std::fs::write(&file, text).expect("a writable directory");
    file.to_str().expect("a path of ours").to_owned()
}

/// The only key it finds is the one on its command line.
const VERIFY: &str = "
import sys, dkim
name, record = (word.encode() for word in sys.argv[1:])
def lookup(wanted, timeout=5):
    return record if wanted.rstrip(b'.') == name else None
print('valid' if dkim.verify(sys.stdin.buffer.read(), dnsfunc=lookup) else 'invalid')
";

fn record_name() -> String {
    format!("{SELECTOR}._domainkey.{DOMAIN}")
}

/// Debian's Python first: that is where Debian's dkimpy is.
fn python_with_dkim() -> Option<PathBuf> {
    [Some(PathBuf::from("/usr/bin/python3")), find("python3")]
        .into_iter()
        .flatten()
        .find(|python| Command::new(python).args(["-c", "import dkim"]).output().is_ok_and(|run| run.status.success()))
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
