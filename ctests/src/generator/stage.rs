//! Where conversations are played: a recorder that follows one plan after another.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Seek, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{conversation::Conversation, prediction::Prediction};
use crate::{Process, Setting, TempDir, recorder};

/// How long an answer may take before it counts as silence.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A recorder that starts a process for each plan, and the socket they serve.
pub(super) struct Stage {
    setting: Setting,
    process: Process,
    directory: TempDir,
    record: File,
    /// How long an answer may take.
    pub(super) patience: Duration,
}

/// All that a conversation showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Performance {
    /// What came on each connection, and whether its end came too.
    pub(super) heard: Vec<(Vec<u8>, bool)>,
    /// Callbacks and calls.
    pub(super) events: Vec<String>,
    /// The process lived until it was killed, and wrote nothing to standard output or error.
    pub(super) well: bool,
}

impl Stage {
    pub(super) fn new(setting: Setting) -> Stage {
        let directory = TempDir::new();
        let mut command = Command::new(recorder(setting.library, setting.linkage));
        command
            .arg("--serve")
            .arg(directory.join("record"))
            .arg(directory.join("socket"))
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(directory.join("stderr")).expect("a writable directory"))
            // Once, and not again in each child.
            .env("LD_BIND_NOW", "1")
            .env_remove("LIBMILTER_OPTIONS")
            .envs(setting.environment(""));
        let mut process = Process::spawn(&mut command);
        let answers = process.child().stdout.as_mut().expect("a pipe");
        answers.read_exact(&mut [0]).expect("the recorder says that it listens");
        process.assert_uses(setting.library);
        let record = OpenOptions::new().read(true).write(true).open(directory.join("record"));
        let record = record.expect("the recorder has made it");
        Stage { setting, process, directory, record, patience: PATIENCE }
    }

    fn begin(&mut self, plan: &str) {
        let size = u32::try_from(plan.len()).expect("a small plan").to_ne_bytes();
        let order = [&size[..], plan.as_bytes()].concat();
        self.process.child().stdin.as_mut().expect("a pipe").write_all(&order).expect("the recorder takes orders");
    }

    fn end(&mut self) -> bool {
        let child = self.process.child();
        child.stdin.as_mut().expect("a pipe").write_all(b".").expect("the recorder takes orders");
        let mut well = [0];
        child.stdout.as_mut().expect("a pipe").read_exact(&mut well).expect("the recorder answers");
        well == [1]
    }

    /// Plays a conversation; `expected` says what to wait for.
    pub(super) fn play(&mut self, plan: &str, conversation: &Conversation, expected: &Prediction) -> Performance {
        self.record.set_len(0).expect("a file can be emptied");
        self.begin(plan);
        let mut heard = Vec::new();
        for (connection, expected) in conversation.connections.iter().zip(&expected.connections) {
            let mut peer = UnixStream::connect(self.directory.join("socket")).expect("the recorder listens");
            peer.set_read_timeout(Some(self.patience)).expect("a timeout");
            peer.set_write_timeout(Some(self.patience)).expect("a timeout");
            let octets = connection.commands.concat();
            let mut received = Vec::new();
            let mut ended = false;
            let mut start = 0;
            for (cut, awaited) in connection.cuts().into_iter().zip(&expected.awaited) {
                // That the filter has gone shows when reading.
                let _ = peer.write_all(&octets[start..cut]);
                start = cut;
                if let (false, Some(awaited)) = (ended, awaited) {
                    ended = listen(&mut peer, &mut received, *awaited);
                }
            }
            if !expected.closed {
                let _ = peer.shutdown(Shutdown::Write);
                ended = ended || listen(&mut peer, &mut received, usize::MAX);
            }
            heard.push((received, ended));
        }
        let deadline = Instant::now() + self.patience;
        let mut events = self.events();
        // After a close there is no end to hear.
        let closed = expected.connections.last().is_some_and(|last| last.closed);
        while closed && events.len() < expected.events.len() && Instant::now() < deadline {
            thread::sleep(Duration::from_micros(200));
            events = self.events();
        }
        let survived = self.end();
        let silent = self.directory.join("stderr").metadata().is_ok_and(|file| file.len() == 0);
        let all_taken = heard.iter().zip(&expected.connections).all(|((_, ended), expected)| *ended || expected.closed);
        if !survived || !silent || !all_taken {
            // Connections that nobody took are not for the next plan.
            *self = Stage { patience: self.patience, ..Stage::new(self.setting) };
        }
        Performance { heard, events, well: survived && silent }
    }

    fn events(&mut self) -> Vec<String> {
        let mut record = Vec::new();
        self.record.rewind().expect("a file can be rewound");
        self.record.read_to_end(&mut record).expect("a file can be read");
        let lines = String::from_utf8_lossy(&record);
        let whole = lines.rfind('\n').map_or("", |end| &lines[..end]);
        whole.lines().filter(|line| *line != "ready" && !line.starts_with("log ")).map(str::to_owned).collect()
    }
}

/// Reads until so many octets have come; true if the end has.
fn listen(peer: &mut UnixStream, received: &mut Vec<u8>, awaited: usize) -> bool {
    let mut buffer = [0; 16_384];
    while received.len() < awaited {
        match peer.read(&mut buffer) {
            Ok(0) => return true,
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::ConnectionReset => return true,
                _ => return false,
            },
        }
    }
    false
}
