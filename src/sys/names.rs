//! Names of hosts and services.
//!
//! Rust's own look-up asks for every family and pulls the resolver's internals into the library.

use std::ffi::{CStr, CString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address family to look names up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Internet {
    V4,
    V6,
}

/// The first address of a host in this family.
pub(crate) fn address_of_host(family: Internet, name: &[u8]) -> Option<IpAddr> {
    let name = CString::new(name).ok().filter(|name| !name.is_empty())?;
    look_up(family, Some(&name), None).map(|(address, _)| address)
}

/// The port of a TCP service by its name in the services database.
pub(crate) fn port_of_service(name: &[u8]) -> Option<u16> {
    let name = CString::new(name).ok()?;
    look_up(Internet::V4, None, Some(&name)).map(|(_, port)| port)
}

fn look_up(family: Internet, host: Option<&CStr>, service: Option<&CStr>) -> Option<(IpAddr, u16)> {
    // SAFETY: all-zero octets are a valid addrinfo.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_family = match family {
        Internet::V4 => libc::AF_INET,
        Internet::V6 => libc::AF_INET6,
    };
    hints.ai_socktype = libc::SOCK_STREAM;
    hints.ai_flags = libc::AI_PASSIVE;
    let text = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    let mut found = std::ptr::null_mut();
    // SAFETY: the names are NUL-terminated or null, the hints are valid, `found` is writable.
    let result = unsafe { libc::getaddrinfo(text(host), text(service), &raw const hints, &raw mut found) };
    if result != 0 || found.is_null() {
        return None;
    }
    // SAFETY: an entry's address is of the family that the hints ask for, with that family's size and alignment; the list is
    // freed once, after its last use.
    unsafe {
        let first = (*found).ai_addr;
        let (address, port) = match family {
            Internet::V4 => {
                let first = *first.cast::<libc::sockaddr_in>();
                (Ipv4Addr::from(first.sin_addr.s_addr.to_ne_bytes()).into(), first.sin_port)
            }
            Internet::V6 => {
                let first = *first.cast::<libc::sockaddr_in6>();
                (Ipv6Addr::from(first.sin6_addr.s6_addr).into(), first.sin6_port)
            }
        };
        libc::freeaddrinfo(found);
        Some((address, u16::from_be(port)))
    }
}
