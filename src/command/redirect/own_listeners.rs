//! The addresses at which this process itself listens: a provider there would lead
//! clients back to the balancer, again and again.
//!
//! Owns the list, which all workers share. Not responsible for what happens to a client
//! of such a provider.

use crate::os::addresses;
use pegasus_core::base::address::Transport;
use pegasus_core::base::time::{Moment, Span};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How old the list of addresses of this host may be.
const REFRESH_INTERVAL: Span = Span::from_secs(10);

#[derive(Default)]
struct Inner {
    listeners: Vec<(Transport, SocketAddr)>,
    /// The addresses of this host, and when they were looked up.
    host: Option<(Moment, Vec<IpAddr>)>,
}

/// The listeners of this process; clones share them.
#[derive(Clone, Default)]
pub struct OwnListeners(Arc<Mutex<Inner>>);

impl OwnListeners {
    /// The listeners from now on.
    pub fn set(&self, listeners: Vec<(Transport, SocketAddr)>) {
        self.lock().listeners = listeners;
    }

    /// Whether a client that is led there comes to a listener of this process.
    pub fn leads_back(&self, transport: Transport, to: SocketAddr, now: Moment) -> bool {
        let ip = to.ip().to_canonical();
        let mut inner = self.lock();
        let mut everywhere = false;
        for (its, listener) in &inner.listeners {
            if *its != transport || listener.port() != to.port() {
                continue;
            }
            if listener.ip().to_canonical() == ip {
                return true;
            }
            everywhere |= listener.ip().is_unspecified();
        }
        // A connect to the unspecified address goes to this host.
        everywhere
            && (ip.is_loopback() || ip.is_unspecified() || inner.host_addresses(now).contains(&ip))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
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
        let own = OwnListeners::default();
        own.set(vec![
            (Transport::Tcp, "127.0.0.2:80".parse().unwrap()),
            (Transport::Tcp, "[::]:443".parse().unwrap()),
            (Transport::Udp, "0.0.0.0:53".parse().unwrap()),
        ]);
        let tcp = |to: &str| own.leads_back(Transport::Tcp, to.parse().unwrap(), Moment::ZERO);
        assert!(tcp("127.0.0.2:80") && tcp("[::ffff:127.0.0.2]:80"));
        assert!(!tcp("127.0.0.1:80") && !tcp("127.0.0.2:81") && !tcp("127.0.0.1:53"));
        assert!(tcp("[::1]:443") && tcp("127.0.0.9:443") && !tcp("192.0.2.1:443"));
        let udp = |to: &str| own.leads_back(Transport::Udp, to.parse().unwrap(), Moment::ZERO);
        assert!(udp("127.0.0.1:53") && udp("0.0.0.0:53") && !udp("127.0.0.2:80"));
        for address in addresses::of_this_host() {
            assert!(tcp(&SocketAddr::new(address.ip(), 443).to_string()), "{address}");
        }
    }
}
