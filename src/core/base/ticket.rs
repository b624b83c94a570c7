//! Tickets and capacities. Owns their range; the law of spending is `queue`'s.

use super::address::Provider;
use super::decimal::{self, Thousandths};
use super::time::Span;
use std::fmt;
use std::str::FromStr;

/// The most tickets, and the largest capacity, that a message may offer.
pub const TICKETS_MAX: u32 = 1_000_000;

/// Slots behind an offer, in thousandths: a share of few among many balancers
/// is less than one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Weight(u32);

impl Weight {
    /// The weight of so many slots, within `0..=TICKETS_MAX`.
    pub fn of(slots: f64) -> Weight {
        Weight((slots.clamp(0.0, f64::from(TICKETS_MAX)) * 1000.0 + 0.5) as u32)
    }

    /// In thousandths of a slot.
    pub const fn thousandths(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        Thousandths(f64::from(self.0) / 1000.0).fmt(out)
    }
}

impl FromStr for Weight {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Weight, Self::Err> {
        let slots = decimal::parse(text).filter(|slots| *slots <= f64::from(TICKETS_MAX));
        slots.map(Weight::of).ok_or("not a number from 0 to 1000000")
    }
}

/// What one ticket message offers (TICKET_SP): places at a provider.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Who would serve.
    pub provider: Provider,
    /// Requests that would start at once, `0..=TICKETS_MAX`.
    pub tickets: u32,
    /// Requests at once that it takes at most, `0..=TICKETS_MAX`; 0 withdraws.
    pub capacity: u32,
    /// The slots behind it: what orders providers where no ticket is free.
    pub weight: Weight,
    /// How long the offer holds, from its arrival.
    pub lease: Span,
}
