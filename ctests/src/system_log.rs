//! The system's log, for programs that are given a /dev of their own.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Keeps what is logged; it ends on drop.
#[derive(Debug)]
pub(crate) struct SystemLog {
    lines: Arc<Mutex<Vec<String>>>,
    closing: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

/// The least urgent severity that tells of something wrong: warning, in syslog(3).
const WARNING: u32 = 4;

impl SystemLog {
    /// Takes what is logged through the socket at `path`, which everybody may use.
    pub(crate) fn listen(path: &Path) -> SystemLog {
        let socket = UnixDatagram::bind(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("our own socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a limit above 0");
        let (lines, closing) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let (kept, closed) = (Arc::clone(&lines), Arc::clone(&closing));
        let reader = thread::spawn(move || {
            let mut buffer = [0; 8192];
            while !closed.load(Ordering::SeqCst) {
                if let Ok(length) = socket.recv(&mut buffer) {
                    let line = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            }
        });
        SystemLog { lines, closing, reader: Some(reader) }
    }

    /// The lines so far that are warnings or worse, as they were sent: the priority in angle brackets comes first.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let is_warning = |line: &&String| {
            let priority = line.strip_prefix('<').and_then(|rest| rest.split_once('>')?.0.parse::<u32>().ok());
            priority.is_some_and(|priority| priority % 8 <= WARNING)
        };
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(is_warning).cloned().collect()
    }
}

impl Drop for SystemLog {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
