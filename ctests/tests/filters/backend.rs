//! The daemons that some filters ask, as far as the filters can see.

use std::{
    fs,
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

/// A server on a socket that everybody may use; it ends on drop.
pub(crate) struct Backend {
    path: PathBuf,
    closing: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Backend {
    /// Serves each connection with `converse`. One that breaks shows in what the filter does then.
    pub(crate) fn listen(path: &Path, converse: fn(&UnixStream) -> std::io::Result<()>) -> Backend {
        let listener = UnixListener::bind(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("our own socket");
        let closing = Arc::new(AtomicBool::new(false));
        let closed = Arc::clone(&closing);
        let server = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if closed.load(Ordering::SeqCst) {
                    break;
                }
                thread::spawn(move || drop(converse(&stream)));
            }
        });
        Backend { path: path.to_path_buf(), closing, server: Some(server) }
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
