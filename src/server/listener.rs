//! The listening socket and its name in the file system.

use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use super::description::{Description, DescriptionError};
use crate::sys::descriptor::{self, Identity};
use crate::sys::process;
use crate::sys::socket::{self, Family, Place};

/// A listening socket.
pub(super) struct Listener {
    pub(super) socket: OwnedFd,
    pub(super) family: Family,
    /// What is to be done when it is not needed any more.
    pub(super) leave: Option<Leave>,
}

/// How a socket is left behind.
pub(super) enum Leave {
    /// Its name in the file system is removed.
    Name(SocketFile),
    /// The program's file waits again on accept, as it did before.
    Blocking(OwnedFd),
}

/// Why a socket cannot be listened on.
#[derive(Debug)]
pub(super) struct OpenError {
    what: Option<String>,
    cause: io::Error,
}

impl OpenError {
    fn new(what: impl Into<String>, cause: io::Error) -> Self {
        OpenError { what: Some(what.into()), cause }
    }

    /// The error for C programs.
    pub(super) fn errno(&self) -> libc::c_int {
        self.cause.raw_os_error().unwrap_or(libc::EINVAL)
    }
}

impl From<io::Error> for OpenError {
    fn from(cause: io::Error) -> Self {
        OpenError { what: None, cause }
    }
}

impl From<DescriptionError> for OpenError {
    fn from(error: DescriptionError) -> Self {
        OpenError::new(error.to_string(), io::Error::from_raw_os_error(libc::EINVAL))
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            Some(what) => f.write_str(what),
            None => self.cause.fmt(f),
        }
    }
}

impl Listener {
    /// Opens a socket and listens. `remove_stale` first removes a socket that is in the way, whoever left it.
    pub(super) fn open(description: &Description, remove_stale: bool, backlog: libc::c_int) -> Result<Self, OpenError> {
        let (socket, family, leave) = match description {
            Description::Path(path) => {
                if remove_stale {
                    remove_socket(path)?;
                }
                let socket = socket::bind(&Place::Path(path))?;
                let file = SocketFile { path: path.clone(), identity: Identity::of_path(path)? };
                if let Err(error) = socket::listen(socket.as_fd(), backlog) {
                    file.remove_ours()?;
                    return Err(error.into());
                }
                (socket, Family::Local, Some(Leave::Name(file)))
            }
            Description::Address(address) => {
                let socket = socket::bind(&Place::Address(*address))?;
                socket::listen(socket.as_fd(), backlog)?;
                (socket, Family::Internet, None)
            }
            Description::Descriptor(number) => adopt(*number, backlog)?,
        };
        descriptor::set_blocking(socket.as_fd(), false)?;
        Ok(Listener { socket, family, leave })
    }
}

/// Listens on a descriptor of the program's, through one of our own: what we did not open we do not close.
fn adopt(number: RawFd, backlog: libc::c_int) -> Result<(OwnedFd, Family, Option<Leave>), OpenError> {
    let explain = |what| move |error: io::Error| OpenError::new(format!("fd:{number} {what}: {error}"), error);
    let socket = descriptor::duplicate_raw(number).map_err(explain("is not open"))?;
    descriptor::set_close_on_exec(number)?;
    let family = socket::stream_family(socket.as_fd()).map_err(explain("is not a socket"))?.ok_or_else(|| {
        let cause = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        OpenError::new(format!("fd:{number} is not a stream socket"), cause)
    })?;
    socket::listen(socket.as_fd(), backlog).map_err(explain("cannot listen"))?;
    let blocking = descriptor::is_blocking(socket.as_fd())?;
    let leave = blocking.then(|| descriptor::duplicate(&socket)).transpose()?.map(Leave::Blocking);
    Ok((socket, family, leave))
}

impl Leave {
    pub(super) fn take(self) -> io::Result<()> {
        match self {
            Leave::Name(file) => file.remove(),
            Leave::Blocking(file) => descriptor::set_blocking(file.as_fd(), true),
        }
    }
}

fn remove_socket(path: &CStr) -> io::Result<()> {
    match Identity::of_path(path) {
        Ok(identity) if identity.is_socket() => descriptor::unlink(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "what is there is not a socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A socket's name in the file system.
pub(super) struct SocketFile {
    path: CString,
    identity: Identity,
}

impl SocketFile {
    /// Removes the name if it still is ours. Root's stay, as filters started by root expect.
    pub(super) fn remove(&self) -> io::Result<()> {
        if process::is_root() { Ok(()) } else { self.remove_ours() }
    }

    fn remove_ours(&self) -> io::Result<()> {
        match Identity::of_path(&self.path) {
            Ok(identity) if identity == self.identity => match descriptor::unlink(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
            // Somebody else's, or gone, or out of reach since the program changed its root directory.
            _ => Ok(()),
        }
    }
}
