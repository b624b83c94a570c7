//! What mio connects, with no option set before.

use crate::os::socket::set_oob_inline;
use mio::net::TcpStream;
use std::io;
use std::net::SocketAddr;

/// Begins to connect; writable, or failed, it is done. `has_early_data`: bytes
/// are there to be sent as soon as it is established.
///
/// # Errors
/// Returns the OS error, if connecting fails at once.
pub fn connect(to: SocketAddr, _has_early_data: bool) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(to)?;
    set_oob_inline(&socket);
    Ok(socket)
}

/// Nothing was delayed here.
pub fn on_first_write(_: &TcpStream) {}
