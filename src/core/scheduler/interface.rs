//! What a scheduler sees, and what it answers: the interface for plug-ins.
//!
//! Owns the trait, a provider's statistics and the request to place. The ticket
//! queue keeps the statistics and decides which providers are candidates. A scheduler
//! only chooses among them: it sees no connection, wait queue or clock.
//!
//! The shortest scheduler looks at all candidates and names the slot of one:
//!
//! ```
//! use pegasus_core::scheduler::interface::{Candidates, Placement, Scheduler};
//!
//! /// The fewest requests in progress, whatever the provider can take.
//! struct Idlest;
//!
//! impl Scheduler for Idlest {
//!     fn choose(&mut self, candidates: &dyn Candidates, _: Placement) -> Option<usize> {
//!         candidates.iter().min_by_key(|stats| (stats.active, stats.last_grant_seq)).map(|stats| stats.slot)
//!     }
//! }
//! ```
//!
//! That costs a look at every provider for each request. One for thousands of
//! providers keeps an order of its own, which [`Scheduler::on_update`] and
//! [`Scheduler::on_remove`] tell it of; where the choice is the lowest of a key,
//! `key_index.rs` does all of it, and the scheduler is its key (see `fifo.rs`).
//!
//! A new scheduler is its file, a `mod` line and a row in `registry.rs`.

use crate::base::provider::Provider;
use crate::base::time::Span;
use std::net::IpAddr;

/// What is known of a provider of the service.
#[derive(Clone, Debug)]
pub struct ProviderStats {
    /// A small number that stays with the provider while it is known; reused
    /// for another one after [`Scheduler::on_remove`].
    pub slot: usize,
    /// Its address.
    pub provider: Provider,
    /// What it can take now.
    pub availability: Availability,
    /// Places where a request starts at once, as last offered: its weight.
    pub tickets: u32,
    /// Requests at once that it takes at the most.
    pub capacity: u32,
    /// Requests in progress there, of those that are counted.
    pub active: u32,
    /// Tickets spent by requests that are not counted, since its last offer.
    pub spent: u32,
    /// When its free tickets began, in the order of such beginnings.
    pub free_since_seq: u64,
    /// When it was granted last (or came), in the order of grants: the one
    /// with the lowest has waited longest for its turn.
    pub last_grant_seq: u64,
    /// Mean time that requests granted on a free ticket took.
    pub service_time: Span,
    /// How many requests that mean is of.
    pub samples: u64,
}

impl ProviderStats {
    /// Tickets that nobody uses.
    pub fn free(&self) -> u32 {
        self.tickets.saturating_sub(self.active).saturating_sub(self.spent)
    }

    /// Requests that it has, as far as anybody knows: an uncounted one may be
    /// in progress until the next offer.
    pub fn used(&self) -> u32 {
        self.active.saturating_add(self.spent)
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
    /// None: all it offered is in use.
    Full,
    /// None: it has no offer that holds, or is service_time after a failure.
    Unavailable,
}

impl Availability {
    /// The states of those who can take something, as the numbers from 0.
    pub const GRANTABLE: usize = Availability::Full as usize;
    /// How many there are.
    pub const COUNT: usize = Availability::Unavailable as usize + 1;

    /// Its number where it can take something.
    pub fn grantable(self) -> Option<usize> {
        Some(self as usize).filter(|number| *number < Availability::GRANTABLE)
    }
}

/// The request to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// The candidates have free tickets; otherwise only spare capacity.
    pub free_tickets_only: bool,
    /// The request will be counted until it ends; otherwise it spends a ticket.
    pub counted: bool,
    /// Who wants to be served, where the asker said so.
    pub client: Option<IpAddr>,
}

impl Placement {
    /// The states of its candidates: all providers in them are candidates but
    /// the few that the asker avoids.
    pub fn availabilities(&self) -> &'static [Availability] {
        match (self.free_tickets_only, self.counted) {
            (true, true) => &[Availability::FreeTicket],
            (true, false) => &[Availability::FreeTicket, Availability::UncountedOnly],
            (false, true) => &[Availability::SpareCapacity],
            (false, false) => &[],
        }
    }
}

/// The providers of the service, while a request is placed.
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

    /// The same, but only if it is a candidate for this request.
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
    /// The slot of the chosen candidate. `None`, or a slot without a candidate,
    /// leaves the request without a provider for now; else it is granted, and
    /// `changed` tells so.
    fn choose(&mut self, candidates: &dyn Candidates, placement: Placement) -> Option<usize>;

    /// Something about this provider is new; it may itself be. Told before the
    /// next placement, of every change, also of a lease or hold that ended. A
    /// fresh scheduler is told of everybody, longest ago granted first.
    fn on_update(&mut self, _record: &ProviderStats) {}

    /// The provider in this slot is forgotten; the slot may be reused.
    fn on_remove(&mut self, _slot: usize) {}
}
