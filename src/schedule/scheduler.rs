//! What a scheduler sees, and what it answers.
//!
//! Owns the trait and the record of a provider. The ticket queue keeps the
//! records and decides who is a candidate; a scheduler only chooses.

use crate::base::address::Provider;
use crate::base::time::Span;
use std::net::IpAddr;

/// Requests that must have ended before a holding time means anything.
pub const SAMPLES_MIN: u64 = 10;

/// What is known of a provider of the service.
#[derive(Clone, Debug)]
pub struct Record {
    /// A small number that stays with the provider while it is known; reused
    /// for another one after [`Scheduler::gone`].
    pub slot: usize,
    /// Its address.
    pub provider: Provider,
    /// Places where a request starts at once, as last offered.
    pub tickets: u32,
    /// Requests at once that it takes at the most.
    pub capacity: u32,
    /// Requests in progress there, of those that are counted.
    pub active: u32,
    /// Tickets spent by requests that are not counted, since its last offer.
    pub spent: u32,
    /// When its free tickets began, in the order of such beginnings.
    pub since: u64,
    /// Mean time that requests granted on a free ticket took.
    pub held: Span,
    /// How many requests that mean is of.
    pub samples: u64,
}

impl Record {
    /// Tickets that nobody uses.
    pub fn free(&self) -> u32 {
        self.tickets.saturating_sub(self.active).saturating_sub(self.spent)
    }
}

/// The providers that could take the request, longest ago granted first.
pub trait View {
    /// How many providers there are, candidates or not.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The provider in this place of the rotation, `0..len()`, 0 the one
    /// granted longest ago; none if it cannot take a request now.
    fn able(&self, place: usize) -> Option<&Record>;

    /// The same, but only if it is a candidate for this request.
    fn candidate(&self, place: usize) -> Option<&Record>;
}

/// The request to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// The candidates have free tickets; otherwise only spare capacity.
    pub on_tickets: bool,
    /// The request will be counted until it ends; otherwise it spends a ticket.
    pub counted: bool,
    /// Who wants to be served, where the asker said so.
    pub client: Option<IpAddr>,
}

/// A way to choose the next provider.
pub trait Scheduler: Send {
    /// The place of the chosen candidate in `view`. `None`, or a place without
    /// a candidate, leaves the request without a provider for now.
    fn choose(&mut self, view: &dyn View, question: Question) -> Option<usize>;

    /// The provider in this slot is forgotten; the slot may be reused.
    fn gone(&mut self, _slot: usize) {}
}
