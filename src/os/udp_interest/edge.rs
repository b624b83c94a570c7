//! Edge-triggered, as all other sockets of the loop: one event for what is new.

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use std::io;

/// Whether an event comes again until all is read.
pub const LEVEL_TRIGGERED: bool = false;

/// The loop gets an event when there is something new to read.
///
/// # Errors
/// Returns the OS error.
pub fn register_readable(
    registry: &Registry,
    socket: &mut UdpSocket,
    token: Token,
) -> io::Result<()> {
    registry.register(socket, token, Interest::READABLE)
}
