//! Where conversations connect to, looked up once.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use mio::net::{TcpStream, UnixStream};

use super::conversation::Socket;
use crate::target::Target;

/// The address of a filter.
#[derive(Debug)]
pub(super) enum Endpoint {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl Endpoint {
    /// Looks the host up; of several addresses the first one counts.
    pub(super) fn of(target: &Target) -> io::Result<Self> {
        match target {
            Target::Unix(path) => Ok(Endpoint::Unix(path.clone())),
            Target::Inet { .. } => target.addresses()?.next().map(Endpoint::Tcp).ok_or_else(|| target.no_address()),
        }
    }

    /// Begins to connect; `WouldBlock` when too many connections wait for the filter already.
    pub(super) fn connect(&self) -> io::Result<Socket> {
        Ok(match self {
            Endpoint::Unix(path) => Socket::Unix(UnixStream::connect(path)?),
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(*address)?;
                stream.set_nodelay(true)?;
                Socket::Tcp(stream)
            }
        })
    }
}
