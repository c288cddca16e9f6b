//! A directory that disappears with its owner.

use std::{
    env, fs,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

/// A fresh directory below [`std::env::temp_dir`], removed on drop.
///
/// Its path is short, because UNIX socket paths below it have to stay under 107 octets.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
}

impl TempDir {
    /// Creates the directory.
    ///
    /// # Panics
    ///
    /// When it cannot be created.
    #[must_use]
    pub fn new() -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = env::temp_dir().join(format!("milter-{}-{number}", process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return TempDir { path },
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("cannot create {}: {error}", path.display()),
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path below it.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file below it and returns the path.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// Makes a socket below it that nobody listens on any more, and returns the path.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub fn stale_socket(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.join(name);
        drop(UnixListener::bind(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        // A process that another test just forked listens until it becomes its program.
        while UnixStream::connect(&path).is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
        path
    }
}

impl Default for TempDir {
    fn default() -> TempDir {
        TempDir::new()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
