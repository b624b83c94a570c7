//! Places that are asked for ahead of the clients who will need them: a client
//! then need not wait for an answer of the queue.
//!
//! Owns which tickets are at hand and which are on order. A ticket grows stale
//! quickly, as its provider goes on living: it is kept for [`AGE_MAX`], and
//! then given back. Knows neither clients nor the queue.

use crate::base::provider::Provider;
use crate::base::time::{Moment, Span};
use std::collections::{HashMap, VecDeque};

/// How long a ticket is kept.
pub const AGE_MAX: Span = Span::from_millis(250);

#[derive(Debug)]
struct PrefetchedTicket {
    id: u32,
    provider: Provider,
    since: Moment,
}

/// Of one service; the oldest ticket first.
#[derive(Debug, Default)]
struct PerService {
    tickets: VecDeque<PrefetchedTicket>,
    requested: u32,
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct Prefetch {
    /// By the number of the service.
    services: Vec<PerService>,
    pending: HashMap<u32, u16>,
}

impl Prefetch {
    fn service(&mut self, service: u16) -> &mut PerService {
        let number = usize::from(service);
        if self.services.len() <= number {
            self.services.resize_with(number + 1, PerService::default);
        }
        &mut self.services[number]
    }

    /// The oldest ticket at hand: its id and whose it is.
    pub fn take(&mut self, service: u16) -> Option<(u32, Provider)> {
        self.service(service).tickets.pop_front().map(|ticket| (ticket.id, ticket.provider))
    }

    /// How many to order, so that there will be `most`: none before half of
    /// them are used, because orders cost less together.
    pub fn wanted(&mut self, service: u16, most: u32) -> u32 {
        let per_service = self.service(service);
        let have = per_service.tickets.len() as u32 + per_service.requested;
        if have <= most / 2 {
            most - have
        } else {
            0
        }
    }

    /// One was ordered, by this id.
    pub fn requested(&mut self, service: u16, id: u32) {
        self.service(service).requested += 1;
        self.pending.insert(id, service);
    }

    /// The answer to this id came; whether it was ordered here.
    pub fn on_reply(&mut self, id: u32, provider: Option<Provider>, now: Moment) -> bool {
        let Some(service) = self.pending.remove(&id) else { return false };
        let per_service = self.service(service);
        per_service.requested -= 1;
        per_service.tickets.extend(provider.map(|provider| PrefetchedTicket {
            id,
            provider,
            since: now,
        }));
        true
    }

    /// Gives up the tickets that are too old: their ids.
    pub fn expire(&mut self, now: Moment) -> Vec<u32> {
        let mut old = Vec::new();
        for per_service in &mut self.services {
            while per_service.tickets.front().is_some_and(|ticket| ticket.since + AGE_MAX <= now) {
                old.extend(per_service.tickets.pop_front().map(|ticket| ticket.id));
            }
        }
        old
    }

    /// Gives up the tickets of a provider that failed: their ids.
    pub fn discard(&mut self, service: u16, provider: Provider) -> Vec<u32> {
        let tickets = &mut self.service(service).tickets;
        let ids = tickets
            .iter()
            .filter(|ticket| ticket.provider == provider)
            .map(|ticket| ticket.id)
            .collect();
        tickets.retain(|ticket| ticket.provider != provider);
        ids
    }

    /// The queue is another one: it knows nothing of all this.
    pub fn clear(&mut self) {
        *self = Prefetch::default();
    }

    /// When the first ticket grows too old.
    pub fn deadline(&self) -> Option<Moment> {
        self.services
            .iter()
            .filter_map(|per_service| per_service.tickets.front())
            .map(|ticket| ticket.since + AGE_MAX)
            .min()
    }
}
