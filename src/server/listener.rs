//! Listening sockets.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use super::description::{Description, DescriptionError};
use super::socket_file::{Replace, SocketFile, Wanted};
use crate::sys::descriptor;
use crate::sys::error::Reason;
use crate::sys::socket::{self, Acceptor, Bound, Family, Place};

/// A listening socket.
pub(super) struct Listener {
    pub(super) acceptor: Acceptor,
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
    pub(super) fn new(what: impl Into<String>, cause: io::Error) -> Self {
        OpenError { what: Some(what.into()), cause }
    }

    /// Makes an error of one that happened while doing something.
    pub(super) fn because(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |cause| OpenError::new(format!("{what}: {}", Reason(&cause)), cause)
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
            None => Reason(&self.cause).fmt(f),
        }
    }
}

impl Listener {
    /// Opens a socket and listens.
    pub(super) fn open(
        description: &Description,
        wanted: &Wanted,
        replace: Replace,
        backlog: libc::c_int,
    ) -> Result<Self, OpenError> {
        let (socket, family, leave) = match description {
            Description::Path(path) => {
                let (socket, file) = SocketFile::listen(path, wanted, replace, backlog)?;
                (socket, Family::Local, Some(Leave::Name(file)))
            }
            Description::Address(address) => {
                let socket = socket::bind(&Place::Address(*address))?;
                socket::listen(socket.as_fd(), backlog)?;
                (socket, Family::Internet, None)
            }
            Description::Descriptor(number) => adopt(*number, backlog)?,
            Description::Passed(_) => unreachable!("names are resolved to numbers before"),
        };
        descriptor::set_blocking(socket.as_fd(), false)?;
        Ok(Listener { acceptor: Acceptor { socket, family }, leave })
    }

    /// Closes a socket that was opened for nothing.
    pub(super) fn give_up(self) -> io::Result<()> {
        match self.leave {
            Some(Leave::Name(file)) => file.remove(),
            Some(leave) => leave.take(),
            None => Ok(()),
        }
    }
}

/// Listens on a descriptor of the program's, through one of our own: what we did not open we do not close.
fn adopt(number: RawFd, backlog: libc::c_int) -> Result<(OwnedFd, Family, Option<Leave>), OpenError> {
    let explain =
        |what| move |error: io::Error| OpenError::new(format!("fd:{number} {what}: {}", Reason(&error)), error);
    let socket = descriptor::duplicate_raw(number).map_err(explain("is not open"))?;
    descriptor::set_close_on_exec(number)?;
    let refuse = |what, cause| OpenError::new(format!("fd:{number} {what}"), io::Error::from_raw_os_error(cause));
    let family = match socket::bound_to(&socket).map_err(explain("is not a socket"))? {
        None => return Err(refuse("is not a stream socket", libc::EOPNOTSUPP)),
        Some(Bound::Address { address, .. }) if address.port() == 0 => {
            return Err(refuse("is not bound to an address", libc::EDESTADDRREQ));
        }
        Some(Bound::Address { .. }) => Family::Internet,
        Some(Bound::Path(_) | Bound::Elsewhere) => Family::Local,
    };
    socket::listen(socket.as_fd(), backlog).map_err(explain("cannot listen"))?;
    let blocking = descriptor::is_blocking(socket.as_fd())?;
    let leave = blocking.then(|| descriptor::duplicate(&socket)).transpose()?.map(Leave::Blocking);
    Ok((socket, family, leave))
}

impl Leave {
    pub(super) fn take(self) -> io::Result<()> {
        match self {
            Leave::Name(file) => file.leave(),
            Leave::Blocking(file) => descriptor::set_blocking(file.as_fd(), true),
        }
    }
}
