//! `connect(2)` without options.

use mio::net::TcpStream;
use std::io;
use std::net::SocketAddr;

/// Begins to connect; writable, or failed, it is done. `has_early_data`: bytes
/// are there to be sent as soon as it stands.
///
/// # Errors
/// Returns the OS error, if connecting fails at once.
pub fn connect(to: SocketAddr, _has_early_data: bool) -> io::Result<TcpStream> {
    TcpStream::connect(to)
}
