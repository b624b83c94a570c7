//! Places that are asked for ahead of the clients who will need them: a client
//! then need not wait for an answer of the queue.
//!
//! Owns which places are at hand and which are on order. A place grows stale
//! quickly, as its provider goes on living: it is kept for [`AGE_MAX`], and
//! then given back. Knows neither clients nor the queue.

use crate::base::address::Provider;
use crate::base::roster::Roster;
use crate::base::time::{Moment, Span};
use std::collections::VecDeque;

/// How long a place is kept.
pub const AGE_MAX: Span = Span::from_millis(250);

#[derive(Debug)]
struct PrefetchedTicket {
    id: u32,
    provider: Provider,
    since: Moment,
}

/// Of one service; the oldest place first.
#[derive(Debug, Default)]
struct PerService {
    places: VecDeque<PrefetchedTicket>,
    ordered: u32,
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct Prefetch {
    /// By the number of the service.
    shelves: Vec<PerService>,
    ordered: Roster<u32, u16>,
}

impl Prefetch {
    fn service(&mut self, service: u16) -> &mut PerService {
        let number = usize::from(service);
        if self.shelves.len() <= number {
            self.shelves.resize_with(number + 1, PerService::default);
        }
        &mut self.shelves[number]
    }

    /// The oldest place at hand: its id and whose it is.
    pub fn take(&mut self, service: u16) -> Option<(u32, Provider)> {
        self.service(service).places.pop_front().map(|place| (place.id, place.provider))
    }

    /// How many to order, so that there will be `most`: none before half of
    /// them are used, because orders cost less together.
    pub fn wanted(&mut self, service: u16, most: u32) -> u32 {
        let shelf = self.service(service);
        let have = shelf.places.len() as u32 + shelf.ordered;
        if have <= most / 2 {
            most - have
        } else {
            0
        }
    }

    /// One was ordered, by this id.
    pub fn requested(&mut self, service: u16, id: u32) {
        self.service(service).ordered += 1;
        self.ordered.put(id, service);
    }

    /// The answer to this id came; whether it was ordered here.
    pub fn on_reply(&mut self, id: u32, provider: Option<Provider>, now: Moment) -> bool {
        let Some(service) = self.ordered.remove(id) else { return false };
        let shelf = self.service(service);
        shelf.ordered -= 1;
        shelf.places.extend(provider.map(|provider| PrefetchedTicket { id, provider, since: now }));
        true
    }

    /// Gives up the places that are too old: their ids.
    pub fn expire(&mut self, now: Moment) -> Vec<u32> {
        let mut old = Vec::new();
        for shelf in &mut self.shelves {
            while shelf.places.front().is_some_and(|place| place.since + AGE_MAX <= now) {
                old.extend(shelf.places.pop_front().map(|place| place.id));
            }
        }
        old
    }

    /// Gives up the places of a provider that failed: their ids.
    pub fn discard(&mut self, service: u16, provider: Provider) -> Vec<u32> {
        let places = &mut self.service(service).places;
        let ids = places.iter().filter(|place| place.provider == provider).map(|place| place.id).collect();
        places.retain(|place| place.provider != provider);
        ids
    }

    /// The queue is another one: it knows nothing of all this.
    pub fn clear(&mut self) {
        *self = Prefetch::default();
    }

    /// When the first place grows too old.
    pub fn deadline(&self) -> Option<Moment> {
        self.shelves.iter().filter_map(|shelf| shelf.places.front()).map(|place| place.since + AGE_MAX).min()
    }
}
