//! Windows lets one process be at all addresses of a port and at one of them, as
//! long as neither asks to have the port for itself.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::windows::io::AsRawSocket;

/// Opens a socket at one address of this host, beside one of all its addresses.
/// What is sent to that address comes to the new one.
///
/// # Errors
/// Returns the OS error.
pub fn bind_address(_: &impl AsRawSocket, address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
