//! What the standard library cannot set on a TCP socket.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub use unix::{
    accept, is_dual_stack, keepalive, prepare_listener, reset_on_close, set_inherited_options,
    set_oob_inline,
};

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::{
    accept, is_dual_stack, keepalive, prepare_listener, reset_on_close, set_inherited_options,
    set_oob_inline,
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
    /// Where it is.
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Socket::Tcp(socket) => socket.local_addr(),
            Socket::Udp(socket) => socket.local_addr(),
        }
    }

    /// Whether calls on it answer at once; so for everybody who has it.
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

/// A short read means that the socket is empty, and its next byte is an event.
/// True of epoll; elsewhere only an error says so. (Not at urgent data, nor where
/// the end was told already.)
pub const SHORT_READ_DRAINS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Connections that may wait to be accepted.
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

/// Whether this host has an address from which it could call `to`: without one
/// (no IPv6, say) some systems complain of it as for want of a port. Sends nothing.
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
    fn a_port_that_cannot_be_had_is_nobody_elses_fault() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = UdpSocket::bind(taken.local_addr().unwrap()).unwrap_err();
        assert!(is_port_exhausted(&error), "{error}");
        assert!(is_port_exhausted(&io::ErrorKind::AddrNotAvailable.into()));
        assert!(!is_port_exhausted(&io::ErrorKind::ConnectionRefused.into()));
    }

    #[test]
    fn this_host_can_call_itself_but_nobody_far_away_from_there() {
        assert!(has_address_for("127.0.0.1:9".parse().unwrap()));
        // A link-local address says nothing without its link.
        assert!(!has_address_for("[fe80::1]:9".parse().unwrap()));
    }
}
