//! Channels by which a process passes connections to another one, and can take back what that has not taken (Linux).
//!
//! Both processes have both ends: one passes, and the other one takes, or the first takes back; the kernel gives a message
//! to whoever is first. Taking is two steps, because a message received without room for its descriptor would be lost. So
//! that nothing else gets between these steps, whoever takes messages back passes one at a time, and after taking one
//! back nothing but a probe until that is taken.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::descriptor::{number, own};
use super::{check, check_len};

/// What comes out of a channel.
#[derive(Debug)]
pub(crate) enum Message {
    /// A connection and the label that goes with it.
    Connection(OwnedFd, u64),
    /// A question: whoever takes it could have taken a connection.
    Probe,
}

/// The label of a probe; no connection has it.
const PROBE: u64 = u64::MAX;

/// Makes a channel: the end that passes and the end that takes.
pub(crate) fn channel() -> io::Result<[OwnedFd; 2]> {
    let mut ends = [-1; 2];
    // SAFETY: `ends` has room for two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()) })?;
    // SAFETY: the call has made two descriptors.
    let [first, second] = ends.map(|end| unsafe { own(end) });
    Ok([first?, second?])
}

/// Room for the control message with one descriptor, aligned as its header has to be.
type Envelope = [u64; 4];

/// A message of these octets, with room for a descriptor in `envelope` if there is one.
fn message(octets: &mut libc::iovec, envelope: Option<&mut Envelope>) -> libc::msghdr {
    // SAFETY: all-zero octets are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = octets;
    message.msg_iovlen = 1;
    if let Some(envelope) = envelope {
        // SAFETY: computes a number.
        let len = unsafe { libc::CMSG_SPACE(size_of::<libc::c_int>() as u32) } as usize;
        assert!(len <= size_of::<Envelope>());
        message.msg_control = (&raw mut *envelope).cast();
        message.msg_controllen = len as _;
    }
    message
}

/// Passes a connection and its label, without waiting. The caller still has the connection.
pub(crate) fn pass(channel: BorrowedFd<'_>, connection: BorrowedFd<'_>, label: u64) -> io::Result<()> {
    debug_assert_ne!(label, PROBE);
    send(channel, connection, label)
}

/// Passes a probe. The descriptor may be any: taking a probe needs room for one, as taking a connection does.
pub(crate) fn pass_probe(channel: BorrowedFd<'_>, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    send(channel, descriptor, PROBE)
}

fn send(channel: BorrowedFd<'_>, descriptor: BorrowedFd<'_>, label: u64) -> io::Result<()> {
    let mut label = label.to_ne_bytes();
    let mut octets = libc::iovec { iov_base: label.as_mut_ptr().cast(), iov_len: label.len() };
    let mut envelope = Envelope::default();
    let message = message(&mut octets, Some(&mut envelope));
    // SAFETY: the message has room for a header and one descriptor, so the first header is there and its data lies
    // within; CMSG_LEN computes a number; sendmsg reads what the message names.
    check_len(unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<libc::c_int>() as u32) as _;
        libc::CMSG_DATA(header).cast::<libc::c_int>().write_unaligned(number(descriptor));
        libc::sendmsg(number(channel), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    })
    .map(drop)
}

/// Takes the next message. `Ok(None)` says that nobody is left to pass any. Fails with `WouldBlock` when none is there, or
/// the other side was first; when there is no descriptor for it, the message stays.
pub(crate) fn take(channel: BorrowedFd<'_>) -> io::Result<Option<Message>> {
    let mut label = [0; size_of::<u64>()];
    let mut octets = libc::iovec { iov_base: label.as_mut_ptr().cast(), iov_len: label.len() };
    let mut envelope = Envelope::default();
    let mut peeked = message(&mut octets, Some(&mut envelope));
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the message names memory that is writable and live.
    if check_len(unsafe { libc::recvmsg(number(channel), &raw mut peeked, flags | libc::MSG_PEEK) })? == 0 {
        return Ok(None);
    }
    // SAFETY: the header is NULL or lies in `envelope`, and only `send` sends here, with one descriptor.
    let descriptor = unsafe {
        match libc::CMSG_FIRSTHDR(&raw const peeked).as_ref() {
            Some(header) => own(libc::CMSG_DATA(header).cast::<libc::c_int>().read_unaligned()),
            None => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        }
    }?;
    let mut octets = libc::iovec { iov_base: label.as_mut_ptr().cast(), iov_len: label.len() };
    let mut taken = message(&mut octets, None);
    // SAFETY: the message names memory that is writable and live.
    if check_len(unsafe { libc::recvmsg(number(channel), &raw mut taken, flags) })? == 0 {
        return Ok(None);
    }
    // If the message of the first step was taken back meanwhile, this one is a probe.
    Ok(Some(match u64::from_ne_bytes(label) {
        PROBE => Message::Probe,
        label => Message::Connection(descriptor, label),
    }))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn take_connection(channel: &OwnedFd) -> (UnixStream, u64) {
        match take(channel.as_fd()) {
            Ok(Some(Message::Connection(descriptor, label))) => (descriptor.into(), label),
            other => panic!("no connection: {other:?}"),
        }
    }

    fn is_empty(channel: &OwnedFd) -> bool {
        take(channel.as_fd()).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    #[test]
    fn connections_are_passed_in_order_until_nobody_passes_any() {
        let [here, there] = channel().unwrap();
        assert!(is_empty(&there));
        let mut peers: Vec<UnixStream> = (1..=3)
            .map(|label| {
                let (mine, passed) = UnixStream::pair().unwrap();
                pass(here.as_fd(), passed.as_fd(), label).unwrap();
                mine
            })
            .collect();
        drop(here);
        for (at, peer) in peers.iter_mut().enumerate() {
            let (mut passed, label) = take_connection(&there);
            assert_eq!(label, at as u64 + 1);
            peer.write_all(&[7]).unwrap();
            let mut received = [0];
            passed.read_exact(&mut received).unwrap();
            assert_eq!(received, [7]);
        }
        assert!(take(there.as_fd()).unwrap().is_none());
    }

    #[test]
    fn what_is_taken_back_is_not_there_for_the_other_side() {
        let [here, there] = channel().unwrap();
        let of_the_sender = there.try_clone().unwrap();
        let (_mine, passed) = UnixStream::pair().unwrap();
        pass(here.as_fd(), passed.as_fd(), 5).unwrap();
        assert_eq!(take_connection(&of_the_sender).1, 5);
        assert!(is_empty(&there));
        pass_probe(here.as_fd(), passed.as_fd()).unwrap();
        assert!(matches!(take(there.as_fd()), Ok(Some(Message::Probe))));
        assert!(is_empty(&of_the_sender));
    }
}
