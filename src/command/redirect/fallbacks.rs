//! The static providers of services, looked up now and then.
//!
//! Owns their names and the look-ups. Not responsible for when they are used.

use crate::config::settings::Settings;
use crate::net::event_loop::Context;
use crate::net::resolver::Lookup;
use pegasus_core::base::address::HostPort;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::time::{Moment, Span};
use std::net::SocketAddr;

/// How old the addresses of a fallback may get.
const FALLBACK_AGE: Span = Span::from_secs(60);

/// The static providers of one service.
struct Fallback {
    service: ServiceName,
    hosts: Vec<HostPort>,
    lookups: Vec<Lookup>,
    addresses: Vec<SocketAddr>,
    next_lookup: Moment,
}

/// The fallbacks of all services.
pub struct Fallbacks(Vec<Fallback>);

impl Fallbacks {
    /// Those that are configured, to be looked up at once.
    pub fn new(settings: &Settings) -> Fallbacks {
        let some = settings.services.iter().filter(|service| !service.fallback.is_empty());
        let fallback = some.map(|service| Fallback {
            service: service.name,
            hosts: service.fallback.clone(),
            lookups: Vec::new(),
            addresses: Vec::new(),
            next_lookup: Moment::ZERO,
        });
        Fallbacks(fallback.collect())
    }

    /// When [`resolve`](Fallbacks::resolve) must be called; it is called, too,
    /// when a look-up wakes the loop.
    pub fn next_timeout(&self) -> Option<Moment> {
        self.0
            .iter()
            .filter(|fallback| fallback.lookups.is_empty())
            .map(|fallback| fallback.next_lookup)
            .min()
    }

    /// Begins what is due, and tells what was found.
    pub fn resolve(&mut self, cx: &Context) -> Vec<(ServiceName, Vec<SocketAddr>)> {
        let mut found_now = Vec::new();
        for fallback in &mut self.0 {
            if fallback.lookups.is_empty() && cx.now >= fallback.next_lookup {
                fallback.lookups =
                    fallback.hosts.iter().map(|host| Lookup::start(host, cx.waker())).collect();
                fallback.addresses.clear();
            }
            while let Some(found) = fallback.lookups.last().and_then(Lookup::result) {
                fallback.addresses.extend(found.first());
                fallback.lookups.pop();
                if fallback.lookups.is_empty() {
                    fallback.next_lookup = cx.now + FALLBACK_AGE;
                    fallback.addresses.reverse();
                    found_now.push((fallback.service, fallback.addresses.clone()));
                }
            }
        }
        found_now
    }
}
