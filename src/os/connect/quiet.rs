//! `connect(2)` of which the last step of the handshake can ride on the data
//! (`TCP_QUICKACK` in tcp(7)): one packet, and one wake-up of the peer, less.

use mio::net::TcpStream;
use std::io;
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Begins to connect; writable, or failed, it is done. `speaks_first`: bytes
/// are there to be sent as soon as it stands; otherwise the peer, which cannot
/// accept before the handshake is complete, would wait for the delayed step.
///
/// # Errors
/// What the system says at once.
pub fn connect(to: SocketAddr, speaks_first: bool) -> io::Result<TcpStream> {
    if !speaks_first {
        return TcpStream::connect(to);
    }
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no memory is involved.
    let socket = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let off: libc::c_int = 0;
    // What does not work here only costs the packet that was to be saved.
    // SAFETY: the value lives for the call and has the length that is told.
    unsafe {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_QUICKACK, (&raw const off).cast(), length);
    }
    let failed = match to {
        SocketAddr::V4(to) => {
            let address = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: to.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(to.ip().octets()) },
                sin_zero: [0; 8],
            };
            let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            // SAFETY: the address lives for the call and has the length that is told.
            unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) }
        }
        SocketAddr::V6(to) => {
            let address = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: to.port().to_be(),
                sin6_flowinfo: to.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: to.ip().octets() },
                sin6_scope_id: to.scope_id(),
            };
            let length = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            // SAFETY: the address lives for the call and has the length that is told.
            unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) }
        }
    };
    match failed {
        0 => {}
        _ if io::Error::last_os_error().raw_os_error() == Some(libc::EINPROGRESS) => {}
        _ => return Err(io::Error::last_os_error()),
    }
    Ok(TcpStream::from_std(std::net::TcpStream::from(socket)))
}
