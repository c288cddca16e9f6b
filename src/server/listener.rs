//! The listening socket and its name in the file system.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use super::description::Description;
use crate::sys::descriptor::{self, Identity};
use crate::sys::process;
use crate::sys::socket::{self, Family, Place};

/// A listening socket.
pub(super) struct Listener {
    pub(super) socket: OwnedFd,
    pub(super) family: Family,
    /// Its name, if we gave it one.
    pub(super) file: Option<SocketFile>,
}

impl Listener {
    /// Opens a socket and listens. `remove_stale` first removes a socket that is in the way, whoever left it.
    pub(super) fn open(description: &Description, remove_stale: bool, backlog: libc::c_int) -> io::Result<Self> {
        match description {
            Description::Path(path) => {
                if remove_stale {
                    remove_socket(path)?;
                }
                let socket = socket::bind(&Place::Path(path))?;
                socket::listen(socket.as_fd(), backlog)?;
                let identity = Identity::of_path(path)?;
                let file = Some(SocketFile { path: path.clone(), identity });
                Ok(Listener { socket, family: Family::Local, file })
            }
            Description::Address(address) => {
                let socket = socket::bind(&Place::Address(*address))?;
                socket::listen(socket.as_fd(), backlog)?;
                Ok(Listener { socket, family: Family::Internet, file: None })
            }
            Description::Descriptor(number) => adopt(*number, backlog),
        }
    }
}

/// Listens on a descriptor of the program's, through one of our own: what we did not open we do not close.
fn adopt(number: RawFd, backlog: libc::c_int) -> io::Result<Listener> {
    let explain = |what| move |error: io::Error| io::Error::new(error.kind(), format!("fd:{number} {what}: {error}"));
    let socket = descriptor::duplicate_raw(number).map_err(explain("is not open"))?;
    descriptor::set_close_on_exec(number)?;
    let family = socket::stream_family(socket.as_fd()).map_err(explain("is not a socket"))?;
    let family = family
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("fd:{number} is not a stream socket")))?;
    socket::listen(socket.as_fd(), backlog).map_err(explain("cannot listen"))?;
    Ok(Listener { socket, family, file: None })
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
        if process::is_root() {
            return Ok(());
        }
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
