//! The static providers of services, looked up now and then.
//!
//! Owns their names and the look-ups. When they are used is the machine's
//! business.

use crate::config::settings::Settings;
use crate::net::drive::Desk;
use crate::net::names::Lookup;
use pegasus_core::base::address::HostPort;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::time::{Moment, Span};
use std::net::SocketAddr;

/// How old the addresses of a fallback may get.
const FALLBACK_AGE: Span = Span::from_secs(60);

/// Those of one service.
struct Fallback {
    service: ServiceName,
    targets: Vec<HostPort>,
    lookups: Vec<Lookup>,
    known: Vec<SocketAddr>,
    next: Moment,
}

/// See the file's head.
pub struct Fallbacks(Vec<Fallback>);

impl Fallbacks {
    /// Those that are configured, to be looked up at once.
    pub fn new(settings: &Settings) -> Fallbacks {
        let some = settings.services.iter().filter(|service| !service.fallback.is_empty());
        let fallback = some.map(|service| Fallback {
            service: service.name,
            targets: service.fallback.clone(),
            lookups: Vec::new(),
            known: Vec::new(),
            next: Moment::ZERO,
        });
        Fallbacks(fallback.collect())
    }

    /// When [`resolve`](Fallbacks::resolve) must be called; it is called, too,
    /// when a look-up wakes the loop.
    pub fn deadline(&self) -> Option<Moment> {
        self.0.iter().filter(|fallback| fallback.lookups.is_empty()).map(|fallback| fallback.next).min()
    }

    /// Begins what is due, and tells what was found.
    pub fn resolve(&mut self, desk: &Desk) -> Vec<(ServiceName, Vec<SocketAddr>)> {
        let mut found_now = Vec::new();
        for fallback in &mut self.0 {
            if fallback.lookups.is_empty() && desk.now >= fallback.next {
                fallback.lookups = fallback.targets.iter().map(|target| Lookup::begin(target, desk.waker())).collect();
                fallback.known.clear();
            }
            while let Some(found) = fallback.lookups.last().and_then(Lookup::done) {
                fallback.known.extend(found.first());
                fallback.lookups.pop();
                if fallback.lookups.is_empty() {
                    fallback.next = desk.now + FALLBACK_AGE;
                    fallback.known.reverse();
                    found_now.push((fallback.service, fallback.known.clone()));
                }
            }
        }
        found_now
    }
}
