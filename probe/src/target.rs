//! Where a filter listens: the socket descriptions that filters take, and connecting to them.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::failure::Failure;
use crate::reason::Reason;
use crate::wire::Stream;

/// The forms that [`Target::from_str`] accepts, for messages.
pub const FORMS: &str = "unix:/path, local:/path, /path, inet:port@host or inet6:port@host";

/// The socket of a filter, described the way it is described to the filter itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `unix:/path`, `local:/path` or a path without a colon.
    Unix(PathBuf),
    /// `inet:port@host` or `inet6:port@host`.
    Inet {
        /// The address family.
        family: Family,
        /// The port.
        port: u16,
        /// Name or address; a filter without one listens on every address, so it is reached on loopback.
        host: Option<String>,
    },
}

/// The address family of a network socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4
    Inet,
    /// IPv6
    Inet6,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Family::Inet => "inet",
            Family::Inet6 => "inet6",
        }
    }

    fn loopback(self) -> &'static str {
        match self {
            Family::Inet => "127.0.0.1",
            Family::Inet6 => "::1",
        }
    }

    fn contains(self, address: &SocketAddr) -> bool {
        match self {
            Family::Inet => address.is_ipv4(),
            Family::Inet6 => address.is_ipv6(),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (protocol, rest) = text.split_once(':').unwrap_or(("unix", text));
        let family = match protocol.to_ascii_lowercase().as_str() {
            "" | "unix" | "local" if rest.is_empty() => return Err(format!("the path is missing; use {FORMS}")),
            "" | "unix" | "local" => return Ok(Target::Unix(rest.into())),
            "inet" => Family::Inet,
            "inet6" => Family::Inet6,
            "fd" => return Err(format!("a descriptor exists only inside the filter; use {FORMS}")),
            _ if rest.parse::<u16>().is_ok() => {
                return Err(format!("filters are not described as host:port; use inet:{rest}@{protocol}, or {FORMS}"));
            }
            _ => return Err(format!("\"{protocol}\" is no kind of socket; use {FORMS}")),
        };
        let (port, host) = match rest.split_once('@') {
            Some((_, "")) => return Err("the host after @ is missing".to_owned()),
            Some((port, host)) => (port, Some(bare_host(host)?)),
            None => (rest, None),
        };
        match port.parse() {
            Ok(port) if port != 0 => Ok(Target::Inet { family, port, host }),
            _ => Err(format!("\"{port}\" is no port number; use {}:port@host", family.name())),
        }
    }
}

/// The host without the brackets and the prefix that filters allow around addresses.
fn bare_host(host: &str) -> Result<String, String> {
    let Some(inner) = host.strip_prefix('[') else { return Ok(host.to_owned()) };
    let (address, _) = inner.split_once(']').ok_or_else(|| format!("\"{host}\" lacks its closing bracket"))?;
    Ok(address.strip_prefix("IPv6:").unwrap_or(address).to_owned())
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
            Target::Inet { family, port, host } => {
                write!(f, "{}:{port}@{}", family.name(), host.as_deref().unwrap_or(family.loopback()))
            }
        }
    }
}

impl Target {
    /// Connects, within `timeout`.
    pub fn connect(&self, timeout: Duration) -> Result<Stream, Failure> {
        let connected = match self {
            Target::Unix(path) => connect_unix(path, timeout),
            Target::Inet { .. } => self.connect_inet(timeout),
        };
        connected.map_err(|error| Failure::Connect { reason: self.explain(&error) })
    }

    fn connect_inet(&self, timeout: Duration) -> io::Result<Stream> {
        let mut last = self.no_address();
        for address in self.addresses()? {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Stream::Tcp(stream));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The network addresses behind the name of the host; none for a Unix socket.
    pub(crate) fn addresses(&self) -> io::Result<impl Iterator<Item = SocketAddr>> {
        let (family, found) = match self {
            Target::Unix(_) => (Family::Inet, None),
            Target::Inet { family, port, host } => {
                let host = host.as_deref().unwrap_or(family.loopback());
                (*family, Some((host, *port).to_socket_addrs()?))
            }
        };
        Ok(found.into_iter().flatten().filter(move |address| family.contains(address)))
    }

    /// The error of a host without an address of the right family.
    pub(crate) fn no_address(&self) -> io::Error {
        io::Error::new(ErrorKind::NotFound, format!("{self}: the host has no address of this family"))
    }

    /// What an error of connecting means, and what to look at.
    pub(crate) fn explain(&self, error: &io::Error) -> String {
        let path = match self {
            Target::Unix(path) => path.as_path(),
            Target::Inet { .. } => Path::new(""),
        };
        let is_other_file = || path.metadata().is_ok_and(|file| !file.file_type().is_socket());
        match (self, error.kind()) {
            (Target::Unix(_), ErrorKind::NotFound) => "no such socket; is the filter running?".to_owned(),
            (Target::Unix(_), _) if is_other_file() => "that is not a socket".to_owned(),
            (Target::Unix(_), ErrorKind::ConnectionRefused) => {
                "nobody listens on this socket; the filter that made it is gone".to_owned()
            }
            (Target::Unix(_), ErrorKind::PermissionDenied) => {
                "permission denied; look at the owner and the mode of the socket and its directory".to_owned()
            }
            (Target::Inet { .. }, ErrorKind::ConnectionRefused) => {
                "connection refused; nobody listens on this port".to_owned()
            }
            (_, ErrorKind::TimedOut) => "the connection was not accepted in time".to_owned(),
            _ => Reason(error).to_string(),
        }
    }
}

/// A connect to a Unix socket whose backlog is full blocks and knows no timeout, so a thread waits in our place; when
/// the time is up it is left behind, and ends with the process.
fn connect_unix(path: &Path, timeout: Duration) -> io::Result<Stream> {
    let (sender, receiver) = mpsc::channel();
    let path = path.to_owned();
    thread::spawn(move || sender.send(UnixStream::connect(path)));
    match receiver.recv_timeout(timeout) {
        Ok(connected) => connected.map(Stream::Unix),
        Err(_) => Err(ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_filters_take() {
        let inet = |family, port, host: Option<&str>| Target::Inet { family, port, host: host.map(str::to_owned) };
        for (text, target) in [
            ("unix:/run/f.sock", Target::Unix("/run/f.sock".into())),
            ("local:relative", Target::Unix("relative".into())),
            ("/run/f.sock", Target::Unix("/run/f.sock".into())),
            (":/run/f", Target::Unix("/run/f".into())),
            ("UNIX:/a:b", Target::Unix("/a:b".into())),
            ("inet:8891@localhost", inet(Family::Inet, 8891, Some("localhost"))),
            ("INET:8891@[127.0.0.1]", inet(Family::Inet, 8891, Some("127.0.0.1"))),
            ("inet:8891", inet(Family::Inet, 8891, None)),
            ("inet6:8891@::1", inet(Family::Inet6, 8891, Some("::1"))),
            ("inet6:8891@[IPv6:::1]", inet(Family::Inet6, 8891, Some("::1"))),
        ] {
            assert_eq!(text.parse(), Ok(target), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_and_shows_the_forms() {
        let error = |text: &str| text.parse::<Target>().unwrap_err();
        assert!(error("mail.example:8891").contains("use inet:8891@mail.example"));
        assert!(error("foo:/x").contains(FORMS));
        assert!(error("unix:").contains(FORMS));
        assert!(error("").contains(FORMS));
        assert!(error("fd:3").contains("descriptor"));
        assert!(error("inet:0@h").contains("\"0\" is no port number"));
        assert!(error("inet:99999@h").contains("port number"));
        assert!(error("inet:1@").contains("host"));
        assert!(error("inet:1@[::1").contains("bracket"));
    }
}
