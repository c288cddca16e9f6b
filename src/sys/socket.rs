//! Stream sockets.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::descriptor::{number, own};
use super::path::Location;
use super::{check, check_len, direct};

/// Where to listen.
pub(crate) enum Place<'a> {
    /// A path in the file system.
    Path(&'a Location),
    /// An IPv4 or IPv6 address and port.
    Address(SocketAddr),
}

/// Longest socket path, without its NUL: one octet less than fits, as the reference has it.
pub(crate) const MAX_PATH: usize = {
    // SAFETY: all-zero octets are a valid sockaddr_un.
    let address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_path.len() - 2
};

/// Backlog unless the filter sets one (`SOMAXCONN`).
pub(crate) const DEFAULT_BACKLOG: libc::c_int = libc::SOMAXCONN;

/// Makes a stream socket and binds it. Names in the file system get the mode that the umask leaves.
pub(crate) fn bind(place: &Place<'_>) -> io::Result<OwnedFd> {
    match place {
        Place::Path(location) => {
            let socket = stream(libc::AF_UNIX)?;
            bind_to(&socket, &local_address(&location.address())?)?;
            Ok(socket)
        }
        Place::Address(SocketAddr::V4(wanted)) => {
            let socket = stream(libc::AF_INET)?;
            set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
            // SAFETY: all-zero octets are a valid sockaddr_in.
            let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
            address.sin_family = libc::AF_INET as libc::sa_family_t;
            address.sin_port = wanted.port().to_be();
            address.sin_addr.s_addr = u32::from_ne_bytes(wanted.ip().octets());
            bind_to(&socket, &address)?;
            Ok(socket)
        }
        Place::Address(SocketAddr::V6(wanted)) => {
            let socket = stream(libc::AF_INET6)?;
            set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
            // SAFETY: all-zero octets are a valid sockaddr_in6.
            let mut address: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
            address.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            address.sin6_port = wanted.port().to_be();
            address.sin6_addr.s6_addr = wanted.ip().octets();
            address.sin6_scope_id = wanted.scope_id();
            bind_to(&socket, &address)?;
            Ok(socket)
        }
    }
}

fn local_address(path: &CStr) -> io::Result<libc::sockaddr_un> {
    // SAFETY: all-zero octets are a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let path = path.to_bytes();
    if path.len() > MAX_PATH {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    for (to, from) in address.sun_path.iter_mut().zip(path) {
        *to = *from as libc::c_char;
    }
    Ok(address)
}

/// Whether somebody listens on the stream socket there, found by connecting.
pub(crate) fn is_answered(location: &Location) -> io::Result<bool> {
    let address = local_address(&location.address())?;
    let socket = stream(libc::AF_UNIX)?;
    // A full backlog is an answer, too: nothing to wait for.
    super::descriptor::set_blocking(socket.as_fd(), false)?;
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is readable for its whole size.
    match check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len) }) {
        Ok(_) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => Ok(false),
            Some(libc::EAGAIN | libc::EINPROGRESS) => Ok(true),
            _ => Err(error),
        },
    }
}

fn stream(family: libc::c_int) -> io::Result<OwnedFd> {
    new(family, libc::SOCK_STREAM)
}

/// A Unix socket to send datagrams from.
pub(super) fn datagram() -> io::Result<OwnedFd> {
    new(libc::AF_UNIX, libc::SOCK_DGRAM)
}

fn new(family: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    #[cfg(not(target_vendor = "apple"))]
    // SAFETY: no memory is involved; the call makes a descriptor.
    let socket = unsafe { own(libc::socket(family, kind | libc::SOCK_CLOEXEC, 0)) };
    #[cfg(target_vendor = "apple")]
    // SAFETY: no memory is involved. This system cannot make a socket close-on-exec in one step; the call makes a descriptor.
    let socket = unsafe { own(libc::socket(family, kind, 0)) }.inspect(|socket| {
        let _ = super::descriptor::set_close_on_exec(socket.as_raw_fd());
    });
    socket
}

fn bind_to<Address>(socket: &OwnedFd, address: &Address) -> io::Result<()> {
    let len = size_of::<Address>() as libc::socklen_t;
    // SAFETY: every caller passes a socket address structure of the socket's family, readable for its whole size.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const *address).cast(), len) }).map(drop)
}

/// Starts or goes on listening.
pub(crate) fn listen(socket: BorrowedFd<'_>, backlog: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::listen(number(socket), backlog) }).map(drop)
}

/// Where a socket is bound.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// A path in the file system.
    Path(CString),
    /// An IPv4 or IPv6 address and port; `dual_stack` says that IPv6 means IPv4, too.
    Address { address: SocketAddr, dual_stack: bool },
    /// Nowhere, or at no address that could be described.
    Elsewhere,
}

/// Where a stream socket is bound; `None` for any other kind of socket.
pub(crate) fn bound_to(socket: &OwnedFd) -> io::Result<Option<Bound>> {
    if option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_TYPE)? != libc::SOCK_STREAM {
        return Ok(None);
    }
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: `storage` has room for any socket address and `len` says so.
    check(unsafe { libc::getsockname(socket.as_raw_fd(), storage.as_mut_ptr().cast(), &raw mut len) })?;
    let storage = storage.as_ptr();
    // SAFETY: it was zeroed, and all-zero octets are a valid sockaddr_storage whatever getsockname wrote over them. It has
    // the size and alignment for an address of every family, and one of the family that it says is in it.
    Ok(Some(unsafe {
        match (*storage).ss_family.into() {
            libc::AF_UNIX => local_path(&*storage.cast::<libc::sockaddr_un>()).map_or(Bound::Elsewhere, Bound::Path),
            libc::AF_INET => {
                let found = &*storage.cast::<libc::sockaddr_in>();
                let host = Ipv4Addr::from(found.sin_addr.s_addr.to_ne_bytes());
                Bound::Address { address: (host, u16::from_be(found.sin_port)).into(), dual_stack: false }
            }
            libc::AF_INET6 => {
                let found = &*storage.cast::<libc::sockaddr_in6>();
                let address = (Ipv6Addr::from(found.sin6_addr.s6_addr), u16::from_be(found.sin6_port)).into();
                let only = option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)?;
                Bound::Address { address, dual_stack: only == 0 }
            }
            _ => Bound::Elsewhere,
        }
    }))
}

/// The path in an address, if it has one; the rest of the structure is zero.
fn local_path(address: &libc::sockaddr_un) -> Option<CString> {
    let path: Vec<u8> = address.sun_path.iter().map(|octet| *octet as u8).take_while(|octet| *octet != 0).collect();
    CString::new(path).ok().filter(|path| !path.is_empty())
}

/// The family of a socket, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4 or IPv6.
    Internet,
    /// Unix-domain, or any other that needs no options of TCP.
    Local,
}

/// A socket that connections are taken from.
#[derive(Debug)]
pub(crate) struct Acceptor {
    pub(crate) socket: OwnedFd,
    pub(crate) family: Family,
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Takes a connection. Fails with `WouldBlock` when none is waiting.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let none = std::ptr::null_mut();
    #[cfg(not(target_vendor = "apple"))]
    // SAFETY: without an address buffer no memory is involved; the call makes a descriptor.
    let connection = unsafe { own(libc::accept4(number(listener), none, none.cast(), libc::SOCK_CLOEXEC)) };
    #[cfg(target_vendor = "apple")]
    // SAFETY: without an address buffer no memory is involved; the call makes a descriptor.
    let connection = unsafe { own(libc::accept(number(listener), none, none.cast())) }.inspect(|connection| {
        let _ = super::descriptor::set_close_on_exec(connection.as_raw_fd());
    });
    connection
}

/// Has the kernel look whether a silent peer is still there.
pub(crate) fn set_keep_alive(connection: BorrowedFd<'_>) -> io::Result<()> {
    set_option(connection, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)
}

/// Has small packets sent at once.
pub(crate) fn set_no_delay(connection: BorrowedFd<'_>) -> io::Result<()> {
    set_option(connection, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)
}

fn set_option(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` is readable and `len` is its size.
    check(unsafe { libc::setsockopt(number(socket), level, name, (&raw const value).cast(), len) }).map(drop)
}

fn option(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` is writable and `len` is its size.
    check(unsafe { libc::getsockopt(number(socket), level, name, (&raw mut value).cast(), &raw mut len) })?;
    Ok(value)
}

/// Reads what there is into the spare room of `octets`, without waiting. `Ok(0)` is the end of the stream; `WouldBlock`
/// says that nothing is there.
pub(crate) fn receive(connection: BorrowedFd<'_>, octets: &mut Vec<u8>) -> io::Result<usize> {
    let room = octets.spare_capacity_mut();
    // SAFETY: `room` is writable for its whole length.
    let received = check_len(unsafe {
        direct::recv(number(connection), room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT)
    })?;
    // SAFETY: the kernel has written that many octets into the spare room.
    unsafe { octets.set_len(octets.len() + received) };
    Ok(received)
}

/// Ends a connection in both directions, as far as the peer can see.
#[cfg(target_os = "linux")]
pub(crate) fn hang_up(connection: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::shutdown(number(connection), libc::SHUT_RDWR) }).map(drop)
}

/// Writes as much of `parts`, one after another, as fits, without waiting and without SIGPIPE.
pub(crate) fn send(connection: BorrowedFd<'_>, parts: &[&[u8]; 3]) -> io::Result<usize> {
    #[cfg(target_vendor = "apple")]
    // The library ignores SIGPIPE anyway; this system has no flag for one call.
    const FLAGS: libc::c_int = libc::MSG_DONTWAIT;
    #[cfg(not(target_vendor = "apple"))]
    const FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    if let [only, [], []] = parts {
        // SAFETY: the octets are readable.
        return check_len(unsafe { direct::send(number(connection), only.as_ptr().cast(), only.len(), FLAGS) });
    }
    let mut vectors = parts.map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
    // SAFETY: all-zero octets are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len() as _;
    // SAFETY: the message names `vectors`, each of which names readable octets; sendmsg only reads them.
    check_len(unsafe { libc::sendmsg(number(connection), &raw const message, FLAGS) })
}
