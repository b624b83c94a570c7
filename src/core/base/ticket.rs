//! Tickets and capacities. Owns their range; the law of spending is `queue`'s.

use super::provider::Provider;
use super::time::Span;

/// The most tickets, and the largest capacity, that a message may offer.
pub const TICKETS_MAX: u32 = 1_000_000;

/// What one ticket message offers (TICKET_SP): places at a provider.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Who would serve.
    pub provider: Provider,
    /// Requests that would start at once, `0..=TICKETS_MAX`.
    pub tickets: u32,
    /// Requests at once that it takes at most, `0..=TICKETS_MAX`; 0 withdraws.
    pub capacity: u32,
    /// How long the offer holds, from its arrival.
    pub lease: Span,
}
