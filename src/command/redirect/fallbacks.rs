//! The static providers of services, looked up now and then.
//!
//! Owns their names, the look-ups, and the addresses that are known. Not responsible for
//! when they are used.

use crate::config::settings::Settings;
use crate::net::event_loop::Context;
use crate::net::resolver::Lookup;
use pegasus_core::base::address::HostPort;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::time::{Moment, Span};
use std::net::SocketAddr;

/// How old the addresses of a fallback may get.
const FALLBACK_AGE: Span = Span::from_secs(60);
/// How soon a look-up that failed is repeated.
const RETRY: Span = Span::from_secs(5);

/// A host of a service. Its addresses stay known while look-ups fail.
struct Host {
    host_port: HostPort,
    lookup: Option<Lookup>,
    next_lookup: Moment,
    addresses: Vec<SocketAddr>,
}

impl Host {
    /// A look-up is over. Returns whether other addresses are known now.
    fn resolved(&mut self, mut found: Vec<SocketAddr>, now: Moment) -> bool {
        // The order of answers changes all the time.
        found.sort_unstable();
        found.dedup();
        self.lookup = None;
        self.next_lookup = now + if found.is_empty() { RETRY } else { FALLBACK_AGE };
        let changed = !found.is_empty() && found != self.addresses;
        if changed {
            self.addresses = found;
        }
        changed
    }
}

/// The hosts of one service.
struct Fallback {
    service: ServiceName,
    hosts: Vec<Host>,
}

/// The static providers of all services.
pub struct Fallbacks(Vec<Fallback>);

impl Fallbacks {
    /// Those that are configured, to be looked up at once.
    pub fn new(settings: &Settings) -> Fallbacks {
        let host = |host_port: &HostPort| Host {
            host_port: host_port.clone(),
            lookup: None,
            next_lookup: Moment::ZERO,
            addresses: Vec::new(),
        };
        let some = settings.services.iter().filter(|service| !service.fallback.is_empty());
        let fallback = some.map(|service| Fallback {
            service: service.name,
            hosts: service.fallback.iter().map(host).collect(),
        });
        Fallbacks(fallback.collect())
    }

    /// When [`resolve`](Fallbacks::resolve) must be called; it is called, too,
    /// when a look-up wakes the loop.
    pub fn next_timeout(&self) -> Option<Moment> {
        let hosts = self.0.iter().flat_map(|fallback| &fallback.hosts);
        hosts.filter(|host| host.lookup.is_none()).map(|host| host.next_lookup).min()
    }

    /// Starts the look-ups that are due. Returns the addresses of services where they changed.
    pub fn resolve(&mut self, cx: &Context) -> Vec<(ServiceName, Vec<SocketAddr>)> {
        let mut changed = Vec::new();
        for fallback in &mut self.0 {
            let mut differs = false;
            for host in &mut fallback.hosts {
                if host.lookup.is_none() && cx.now >= host.next_lookup {
                    host.lookup = Some(Lookup::start(&host.host_port, cx.waker()));
                }
                if let Some(found) = host.lookup.as_ref().and_then(Lookup::result) {
                    differs |= host.resolved(found, cx.now);
                }
            }
            if differs {
                let addresses = fallback.hosts.iter().flat_map(|host| host.addresses.clone());
                changed.push((fallback.service, addresses.collect()));
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_look_up_keeps_all_that_is_known_and_is_repeated_soon() {
        let mut host = Host {
            host_port: "lb.example:80".parse().unwrap(),
            lookup: None,
            next_lookup: Moment::ZERO,
            addresses: Vec::new(),
        };
        let two: Vec<SocketAddr> =
            ["10.0.0.1:80", "[fd00::1]:80"].map(|text| text.parse().unwrap()).into();
        assert!(!host.resolved(Vec::new(), Moment::ZERO), "nothing to report");
        assert_eq!(host.next_lookup, Moment::ZERO + RETRY);
        assert!(host.resolved(two.clone(), Moment::ZERO));
        assert_eq!(host.next_lookup, Moment::ZERO + FALLBACK_AGE);
        assert!(!host.resolved(two.clone(), Moment::ZERO));
        assert!(!host.resolved(Vec::new(), Moment::ZERO));
        assert_eq!((host.addresses, host.next_lookup), (two, Moment::ZERO + RETRY));
    }
}
