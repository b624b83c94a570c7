//! The interface of schedulers, for plug-ins: what a scheduler sees and answers.
//!
//! Owns the trait, a provider's statistics and the request to place. The ticket queue
//! keeps the statistics and decides which providers are candidates. A scheduler only
//! chooses among them: it sees no connection, wait queue or clock.
//!
//! The shortest scheduler examines all candidates and returns the slot of one:
//!
//! ```
//! use pegasus_core::scheduler::interface::{Candidates, Placement, Scheduler};
//!
//! /// The fewest requests in progress, whatever the capacity.
//! struct Idlest;
//!
//! impl Scheduler for Idlest {
//!     fn choose(&mut self, candidates: &dyn Candidates, _: Placement) -> Option<usize> {
//!         let idlest = candidates.iter().min_by_key(|stats| (stats.active, stats.last_grant_seq));
//!         idlest.map(|stats| stats.slot)
//!     }
//! }
//! ```
//!
//! That examines every provider for each request. A scheduler for thousands of providers
//! keeps an order of its own, with [`Scheduler::on_update`] and [`Scheduler::on_remove`].
//! Where the choice is the lowest of a key, `key_index.rs` does all of it, and the
//! scheduler is its key (see `fifo.rs`).
//!
//! A new scheduler is its file, and a `mod` line and a row in `mod.rs`.

use crate::base::address::Provider;
use crate::base::time::Span;
use std::net::IpAddr;

/// The statistics of a provider of the service.
#[derive(Clone, Debug)]
pub struct ProviderStats {
    /// A small number that identifies the provider while it is known; reused for another
    /// one after [`Scheduler::on_remove`].
    pub slot: usize,
    /// Its address.
    pub provider: Provider,
    /// What it can take now.
    pub availability: Availability,
    /// Slots where a request starts at once, as last offered: its weight.
    pub tickets: u32,
    /// Most requests at once.
    pub capacity: u32,
    /// The slots behind its offer, in thousandths, at least 1: its weight where
    /// no ticket is free.
    pub weight: u32,
    /// Counted requests in progress there.
    pub active: u32,
    /// Requests that it would have in progress if those that ended lately had
    /// taken their usual time. Above 0 only for a provider that suddenly answers
    /// much quicker than it used to, which may be errors.
    pub shadow: u32,
    /// Tickets spent by requests that are not counted, since its last offer.
    pub spent: u32,
    /// When its free tickets began, as a sequence number.
    pub free_since_seq: u64,
    /// When it was last granted (or joined), as a sequence number: the lowest has waited
    /// longest for its turn.
    pub last_grant_seq: u64,
    /// Mean time that requests granted on a free ticket took.
    pub service_time: Span,
    /// How many requests the mean covers.
    pub samples: u64,
}

impl ProviderStats {
    /// Tickets not in use.
    pub fn free(&self) -> u32 {
        self.tickets.saturating_sub(self.active).saturating_sub(self.spent)
    }

    /// Requests that it may have: an uncounted one may be in progress until the next
    /// offer.
    pub fn used(&self) -> u32 {
        self.active.saturating_add(self.spent)
    }

    /// Requests in progress, as far as the order of providers is concerned.
    pub fn crowd(&self) -> u32 {
        self.active.max(self.shadow)
    }

    /// Whether it could take a counted request.
    pub fn is_available(&self) -> bool {
        matches!(self.availability, Availability::FreeTicket | Availability::SpareCapacity)
    }
}

/// What a provider can take now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Availability {
    /// Any request: it has a free ticket.
    FreeTicket,
    /// Counted requests only: no free ticket, but room within its capacity.
    SpareCapacity,
    /// Uncounted requests only: a free ticket, but its capacity is in use.
    UncountedOnly,
    /// Counted requests that cannot wait: room within its capacity, but it is new
    /// here and let in at the pace of its tickets.
    Reserve,
    /// None: all it offered is in use.
    Full,
    /// None: it has no valid offer, or is on hold after a failure.
    Unavailable,
}

impl Availability {
    /// The states that can be granted are the numbers below this one.
    pub const GRANTABLE: usize = Availability::Full as usize;
    /// How many states there are.
    pub const COUNT: usize = Availability::Unavailable as usize + 1;

    /// Its number, if it can be granted.
    pub fn grantable(self) -> Option<usize> {
        Some(self as usize).filter(|number| *number < Availability::GRANTABLE)
    }
}

/// The request to place.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// The candidates have free tickets; otherwise only spare capacity.
    pub free_tickets_only: bool,
    /// The candidates are new here, and there are no others.
    pub on_reserve: bool,
    /// The request is counted until it ends; otherwise it spends a ticket.
    pub counted: bool,
    /// The client's address, if the redirector sent it.
    pub client: Option<IpAddr>,
}

impl Placement {
    /// The states of the candidates: all providers in these states are candidates, except
    /// the few that the request avoids.
    pub fn availabilities(&self) -> &'static [Availability] {
        match (self.free_tickets_only, self.counted) {
            (false, true) if self.on_reserve => &[Availability::Reserve],
            (true, true) => &[Availability::FreeTicket],
            (true, false) => &[Availability::FreeTicket, Availability::UncountedOnly],
            (false, true) => &[Availability::SpareCapacity],
            (false, false) => &[],
        }
    }
}

/// The providers of the service while a request is placed.
pub trait Candidates {
    /// All slots are below this number; some may be empty.
    fn slots(&self) -> usize;

    /// How many providers there are, candidates or not.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The provider in this slot.
    fn stats(&self, slot: usize) -> Option<&ProviderStats>;

    /// The provider in this slot, if it is a candidate for this request.
    fn candidate(&self, slot: usize) -> Option<&ProviderStats>;
}

impl dyn Candidates + '_ {
    /// All candidates for this request, by slot.
    pub fn iter(&self) -> impl Iterator<Item = &ProviderStats> {
        (0..self.slots()).filter_map(|slot| self.candidate(slot))
    }

    /// All providers, by slot.
    pub fn all(&self) -> impl Iterator<Item = &ProviderStats> {
        (0..self.slots()).filter_map(|slot| self.stats(slot))
    }
}

/// A way to choose the next provider.
pub trait Scheduler: Send {
    /// Returns the slot of the chosen candidate. With `None`, or a slot without a
    /// candidate, the request gets no provider for now. A grant is reported to
    /// [`on_update`](Scheduler::on_update).
    fn choose(&mut self, candidates: &dyn Candidates, placement: Placement) -> Option<usize>;

    /// The statistics of this provider have changed, or it is new. Called before the next
    /// placement for every change, also when a lease or hold ends. A fresh scheduler is
    /// told of all providers, the one granted longest ago first.
    fn on_update(&mut self, _record: &ProviderStats) {}

    /// The provider in this slot has gone; the slot may be reused.
    fn on_remove(&mut self, _slot: usize) {}
}
