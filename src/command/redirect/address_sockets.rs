//! A socket for each address of this host, beside one of all its addresses: where
//! the system does not tell which of them a datagram was sent to, the socket that
//! it came to does, and the answer leaves by the same.
//!
//! Owns those sockets of one UDP listener. Not responsible for when to look for
//! new addresses.

use crate::net::event_loop::Context;
use crate::os::{addresses, reuseport, socket};
use log::debug;
use mio::net::UdpSocket;
use mio::{Interest, Token};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Addresses that have a socket of their own; others are answered as the system
/// chooses.
const ADDRESS_SOCKETS_MAX: usize = 64;

/// The sockets of one listener, each with its address.
#[derive(Default)]
pub struct AddressSockets(Vec<(IpAddr, UdpSocket)>);

impl AddressSockets {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// One of them, and its address.
    pub fn get(&self, at: usize) -> Option<&(IpAddr, UdpSocket)> {
        self.0.get(at)
    }

    /// The one of an address.
    pub fn for_address(&self, ip: IpAddr) -> Option<&UdpSocket> {
        self.0.iter().find(|(own, _)| *own == ip).map(|(_, socket)| socket)
    }

    /// Opens those that are missing beside `wildcard`, and closes those whose address
    /// this host has no more. Events of all have this token.
    pub fn refresh(&mut self, wildcard: &UdpSocket, token: Token, cx: &Context) {
        let Ok(local) = wildcard.local_addr() else { return };
        let (v4, v6) = (local.is_ipv4() || socket::is_dual_stack(wildcard), local.is_ipv6());
        let serves = |address: &SocketAddr| if address.is_ipv4() { v4 } else { v6 };
        let here: Vec<SocketAddr> = addresses::of_this_host()
            .into_iter()
            .filter(serves)
            .take(ADDRESS_SOCKETS_MAX)
            .collect();
        self.0.retain(|(ip, _)| here.iter().any(|address| address.ip() == *ip));
        for mut address in here {
            if self.for_address(address.ip()).is_some() {
                continue;
            }
            address.set_port(local.port());
            let open = || -> io::Result<UdpSocket> {
                let mut socket = UdpSocket::from_std(reuseport::bind_address(wildcard, address)?);
                cx.registry.register(&mut socket, token, Interest::READABLE)?;
                Ok(socket)
            };
            match open() {
                Ok(socket) => self.0.push((address.ip(), socket)),
                Err(error) => debug!(target: "redirect", "{address}: {error}"),
            }
        }
    }
}
