//! Socket descriptions: `unix:/path`, `inet:port@host`, `inet6:port@host`, `fd:N`, `fd:NAME`.
//!
//! Filters parse the same text themselves, so the grammar is exactly the one they know.

use std::ffi::{CStr, CString};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;

use milter_protocol::Escaped;
use milter_protocol::command::{parse_inet, parse_inet6};

use crate::sys::names::{Internet, address_of_host, port_of_service};
use crate::sys::socket::MAX_PATH;

/// Where a filter listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Description {
    /// A path in the file system.
    Path(CString),
    /// An address and port.
    Address(SocketAddr),
    /// A descriptor that the program has got from somewhere.
    Descriptor(RawFd),
    /// Sockets that a service manager has passed under this name.
    Passed(String),
}

/// What is wrong with a description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DescriptionError {
    Empty,
    EmptyPath,
    LongPath(usize),
    UnknownType(String),
    UnknownPort(String),
    BadAddress(String),
    UnknownHost(String),
    BadDescriptor(String),
}

/// The forms that would do, for people who wrote another one.
const FORMS: &str = "use unix:/path, inet:port@host, inet6:port@host, fd:number or fd:name";

impl fmt::Display for DescriptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DescriptionError::Empty => write!(f, "empty socket description; {FORMS}"),
            DescriptionError::EmptyPath => write!(f, "empty socket path; {FORMS}"),
            DescriptionError::LongPath(len) => {
                write!(f, "socket path of {len} octets is too long, {MAX_PATH} are possible")
            }
            DescriptionError::UnknownType(text) => write!(f, "unknown socket type {text}; {FORMS}"),
            DescriptionError::UnknownPort(text) => write!(f, "unknown port {text}; {FORMS}"),
            DescriptionError::BadAddress(text) => write!(f, "invalid numeric address {text}"),
            DescriptionError::UnknownHost(text) => write!(f, "unknown host name {text}"),
            DescriptionError::BadDescriptor(text) => {
                write!(f, "fd:{text} is neither the number nor the name of a descriptor")
            }
        }
    }
}

impl Description {
    /// Understands a description; host names and ports are looked up now.
    pub(super) fn parse(text: &CStr) -> Result<Self, DescriptionError> {
        let text = text.to_bytes();
        if text.is_empty() {
            return Err(DescriptionError::Empty);
        }
        let (kind, rest) = match text.iter().position(|&octet| octet == b':') {
            Some(colon) => (&text[..colon], &text[colon + 1..]),
            None => (&b""[..], text),
        };
        match kind.to_ascii_lowercase().as_slice() {
            b"" | b"unix" | b"local" => path(rest),
            b"inet" => internet(Internet::V4, rest),
            b"inet6" => internet(Internet::V6, rest),
            b"fd" => descriptor(rest),
            _ => Err(DescriptionError::UnknownType(shown(kind))),
        }
    }
}

fn shown(text: &[u8]) -> String {
    Escaped(text).to_string()
}

fn path(path: &[u8]) -> Result<Description, DescriptionError> {
    match path.len() {
        0 => Err(DescriptionError::EmptyPath),
        len if len > MAX_PATH => Err(DescriptionError::LongPath(len)),
        _ => Ok(Description::Path(CString::new(path).expect("part of a C string"))),
    }
}

fn descriptor(number: &[u8]) -> Result<Description, DescriptionError> {
    let text = String::from_utf8_lossy(number).into_owned();
    match text.parse() {
        _ if text.is_empty() => Err(DescriptionError::BadDescriptor(text)),
        _ if !text.bytes().all(|octet| octet.is_ascii_digit()) => Ok(Description::Passed(text)),
        Ok(number) => Ok(Description::Descriptor(number)),
        Err(_) => Err(DescriptionError::BadDescriptor(text)),
    }
}

fn internet(family: Internet, text: &[u8]) -> Result<Description, DescriptionError> {
    let (port, host) = match text.iter().position(|&octet| octet == b'@') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let port = self::port(port).ok_or_else(|| DescriptionError::UnknownPort(shown(port)))?;
    let address = match (host, family) {
        (None, Internet::V4) => Ipv4Addr::UNSPECIFIED.into(),
        (None, Internet::V6) => Ipv6Addr::UNSPECIFIED.into(),
        (Some([b'[', numeric @ ..]), _) => {
            bracketed(family, numeric).ok_or_else(|| DescriptionError::BadAddress(shown(numeric)))?
        }
        (Some(name), _) => address_of_host(family, name).ok_or_else(|| DescriptionError::UnknownHost(shown(name)))?,
    };
    Ok(Description::Address(SocketAddr::new(address, port)))
}

/// A port number, which begins with a digit, or the name of a service. Junk after the number is not looked at, and a
/// number that no port can have is an error.
fn port(text: &[u8]) -> Option<u16> {
    let digits = text.iter().take_while(|octet| octet.is_ascii_digit()).count();
    match (digits, text.first()) {
        (0, None | Some(b' ' | b'\t'..=b'\r' | b'+' | b'-')) => None,
        (0, _) => port_of_service(text),
        _ => std::str::from_utf8(&text[..digits]).ok()?.parse().ok(),
    }
}

/// `address]`, with anything behind the bracket.
fn bracketed(family: Internet, text: &[u8]) -> Option<IpAddr> {
    let end = text.iter().position(|&octet| octet == b']')?;
    let text = &text[..end];
    match family {
        Internet::V4 => parse_inet(text).filter(|address| !address.is_broadcast()).map(IpAddr::V4),
        Internet::V6 => parse_inet6(text).map(IpAddr::V6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Description, DescriptionError> {
        Description::parse(&CString::new(text).unwrap())
    }

    fn address(text: &str) -> Result<Description, DescriptionError> {
        Ok(Description::Address(text.parse().unwrap()))
    }

    #[test]
    fn paths() {
        let path = |text: &str| Ok(Description::Path(CString::new(text).unwrap()));
        assert_eq!(parse("unix:/run/f"), path("/run/f"));
        assert_eq!(parse("LOCAL:f"), path("f"));
        assert_eq!(parse("/run/f"), path("/run/f"));
        assert_eq!(parse(":/run/f"), path("/run/f"));
        assert_eq!(parse("unix:a:b@c"), path("a:b@c"));
        assert_eq!(parse(&"x".repeat(MAX_PATH)), path(&"x".repeat(MAX_PATH)));
        assert_eq!(parse(&"x".repeat(MAX_PATH + 1)), Err(DescriptionError::LongPath(MAX_PATH + 1)));
        assert_eq!(parse("unix:"), Err(DescriptionError::EmptyPath), "defect 42");
        assert_eq!(parse(""), Err(DescriptionError::Empty));
    }

    #[test]
    fn addresses() {
        assert_eq!(parse("inet:25"), address("0.0.0.0:25"));
        assert_eq!(parse("inet6:25"), address("[::]:25"));
        assert_eq!(parse("INET:18891@127.0.0.1"), address("127.0.0.1:18891"));
        assert_eq!(parse("inet:18891abc@[127.1]"), address("127.0.0.1:18891"));
        assert_eq!(parse("inet:25@[127.0.0.1]junk"), address("127.0.0.1:25"));
        assert_eq!(parse("inet6:25@[::1]"), address("[::1]:25"));
        assert_eq!(parse("inet6:25@[IPv6:::1]"), address("[::1]:25"));
        assert_eq!(parse("inet6:25@::1"), address("[::1]:25"));
        for bad in ["inet:1@[255.255.255.255]", "inet:1@[127.0.0.1", "inet:1@[localhost]", "inet6:1@[127.0.0.1]"] {
            assert!(matches!(parse(bad), Err(DescriptionError::BadAddress(_))), "{bad}");
        }
        for bad in ["inet:1@", "inet:1@::1"] {
            assert!(matches!(parse(bad), Err(DescriptionError::UnknownHost(_))), "{bad}");
        }
        for bad in ["inet:", "inet: 1@h", "inet:-5@h", "inet:+5@h", "inet:no-such-service@h", "inet:99999@[127.1]"] {
            assert!(matches!(parse(bad), Err(DescriptionError::UnknownPort(_))), "{bad}");
        }
    }

    #[test]
    fn descriptors() {
        assert_eq!(parse("fd:3"), Ok(Description::Descriptor(3)));
        for name in ["smtp.socket", "*", "-1", "3x", " 8", "+8"] {
            assert_eq!(parse(&format!("fd:{name}")), Ok(Description::Passed(name.into())));
        }
        for bad in ["fd:", "fd:99999999999"] {
            assert!(matches!(parse(bad), Err(DescriptionError::BadDescriptor(_))), "{bad}");
        }
    }

    #[test]
    fn unknown_types_are_told_what_there_is() {
        let message = parse("tcp:25").unwrap_err().to_string();
        assert_eq!(message, format!("unknown socket type tcp; {FORMS}"));
    }
}
