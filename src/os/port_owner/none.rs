//! For systems that are not asked.

use super::PortOwner;
use std::net::SocketAddr;

/// No owner is known.
pub fn of(_socket: SocketAddr, _datagrams: bool) -> Option<PortOwner> {
    None
}
