//! The addresses of this host.
//!
//! # Required items
//!
//! A back end supplies:
//!
//! - `fn list() -> io::Result<Vec<SocketAddr>>`: every address of every interface, with
//!   port 0. Duplicates and unspecified addresses are removed here.

#[cfg_attr(unix, path = "getifaddrs.rs")]
#[cfg_attr(not(unix), path = "resolved.rs")]
mod backend;
use backend::list;

use std::net::SocketAddr;

/// The addresses of this host that it can be reached at, each once, with port 0.
/// None if the system does not tell.
pub fn of_this_host() -> Vec<SocketAddr> {
    let mut own: Vec<SocketAddr> = Vec::new();
    for address in list().unwrap_or_default() {
        let ip = address.ip();
        if !ip.is_unspecified() && !ip.is_multicast() && own.iter().all(|known| known.ip() != ip) {
            own.push(address);
        }
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, UdpSocket};

    #[test]
    fn one_can_be_at_each_of_them() {
        let addresses = of_this_host();
        assert!(
            addresses.iter().any(|address| address.ip() == Ipv4Addr::LOCALHOST),
            "{addresses:?}"
        );
        // An address of IPv6 may be too new to be used.
        for address in addresses.iter().filter(|address| address.is_ipv4()) {
            UdpSocket::bind(address).unwrap();
        }
    }
}
