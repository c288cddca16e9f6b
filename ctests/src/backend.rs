//! A daemon as far as its clients can see: what MTAs deliver to, and what some filters ask.

use std::{
    fs, io,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// A server on a UNIX socket that every user may connect to; it ends on drop.
#[derive(Debug)]
pub struct Backend {
    path: PathBuf,
    closing: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Backend {
    /// Serves each connection with `converse`, on a thread of its own. One that breaks shows in what its client does
    /// then, or in what is missing.
    ///
    /// # Panics
    ///
    /// When the socket cannot be made.
    #[must_use]
    pub fn listen(
        path: impl AsRef<Path>,
        converse: impl Fn(&UnixStream) -> io::Result<()> + Clone + Send + 'static,
    ) -> Backend {
        let path = path.as_ref().to_path_buf();
        let listener = UnixListener::bind(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("our own socket");
        let closing = Arc::new(AtomicBool::new(false));
        let closed = Arc::clone(&closing);
        let server = thread::spawn(move || {
            for stream in listener.incoming() {
                if closed.load(Ordering::SeqCst) {
                    break;
                }
                let converse = converse.clone();
                let Ok(stream) = stream else { continue };
                thread::spawn(move || drop(converse(&stream)));
            }
        });
        Backend { path, closing, server: Some(server) }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.path);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}
