//! How long clients may wait for a ticket. Owns that number, for each service.

use crate::base::service_name::ServiceName;
use crate::base::time::Span;

/// The longest waits; none: not at all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TicketWait {
    /// That of services that have none of their own.
    pub usual: Span,
    /// Those of services that have one.
    pub own: Vec<(ServiceName, Span)>,
}

impl TicketWait {
    /// How long a client of this service may wait.
    pub fn of(&self, service: ServiceName) -> Span {
        let own = self.own.iter().find(|(name, _)| *name == service);
        own.map_or(self.usual, |(_, wait)| *wait)
    }

    /// The longest wait of any service.
    pub fn longest(&self) -> Span {
        self.own.iter().map(|(_, wait)| *wait).fold(self.usual, Span::max)
    }

    /// The same, but nowhere longer than this.
    pub fn at_most(mut self, most: Span) -> TicketWait {
        let own = self.own.iter_mut().map(|(_, wait)| wait);
        own.chain([&mut self.usual]).for_each(|wait| *wait = (*wait).min(most));
        self
    }
}

impl From<Span> for TicketWait {
    fn from(usual: Span) -> TicketWait {
        TicketWait { usual, own: Vec::new() }
    }
}
