//! `connect(2)` with options that must be set before.
//!
//! Where Linux has `TCP_QUICKACK` (tcp(7)), the last step of the handshake can
//! ride on the first data: one packet, and one wake-up of the peer, less.

use crate::os::sockaddr::SockAddr;
use crate::os::socket::set_oob_inline;
use mio::net::TcpStream;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Begins to connect; writable, or failed, it is done. `has_early_data`: bytes
/// are there to be sent as soon as it is established, and then
/// [`on_first_write`] is called. Otherwise the peer, which cannot accept before the
/// handshake is complete, would wait for the delayed step.
///
/// # Errors
/// Returns the OS error, if connecting fails at once.
pub fn connect(to: SocketAddr, has_early_data: bool) -> io::Result<TcpStream> {
    let socket = stream_socket(to)?;
    // Urgent data that came before this was set would be lost.
    set_oob_inline(&socket);
    if has_early_data {
        set_quick_ack(&socket, false);
    }
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

/// The first data is sent, and the handshake with it. From now on data is
/// acknowledged as on any new connection: a delayed acknowledgement would hold
/// back the second piece of a peer's first answer (Nagle, RFC 896).
pub fn on_first_write(socket: &TcpStream) {
    set_quick_ack(socket, true);
}

/// What does not work here only costs the packet that was to be saved.
#[cfg(pegasus_linux)]
fn set_quick_ack(socket: &impl AsRawFd, on: bool) {
    let on = libc::c_int::from(on);
    let _ = crate::os::sockopt::set(socket, libc::IPPROTO_TCP, libc::TCP_QUICKACK, on);
}

/// No such option.
#[cfg(not(pegasus_linux))]
fn set_quick_ack(_: &impl AsRawFd, _: bool) {}

/// A socket for a stream to there, which does not block.
#[cfg(pegasus_linux)]
fn stream_socket(to: SocketAddr) -> io::Result<OwnedFd> {
    socket(to, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)
}

/// A socket for a stream to there, which does not block. Not every system can
/// say that when making it.
#[cfg(not(pegasus_linux))]
fn stream_socket(to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket(to, libc::SOCK_STREAM)?;
    for (command, value) in [(libc::F_SETFD, libc::FD_CLOEXEC), (libc::F_SETFL, libc::O_NONBLOCK)] {
        // SAFETY: a plain call on an open descriptor.
        if unsafe { libc::fcntl(socket.as_raw_fd(), command, value) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(socket)
}

fn socket(to: SocketAddr, kind: libc::c_int) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no memory is involved.
    let socket = unsafe { libc::socket(family, kind, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and owned by nothing else.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}
