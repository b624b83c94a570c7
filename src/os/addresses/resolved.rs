//! Names: Windows finds all addresses of this host for the empty one.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// Those, and the two that every host has.
///
/// # Errors
/// Returns the OS error.
pub fn list() -> io::Result<Vec<SocketAddr>> {
    let every = [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
    Ok(("", 0).to_socket_addrs()?.chain(every).collect())
}
