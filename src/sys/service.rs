//! The names of TCP ports.

use std::ffi::CString;

/// The port of a TCP service by its name in the services database.
pub(crate) fn port_of_service(name: &[u8]) -> Option<u16> {
    let name = CString::new(name).ok()?;
    // SAFETY: all-zero octets are a valid addrinfo.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_family = libc::AF_INET;
    hints.ai_socktype = libc::SOCK_STREAM;
    hints.ai_flags = libc::AI_PASSIVE;
    let mut found = std::ptr::null_mut();
    // SAFETY: the name is NUL-terminated, the hints are valid, `found` is writable.
    let result = unsafe { libc::getaddrinfo(std::ptr::null(), name.as_ptr(), &raw const hints, &raw mut found) };
    if result != 0 || found.is_null() {
        return None;
    }
    // SAFETY: a result for AF_INET holds a sockaddr_in; the list is freed once, after its last use.
    unsafe {
        let port = (*(*found).ai_addr.cast::<libc::sockaddr_in>()).sin_port;
        libc::freeaddrinfo(found);
        Some(u16::from_be(port))
    }
}
