//! The addresses at which this process itself listens: a provider there would lead
//! clients back to the balancer, again and again.
//!
//! Owns the list, a copy for each worker: it is asked for every connection. Not responsible
//! for what happens to a client of such a provider.

use crate::os::addresses;
use pegasus_core::base::endpoint::Transport;
use pegasus_core::base::time::{Moment, Span};
use std::net::{IpAddr, SocketAddr};

/// How old the list of addresses of this host may be.
const REFRESH_INTERVAL: Span = Span::from_secs(10);

/// The listeners of this process.
#[derive(Clone, Default)]
pub struct OwnListeners {
    /// In order.
    listeners: Vec<(Transport, u16, IpAddr)>,
    /// The addresses of this host, and when they were looked up.
    host: Option<(Moment, Vec<IpAddr>)>,
}

impl OwnListeners {
    /// A list of these listeners.
    pub fn new(listeners: impl IntoIterator<Item = (Transport, SocketAddr)>) -> OwnListeners {
        let of = |(transport, at): (_, SocketAddr)| (transport, at.port(), at.ip().to_canonical());
        let mut listeners: Vec<_> = listeners.into_iter().map(of).collect();
        listeners.sort_unstable();
        OwnListeners { listeners, host: None }
    }

    /// Whether a client that is led there comes to a listener of this process.
    pub fn leads_back(&mut self, transport: Transport, to: SocketAddr, now: Moment) -> bool {
        let place = (transport, to.port());
        let first = self.listeners.partition_point(|(its, port, _)| (*its, *port) < place);
        let at_port = self.listeners[first..].iter();
        let listeners = at_port.take_while(|(its, port, _)| (*its, *port) == place);
        let ip = to.ip().to_canonical();
        let mut everywhere = false;
        for (_, _, listener) in listeners {
            if *listener == ip {
                return true;
            }
            everywhere |= listener.is_unspecified();
        }
        // A connect to the unspecified address goes to this host.
        everywhere
            && (ip.is_loopback() || ip.is_unspecified() || self.host_addresses(now).contains(&ip))
    }

    fn host_addresses(&mut self, now: Moment) -> &[IpAddr] {
        let is_old = |since: Moment| now.since(since) >= REFRESH_INTERVAL;
        if self.host.as_ref().is_none_or(|(since, _)| is_old(*since)) {
            let addresses = addresses::of_this_host().into_iter();
            self.host = Some((now, addresses.map(|address| address.ip().to_canonical()).collect()));
        }
        self.host.as_ref().map_or(&[], |(_, addresses)| addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_known_at_each_of_its_addresses() {
        let own = OwnListeners::new([
            (Transport::Tcp, "127.0.0.2:80".parse().unwrap()),
            (Transport::Tcp, "[::]:443".parse().unwrap()),
            (Transport::Udp, "0.0.0.0:53".parse().unwrap()),
        ]);
        let tcp =
            |to: &str| own.clone().leads_back(Transport::Tcp, to.parse().unwrap(), Moment::ZERO);
        assert!(tcp("127.0.0.2:80") && tcp("[::ffff:127.0.0.2]:80"));
        assert!(!tcp("127.0.0.1:80") && !tcp("127.0.0.2:81") && !tcp("127.0.0.1:53"));
        assert!(tcp("[::1]:443") && tcp("127.0.0.9:443") && !tcp("192.0.2.1:443"));
        let udp =
            |to: &str| own.clone().leads_back(Transport::Udp, to.parse().unwrap(), Moment::ZERO);
        assert!(udp("127.0.0.1:53") && udp("0.0.0.0:53") && !udp("127.0.0.2:80"));
        for address in addresses::of_this_host() {
            assert!(tcp(&SocketAddr::new(address.ip(), 443).to_string()), "{address}");
        }
    }
}
