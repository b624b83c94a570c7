//! `recvfrom` and `sendto`: an answer leaves from the address that the socket
//! is bound to; on a wildcard the system chooses one, so a host with several
//! addresses needs a socket for each of them.

use super::OutDatagram;
use mio::net::UdpSocket;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Nothing to prepare. The local address of each datagram is known on a bound address only.
pub fn prepare(socket: &std::net::UdpSocket) -> bool {
    socket.local_addr().is_ok_and(|local| !local.ip().is_unspecified())
}

/// Nothing to prepare. Returns whether an unconnected socket reports refused datagrams:
/// only on Windows.
pub fn prepare_upstream(_: &UdpSocket, _: SocketAddr) -> bool {
    cfg!(windows)
}

/// Nothing is kept.
pub fn clear_errors(_: &UdpSocket) {}

/// Receives a datagram: its length and sender. The local address is unknown.
///
/// # Errors
/// Returns the OS error.
pub fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr, Option<IpAddr>)> {
    socket.recv_from(buffer).map(|(count, from)| (count, from, None))
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
