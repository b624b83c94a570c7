//! TCP socket options that the standard library lacks.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn prepare_listener(&socket) -> io::Result<()>`: a long backlog, and the options below.
//! - `fn set_inherited_options(&listener)`: options that accepted sockets inherit.
//! - `fn keepalive(&socket)`: the system finds out when the peer is gone.
//! - `fn unacknowledged_for(&socket) -> Option<Duration>`: how long the peer has sent no
//!   acknowledgement, if it owes one; none where the system does not tell.
//! - `fn set_oob_inline(&socket)`: urgent data stays among the other bytes (RFC 6093).
//! - `fn reset_on_close(&socket)`: closing it resets the connection.
//! - `fn is_dual_stack(&socket) -> bool`: whether one on `[::]` takes IPv4 too.
//! - `fn accept(&listener) -> io::Result<(TcpStream, SocketAddr)>`: by
//!   `accept(2)`, for systems and seccomp filters that lack `accept4`.

#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(windows, path = "windows.rs")]
mod backend;
pub use backend::{
    accept, is_dual_stack, keepalive, prepare_listener, reset_on_close, set_inherited_options,
    set_oob_inline, unacknowledged_for,
};

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

/// A socket that clients come to.
#[derive(Debug)]
pub enum Socket {
    /// With streams.
    Tcp(TcpListener),
    /// With datagrams.
    Udp(UdpSocket),
}

impl Socket {
    /// Its local address.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Socket::Tcp(socket) => socket.local_addr(),
            Socket::Udp(socket) => socket.local_addr(),
        }
    }

    /// Sets whether calls on it return at once, for every process that has it.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) => socket.set_nonblocking(on),
            Socket::Udp(socket) => socket.set_nonblocking(on),
        }
    }
}

/// Whether a short read means that the socket is empty and that its next byte is an event.
/// True of epoll; elsewhere only `WouldBlock` means it. It does not hold at urgent data, nor
/// after the event of the end.
pub const SHORT_READ_DRAINS: bool = cfg!(pegasus_linux);

/// Connections that may wait to be accepted.
#[cfg_attr(not(unix), allow(dead_code))] // other systems have their own
pub const BACKLOG: i32 = 4096;

/// Whether an error says that this process or host has no socket to spare, so
/// that it pays to wait and try again.
pub fn is_out_of_sockets(error: &std::io::Error) -> bool {
    #[cfg(unix)]
    const CODES: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    #[cfg(windows)]
    const CODES: [i32; 2] = [10024, 10055];
    // No room for one more to be watched is the same trouble.
    error.raw_os_error().is_some_and(|code| CODES.contains(&code))
        || error.kind() == std::io::ErrorKind::StorageFull
}

/// Whether a call failed for want of a local port, which is not the peer's
/// fault. Where none is left `connect` says the one, `bind` the other.
pub fn is_port_exhausted(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::AddrNotAvailable | std::io::ErrorKind::AddrInUse)
}

/// Whether this host has an address from which it could reach `to`: without one
/// (no IPv6, say) some systems report what they report without a port. Sends nothing.
pub fn has_address_for(to: SocketAddr) -> bool {
    let any = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        IpAddr::from(Ipv6Addr::UNSPECIFIED)
    };
    // Streams use up no port of datagrams.
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(to)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_no_fault_of_the_peer() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = UdpSocket::bind(taken.local_addr().unwrap()).unwrap_err();
        assert!(is_port_exhausted(&error), "{error}");
        assert!(is_port_exhausted(&io::ErrorKind::AddrNotAvailable.into()));
        assert!(!is_port_exhausted(&io::ErrorKind::ConnectionRefused.into()));
    }

    #[test]
    fn this_host_reaches_itself_but_no_link_without_scope() {
        assert!(has_address_for("127.0.0.1:9".parse().unwrap()));
        // A link-local address is ambiguous without its link.
        assert!(!has_address_for("[fe80::1]:9".parse().unwrap()));
    }
}
