//! One socket for all clients: on these systems a second one at the same address is an error,
//! or receives nothing.

use std::io;
use std::net::UdpSocket;

/// Not here.
///
/// # Errors
/// Always `Unsupported`.
pub fn bind_shard(_: &UdpSocket) -> io::Result<UdpSocket> {
    Err(io::ErrorKind::Unsupported.into())
}
