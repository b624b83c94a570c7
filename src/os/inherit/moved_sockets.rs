//! Datagram sockets that go to the process that takes the place of this one, each with a
//! line of text, while both run: `SCM_RIGHTS` on a pair of Unix sockets.

use super::fd_info::{is_internet, socket_option};
use std::io;
use std::mem;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::ptr;
use std::time::Duration;

/// The longest line.
const LINE_BYTES: usize = 512;
/// How long either process waits for the other one.
const PATIENCE: Duration = Duration::from_secs(2);

/// Room for one descriptor with its head, aligned as the head must be.
#[repr(C, align(8))]
struct CmsgBuffer([u8; 64]);

/// The end of the old process, and that of the new one.
pub(super) fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
    let (ours, theirs) = UnixDatagram::pair()?;
    ours.set_write_timeout(Some(PATIENCE))?;
    Ok((ours, theirs))
}

/// Sends a socket. Without one the line is empty: no other one follows.
pub(super) fn send(line: &UnixDatagram, text: &str, socket: Option<&UdpSocket>) -> io::Result<()> {
    let mut part = libc::iovec { iov_base: text.as_ptr().cast_mut().cast(), iov_len: text.len() };
    let mut control = CmsgBuffer([0; 64]);
    // SAFETY: zero is a valid message; what counts is set below.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some(socket) = socket {
        const LENGTH: libc::c_uint = size_of::<RawFd>() as libc::c_uint;
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: the control bytes are aligned, and longer than one descriptor with its
        // head; the macros stay inside of the length that is set first.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(LENGTH) as _;
            let head = libc::CMSG_FIRSTHDR(&raw const message);
            (*head).cmsg_level = libc::SOL_SOCKET;
            (*head).cmsg_type = libc::SCM_RIGHTS;
            (*head).cmsg_len = libc::CMSG_LEN(LENGTH) as _;
            ptr::write_unaligned(libc::CMSG_DATA(head).cast(), socket.as_raw_fd());
        }
    }
    // SAFETY: every pointer leads to something that lives for the call, which reads only.
    match unsafe { libc::sendmsg(line.as_raw_fd(), &raw const message, 0) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What the old process sends: sockets, each with its line, until there is no other one
/// or the old process has been silent for two seconds.
#[derive(Debug)]
pub struct MovedSockets(UnixDatagram);

impl MovedSockets {
    /// What comes on a descriptor, if that is one of [`pair`].
    pub(super) fn new(descriptor: OwnedFd) -> Option<MovedSockets> {
        let number = descriptor.as_raw_fd();
        if socket_option(number, libc::SO_TYPE) != Some(libc::SOCK_DGRAM) || is_internet(number) {
            return None;
        }
        let line = UnixDatagram::from(descriptor);
        line.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(MovedSockets(line))
    }
}

impl Iterator for MovedSockets {
    type Item = (String, UdpSocket);

    fn next(&mut self) -> Option<(String, UdpSocket)> {
        let mut bytes = [0; LINE_BYTES];
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut control = CmsgBuffer([0; 64]);
        // SAFETY: zero is a valid message; what counts is set below.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len() as _;
        // SAFETY: every pointer leads to something that is ours, lives for the call, and
        // has the given length.
        let count = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, 0) };
        let count = usize::try_from(count).ok()?;
        // SAFETY: the message was filled by recvmsg and its control bytes still live. A
        // descriptor in them is new, and owned by nothing else.
        let socket = unsafe {
            let head = libc::CMSG_FIRSTHDR(&raw const message);
            if head.is_null()
                || ((*head).cmsg_level, (*head).cmsg_type) != (libc::SOL_SOCKET, libc::SCM_RIGHTS)
            {
                return None;
            }
            OwnedFd::from_raw_fd(ptr::read_unaligned(libc::CMSG_DATA(head).cast::<RawFd>()))
        };
        // SAFETY: a plain call; a program that this process starts must not inherit it.
        unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
        let line = String::from_utf8_lossy(&bytes[..count]).into_owned();
        Some((line, UdpSocket::from(socket)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_arrive_with_their_lines_until_the_last_one() {
        let (ours, theirs) = pair().unwrap();
        let sockets = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        for (number, socket) in sockets.iter().enumerate() {
            send(&ours, &format!("number {number}"), Some(socket)).unwrap();
        }
        send(&ours, "", None).unwrap();
        let moved: Vec<_> = MovedSockets::new(theirs.into()).unwrap().collect();
        assert_eq!(moved.len(), 2);
        for (number, (line, socket)) in moved.iter().enumerate() {
            assert_eq!(*line, format!("number {number}"));
            let address = sockets[number].local_addr().unwrap();
            assert_eq!(socket.local_addr().unwrap(), address);
        }
    }
}
