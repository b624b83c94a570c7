//! The UDP addresses that this process listens on, to find datagrams that seem to come
//! from one of them.
//!
//! Owns the list of all workers' listeners. Such a source is forged, or a provider that
//! leads back here. Not responsible for what becomes of the datagram.

use crate::os::addresses;
use pegasus_core::base::time::{Moment, Span};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// How long the addresses of this host are taken for what they were.
const HOST_ADDRESSES_FOR: Span = Span::from_secs(10);

/// The listeners of this process.
#[derive(Default)]
pub struct OwnListeners {
    /// By port: the number of each, and its address.
    ports: HashMap<u16, Vec<(usize, IpAddr)>>,
    /// The addresses of this host, and when they were listed.
    host: Option<(Moment, Vec<IpAddr>)>,
}

impl OwnListeners {
    /// Adds one under its number.
    pub fn add(&mut self, number: usize, address: SocketAddr) {
        let ip = address.ip().to_canonical();
        self.ports.entry(address.port()).or_default().push((number, ip));
    }

    /// Removes the one of a number.
    pub fn remove(&mut self, number: usize) {
        self.ports.retain(|_, listeners| {
            listeners.retain(|(own, _)| *own != number);
            !listeners.is_empty()
        });
    }

    /// Whether a listener of this process has this address.
    pub fn contains(&mut self, address: SocketAddr, now: Moment) -> bool {
        let Some(listeners) = self.ports.get(&address.port()) else { return false };
        let ip = address.ip().to_canonical();
        if listeners.iter().any(|(_, own)| *own == ip) {
            return true;
        }
        let wildcard = listeners.iter().any(|(_, own)| own.is_unspecified());
        wildcard && (ip.is_loopback() || self.is_of_host(ip, now))
    }

    fn is_of_host(&mut self, ip: IpAddr, now: Moment) -> bool {
        let known = self.host.take().filter(|(at, _)| now.since(*at) < HOST_ADDRESSES_FOR);
        let list = || addresses::of_this_host().iter().map(|own| own.ip().to_canonical()).collect();
        let (_, own) = self.host.insert(known.unwrap_or_else(|| (now, list())));
        own.contains(&ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_known_by_its_port_and_any_address_it_has() {
        let mut own = OwnListeners::default();
        own.add(1, "[::]:53".parse().unwrap());
        own.add(2, "192.0.2.1:69".parse().unwrap());
        own.add(3, "192.0.2.1:69".parse().unwrap());
        let contains = |own: &mut OwnListeners, address: &str| {
            own.contains(address.parse().unwrap(), Moment::ZERO)
        };
        for (address, is_own) in [
            ("127.0.0.1:53", true),
            ("[::ffff:127.0.0.1]:53", true),
            ("[::1]:53", true),
            ("192.0.2.1:53", false),
            ("192.0.2.1:69", true),
            ("127.0.0.1:69", false),
            ("127.0.0.1:54", false),
        ] {
            assert_eq!(contains(&mut own, address), is_own, "{address}");
        }
        own.remove(2);
        assert!(contains(&mut own, "192.0.2.1:69"), "the other shard is there");
        own.remove(3);
        assert!(!contains(&mut own, "192.0.2.1:69"));
    }
}
