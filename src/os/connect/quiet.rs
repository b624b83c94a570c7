//! `connect(2)` of which the last step of the handshake can ride on the data
//! (`TCP_QUICKACK` in tcp(7)): one packet, and one wake-up of the peer, less.

use crate::os::sockaddr::SockAddr;
use crate::os::sockopt::set;
use mio::net::TcpStream;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Begins to connect; writable, or failed, it is done. `has_early_data`: bytes
/// are there to be sent as soon as it stands; otherwise the peer, which cannot
/// accept before the handshake is complete, would wait for the delayed step.
///
/// # Errors
/// Returns the OS error, if connecting fails at once.
pub fn connect(to: SocketAddr, has_early_data: bool) -> io::Result<TcpStream> {
    if !has_early_data {
        return TcpStream::connect(to);
    }
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no memory is involved.
    let socket = unsafe {
        libc::socket(family, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0)
    };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by nothing else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let off: libc::c_int = 0;
    // What does not work here only costs the packet that was to be saved.
    let _ = set(&socket, libc::IPPROTO_TCP, libc::TCP_QUICKACK, off);
    let sockaddr = SockAddr::from(to);
    let (address, length) = sockaddr.as_parts();
    // SAFETY: the sockaddr lives for the call, and says how long it is.
    let failed = unsafe { libc::connect(socket.as_raw_fd(), address, length) };
    match failed {
        0 => {}
        _ if io::Error::last_os_error().raw_os_error() == Some(libc::EINPROGRESS) => {}
        _ => return Err(io::Error::last_os_error()),
    }
    Ok(TcpStream::from_std(std::net::TcpStream::from(socket)))
}
