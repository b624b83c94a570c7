//! `recvfrom` and `sendto`: an answer leaves from the address that the socket
//! is bound to; on a wildcard the system chooses one, so a host with several
//! addresses needs a socket for each of them.

use super::{OutDatagram, Received};
use mio::net::UdpSocket;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Nothing to prepare. The local address of each datagram is known on a bound address only.
pub fn prepare(socket: &std::net::UdpSocket) -> bool {
    socket.local_addr().is_ok_and(|local| !local.ip().is_unspecified())
}

/// Nothing to prepare: a connected socket reports refused datagrams, on Windows any.
pub fn prepare_upstream(_: &UdpSocket, _: SocketAddr) {}

/// Returns 1 if `recv` or `send` returned an error that the destination itself causes.
/// The system keeps no details, so only a connected socket is sure of its source.
pub fn take_refusals(_: &UdpSocket, _: SocketAddr, error: Option<&io::Error>) -> usize {
    let refused = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset)
    };
    usize::from(error.is_some_and(refused))
}

/// Receives a datagram. The local address is unknown.
///
/// # Errors
/// Returns the OS error.
pub fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Received> {
    let (count, from) = socket.recv_from(buffer)?;
    Ok(Received { count, from, local: None, to_group: false })
}

/// Sends a datagram.
///
/// # Errors
/// Returns the OS error.
pub fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr, _: Option<IpAddr>) -> io::Result<()> {
    socket.send_to(bytes, to).map(drop)
}

/// Datagrams are sent one by one here.
pub fn send_many(_: &UdpSocket, _: &mut dyn Iterator<Item = OutDatagram>) -> usize {
    0
}
