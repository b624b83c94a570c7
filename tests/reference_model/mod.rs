//! The ticket law of one queue as its specification reads, and nothing more.
//!
//! Owns the naive rules: lists and no indexes, no timers, no scheduler. It does not
//! choose among candidates: it follows the choice of the queue under test and panics
//! where that breaks the law. The exhaustive histories, the simulation and the
//! laboratory all keep their books with it.

mod account;
mod grants;
mod offers;
pub mod status;
mod trust;

use account::Account;
use pegasus_core::base::provider::Provider;
use pegasus_core::base::service_name::ServiceName;
use pegasus_core::base::slab::Key;
use pegasus_core::base::time::{Moment, Span};
use pegasus_core::protocol::reply::Mode;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A provider as one of a service.
pub type Place = (ServiceName, Provider);

/// A request that lives so long vouches for its provider. So long after a provider
/// came, others may be about to come. As often offers that are over are forgotten.
const SECOND: Span = Span::from_secs(1);

/// A `next` that is under way.
#[derive(Clone, PartialEq, Debug)]
pub struct Ask {
    pub service: ServiceName,
    pub asker: IpAddr,
    pub counted: bool,
    pub avoid: Vec<Provider>,
    pub since: Moment,
    pub wait: Span,
}

impl Ask {
    pub fn deadline(&self) -> Moment {
        self.since + self.wait
    }

    /// Until then it is patient.
    fn half_time(&self) -> Moment {
        self.since + self.wait.part(2)
    }
}

/// What a ticket message offers.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub tickets: u32,
    pub capacity: u32,
    /// It has a weight, so it has not left although it may have no capacity.
    pub weighted: bool,
    pub lease: Span,
}

impl Terms {
    fn leaves(&self) -> bool {
        self.capacity == 0 && !self.weighted
    }
}

/// What a ticket message should be answered.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Expected {
    pub active: f64,
    pub granted: u64,
    pub waiting: u64,
    /// None: nothing was granted that would tell.
    pub mode: Option<Mode>,
}

#[derive(Debug)]
struct Grant {
    place: Place,
    asker: IpAddr,
    at: Moment,
    /// Deaths of the provider that were known then.
    deaths: u32,
    /// At its end: it had still to show that the provider serves.
    probe: bool,
}

/// The ticket law of one queue.
#[derive(Default)]
pub struct Model {
    accounts: BTreeMap<Place, Account>,
    /// Counted requests in progress, by their connection and id.
    grants: BTreeMap<(Key, u32), Grant>,
    /// By service: one second after a provider came last.
    settled: BTreeMap<ServiceName, Moment>,
    /// By service: requests that found no place.
    waited: BTreeMap<ServiceName, u64>,
    /// Connections that can say nothing any more.
    silent: Vec<Key>,
    /// Some provider has failed, so that requests may have to vouch for it.
    suspects: bool,
    swept: Moment,
}

impl Model {
    /// Requests that live for a second vouch.
    fn tick(&mut self, now: Moment) {
        if self.suspects {
            self.accounts.values_mut().for_each(|account| account.tick(now));
            self.suspects = self.accounts.values().any(Account::on_probation);
        }
    }

    /// Time passed: every second a provider that offers nothing is forgotten, and a
    /// minute later one that failed.
    pub fn pass(&mut self, now: Moment) {
        self.tick(now);
        if now.since(self.swept) >= SECOND {
            self.swept = now;
            self.accounts.retain(|_, account| account.is_remembered(now));
        }
    }

    /// The next moment at which time alone changes who is a candidate, besides leases.
    pub fn next_change(&self, now: Moment) -> Option<Moment> {
        let changes = self.accounts.values().flat_map(Account::changes);
        changes.filter(|at| *at > now).min()
    }

    /// The connection can say nothing any more; `gone`: its requests are over too.
    pub fn hung_up(&mut self, connection: Key, gone: bool, now: Moment) {
        self.tick(now);
        self.silent.push(connection);
        if gone {
            let held = self.grants.keys().filter(|(of, _)| *of == connection);
            let held: Vec<u32> = held.map(|(_, id)| *id).collect();
            for id in held {
                self.end(connection, id, now);
            }
        }
    }

    /// Counted requests in progress, over all providers.
    pub fn in_progress(&self) -> u32 {
        self.accounts.values().map(|account| account.active).sum()
    }

    /// Counted requests in progress at this one.
    pub fn active(&self, place: Place) -> u32 {
        self.accounts.get(&place).map_or(0, |account| account.active)
    }

    /// The capacity that it offered last, whether or not the lease still runs.
    pub fn capacity(&self, place: Place) -> u32 {
        self.accounts.get(&place).map_or(0, |account| account.capacity)
    }

    /// The counted requests in progress, with their providers.
    pub fn granted(&self) -> impl Iterator<Item = (u32, Provider)> + '_ {
        self.grants.iter().map(|((_, id), grant)| (*id, grant.place.1))
    }
}
