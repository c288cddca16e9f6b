//! Datagrams to a Unix socket.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use super::check_len;
use super::socket;

/// Sends datagrams to one address, whoever listens there at the time.
pub(crate) struct Datagrams {
    socket: OwnedFd,
    address: libc::sockaddr_un,
    len: libc::socklen_t,
}

impl Datagrams {
    /// Prepares to send to a path, or to a name of the abstract kind, which is written with an `@` before it.
    pub(crate) fn to(name: &[u8]) -> io::Result<Self> {
        // SAFETY: all-zero octets are a valid sockaddr_un.
        let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        let known = matches!(name, [b'/', _, ..]) || (cfg!(target_os = "linux") && matches!(name, [b'@', _, ..]));
        if !known || name.len() >= address.sun_path.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (to, from) in address.sun_path.iter_mut().zip(name) {
            *to = *from as libc::c_char;
        }
        let mut len = offset_of!(libc::sockaddr_un, sun_path) + name.len();
        if name[0] == b'@' {
            address.sun_path[0] = 0;
        } else {
            len += 1;
        }
        Ok(Datagrams { socket: socket::datagram()?, address, len: len as libc::socklen_t })
    }

    /// Sends one, waiting for room at most as long as [`PATIENCE`].
    pub(crate) fn send(&self, octets: &[u8]) -> io::Result<()> {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            match self.try_send(octets) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && std::time::Instant::now() < deadline => {
                    std::thread::sleep(PATIENCE / 20);
                }
                outcome => return outcome,
            }
        }
    }

    /// Sends one if there is room for it.
    pub(crate) fn try_send(&self, octets: &[u8]) -> io::Result<()> {
        let address = (&raw const self.address).cast();
        // SAFETY: the octets are readable, and the address for its length, which is within the structure.
        check_len(unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                octets.as_ptr().cast(),
                octets.len(),
                libc::MSG_DONTWAIT,
                address,
                self.len,
            )
        })
        .map(drop)
    }
}

/// How long a receiver may take to make room.
const PATIENCE: Duration = Duration::from_secs(1);
